"""A Space of one's own: its repository, files, hardware and secrets on the Hub; the terminal asks for it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from ftapp.contract.errors import HubError, StorageError
from ftapp.hub import told

ROOT = Path(__file__).parents[1]
FILES = ("app.py", "ftapp", "requirements.txt", "Dockerfile", ".dockerignore", "LICENSE", "SECURITY.md")
"""What a Space needs of the project; its front page comes from spaces/."""
WORKING = ("BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING")
POLL_SECONDS = 2.0
LOG_LINES = 20


@dataclass(frozen=True)
class SpaceRequest:
    """What the Space should be."""

    id: str
    """owner/name."""
    hardware: str
    sleep: int
    """Seconds without a visitor after which it sleeps; -1: never."""
    secrets: dict[str, str] = field(default_factory=dict)


def files() -> dict[str, Path]:
    """Path in the Space's repository → the file here; raises StorageError if this is not a whole checkout."""
    found = {"README.md": ROOT / "spaces" / "README.md"}
    for name in FILES:
        path = ROOT / name
        inside = [one for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [path]
        found |= {one.relative_to(ROOT).as_posix(): one for one in inside if "__pycache__" not in one.parts}
    if missing := [name for name, path in found.items() if not path.is_file()]:
        raise StorageError(
            f"{', '.join(missing)} is not in {ROOT}.", "Deploy from a clone of the project, where nothing is missing."
        )
    return found


class Space:
    """One Space, created or brought up to date with the owner's token, which stays here."""

    def __init__(self, request: SpaceRequest, token: str | None) -> None:
        if not token:
            raise HubError(
                "There is no token.", "Set HF_TOKEN to one that may write: https://huggingface.co/settings/tokens"
            )
        self._request = request
        self._api = HfApi(token=token)

    @property
    def page(self) -> str:
        """Where its settings, its build and its log are seen."""
        return f"{self._api.endpoint}/spaces/{self._request.id}"

    def create(self) -> bool:
        """Make the repository, asleep on free hardware until it is whole; whether there was none. Raises HubError."""
        id = self._request.id
        with told(id, "Space"):
            try:
                there = self._api.space_info(id)
            except RepositoryNotFoundError:
                self._api.create_repo(id, repo_type="space", space_sdk="docker", private=True)
                return True
        if not there.private:
            raise HubError(
                f"{id} exists and is public: there is no sign-in yet, so anybody could use its hardware and its data.",
                "Make it private in its settings, or choose another name.",
            )
        if there.sdk != "docker":
            raise HubError(f"{id} is a Space of another kind ({there.sdk}).", "Choose another name.")
        return False

    def configure(self) -> None:
        """Secrets, before the first start sees them; raises HubError."""
        id = self._request.id
        with told(id, "Space"):
            for name, value in self._request.secrets.items():
                self._api.add_space_secret(id, name, value)

    def upload(self) -> int:
        """Put the project there in one commit and take away what it has no more; how many files. Raises HubError."""
        id, ours = self._request.id, files()
        with told(id, "Space"):
            there = {item for item in self._api.list_repo_files(id, repo_type="space") if item != ".gitattributes"}
            gone = [CommitOperationDelete(path) for path in sorted(there - set(ours))]
            added = [CommitOperationAdd(name, path) for name, path in ours.items()]
            self._api.create_commit(id, [*added, *gone], commit_message="ftapp", repo_type="space")
        return len(ours)

    def rent(self) -> None:
        """Ask for the hardware, the last thing of all: it costs from now on. Raises HubError."""
        with told(self._request.id, "Space"):
            flavor: Any = self._request.hardware  # new ones come faster than releases of the client
            self._api.request_space_hardware(self._request.id, flavor, sleep_time=self._request.sleep)

    def stages(self, poll: float = POLL_SECONDS) -> Iterator[str]:
        """Each stage that it comes to, until it runs; raises HubError with the end of its log if it does not."""
        last = ""
        while last not in ("RUNNING", "PAUSED", "STOPPED"):
            with told(self._request.id, "Space"):
                stage = str(self._api.get_space_runtime(self._request.id).stage)
            if stage != last:
                last = stage
                yield stage
            elif stage in WORKING:
                time.sleep(poll)
            if stage not in (*WORKING, "RUNNING", "PAUSED", "STOPPED"):
                raise HubError(f"{self._request.id} does not start: {stage}.", self._log() or f"See {self.page}")

    def _log(self) -> str:
        """The end of what the build printed, or the app if that was built; empty if the Hub does not say."""
        for build in (False, True):
            try:
                if lines := list(self._api.fetch_space_logs(self._request.id, build=build)):
                    return "Its log ends with: " + " | ".join(line.strip() for line in lines[-LOG_LINES:])
            except (HfHubHTTPError, OSError, httpx2.TransportError):
                continue
        return ""

    def address(self) -> str:
        """Where the app itself answers."""
        with told(self._request.id, "Space"):
            info = self._api.space_info(self._request.id)
        return f"https://{info.subdomain}.hf.space" if info.subdomain else self.page
