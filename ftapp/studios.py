"""Everybody's studios on this machine, one for each person, over one accelerator; the page asks here whose it draws."""

import shutil
import threading

from ftapp.contract.errors import NotAllowed
from ftapp.library import DEMO_FOLDER
from ftapp.people import LOCAL, VISITOR, Person
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.files import write_whole
from ftapp.studio import Studio


class Studios:
    """The studios of all who came since the start; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings, self._token_of, self._make_room)
        self._studios: dict[str, Studio] = {}
        self._lock = threading.Lock()

    def of(self, person: Person) -> Studio:
        """The studio of this person."""
        with self._lock:
            known = self._studios.get(person.name)
            if known is None:
                known = Studio(self.settings, person, self.scheduler)
                if person.shared:
                    known.use_token(None)  # the installation's own is its owner's
                known.others = lambda: [one for one in self.all() if one is not known]
                self._studios[person.name] = known
                if person == VISITOR:
                    _show_the_demo(known)
            return known

    def all(self) -> list[Studio]:
        """Those of everybody who came so far."""
        with self._lock:
            return list(self._studios.values())

    def signed_in(self, person: Person, account: str, token: str) -> None:
        """Somebody proved to be `account`, an id that lasts; their token acts for them. Raises NotAllowed.

        A name that another account had before opens nothing of that account's.
        """
        studio = self.of(person)
        if person.may_act:
            known = studio.folder / "account"
            studio.folder.mkdir(parents=True, exist_ok=True)
            if known.exists() and known.read_text() != account:
                raise NotAllowed(
                    f"Another account was called {person.name} before, and its files are here.",
                    "Ask the owner of this Space to move them away.",
                )
            write_whole(known, account.encode())
            studio.use_token(token)

    def sweep(self) -> None:
        """Take away what processes that died left half done; call it when the app starts."""
        folders = [path for path in self.settings.home.glob("*") if path.is_dir() and not path.name.startswith(".")]
        for folder in folders:
            Studio(self.settings, Person(folder.name), self.scheduler).sweep()

    def close_idle(self) -> None:
        """Unload what nobody has used for a while, or what a training needs the memory of."""
        for studio in self.all():
            studio.close_idle()

    def close(self) -> None:
        """End checks and unload all models; trainings and publications run on."""
        for studio in self.all():
            studio.close()

    def _token_of(self, name: str) -> str | None:
        with self._lock:
            known = self._studios.get(name)
        if known:
            return known.settings.hub_token
        return self.settings.hub_token if name == LOCAL.name and self.settings.sign_in is None else None

    def _make_room(self) -> None:
        for studio in self.all():
            studio.make_room("a run started and needs the memory")


def _show_the_demo(visitor: Studio) -> None:
    """Put the demo's recorded run where visitors see it, trained and evaluated; see docs/record.py."""
    place = visitor.folder / "runs"
    shutil.rmtree(place, ignore_errors=True)  # that of an earlier version
    shutil.copytree(DEMO_FOLDER / "runs", place)
