"""A Space of one's own: its repository, files, bucket, hardware and secrets on the Hub; the terminal asks for it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, Volume
from huggingface_hub.errors import BucketNotFoundError, HfHubHTTPError, RepositoryNotFoundError

from ftapp.contract.errors import HubError, StorageError
from ftapp.hub_errors import told

ROOT = Path(__file__).parents[1]
FILES = ("app.py", "ftapp", "requirements.txt", "Dockerfile", ".dockerignore", "LICENSE", "SECURITY.md")
"""What a Space needs of the project; its front page comes from spaces/."""
FRONT = "README.md"
PAGE = ROOT / "spaces" / FRONT
WORKING = ("BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING")
POLL_SECONDS = 2.0
LOG_LINES = 20
MOUNT = "/data"
NEVER = -1
PLACEHOLDER = "OWNER/NAME"
"""Stands for the Space in its front page."""


@dataclass(frozen=True)
class SpaceRequest:
    """What the Space should be."""

    id: str
    """owner/name."""
    hardware: str
    sleep: int
    """Seconds without a visitor after which it sleeps when nothing is at work; -1: never."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    bucket: str | None = None
    """owner/name of the storage that outlives its disk; None: as it is."""
    allowed: tuple[str, ...] = ()
    """Users and organisations that are let in besides the owner; none: as it is."""
    public: bool = False
    """Whether everybody may look at it."""
    restart: bool = False
    """Whether it may be restarted though a run is at work there."""


def files() -> dict[str, Path]:
    """Path in the Space's repository → the file here; raises StorageError if this is not a whole checkout."""
    found: dict[str, Path] = {}
    for name in FILES:
        path = ROOT / name
        inside = [one for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [path]
        found |= {one.relative_to(ROOT).as_posix(): one for one in inside if "__pycache__" not in one.parts}
    missing = [name for name, path in {**found, "spaces/README.md": PAGE}.items() if not path.is_file()]
    if missing:
        raise StorageError(
            f"{', '.join(missing)} is not in {ROOT}.", "Deploy from a clone of the project, where nothing is missing."
        )
    return found


def front_page(id: str) -> bytes:
    """The Space's README.md: what it is, and the button that makes a copy of just this one."""
    return PAGE.read_bytes().replace(PLACEHOLDER.encode(), id.encode())


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
        if not there.private and not self._request.public:
            raise HubError(
                f"{id} exists and is public: everybody can look at it, and those who are let in can sign in.",
                "If it is to stay so, say --public; if not, make it private in its settings, or choose another name.",
            )
        if there.sdk != "docker":
            raise HubError(f"{id} is a Space of another kind ({there.sdk}).", "Choose another name.")
        if not self._request.restart:
            self._refuse_at_work()
        return False

    def _refuse_at_work(self) -> None:
        """A restart would cut a run off: while one is at work the app has the sleep suspended."""
        id = self._request.id
        with told(id, "Space"):
            usual = self._api.get_space_variables(id).get("FTAPP_SLEEP")
            runtime = self._api.get_space_runtime(id)
        if usual and usual.value != str(NEVER) and runtime.sleep_time == NEVER and runtime.stage == "RUNNING":
            raise HubError(
                f"A run seems to be at work in {id}: its sleep is suspended. A restart would cut that off.",
                "Wait until it has ended, or say --restart; with a bucket the run can then be resumed.",
            )

    def keep_in_bucket(self) -> bool:
        """Make the bucket if there is none, and mount it; whether it was made. Raises HubError."""
        id, bucket = self._request.id, self._request.bucket
        if bucket is None:
            return False
        with told(bucket, "bucket"):
            try:
                private, made = self._api.bucket_info(bucket).private, False
            except BucketNotFoundError:
                self._api.create_bucket(bucket, private=True)
                private = made = True
        if not private:
            raise HubError(
                f"The bucket {bucket} is public: everybody could read the Space's datasets and models in it.",
                "Make it private in its settings, or choose another name.",
            )
        ours = Volume(type="bucket", source=bucket, mount_path=MOUNT)
        with told(id, "Space"):
            there = self._api.get_space_runtime(id).volumes or []
            if ours.to_dict() not in [one.to_dict() for one in there]:
                others = [one for one in there if one.mount_path != MOUNT]
                self._api.set_space_volumes(id, [*others, ours])
        return made

    def configure(self) -> None:
        """Secrets and variables, before the first start sees them; raises HubError."""
        id, request = self._request.id, self._request
        wanted = {"FTAPP_SLEEP": str(request.sleep)}
        if request.bucket:
            wanted["FTAPP_VOLUME"] = MOUNT
        if request.allowed:
            wanted["FTAPP_ALLOWED"] = ",".join(request.allowed)
        with told(id, "Space"):
            for name, value in request.secrets.items():
                self._api.add_space_secret(id, name, value)
            known = {name: one.value for name, one in self._api.get_space_variables(id).items()}
            for name, value in wanted.items():
                if known.get(name) != value:
                    self._api.add_space_variable(id, name, value)

    def lacks(self) -> list[str]:
        """What it would be safer with, in sentences; raises HubError."""
        id, told_of = self._request.id, []
        with told(id, "Space"):
            if "HF_TOKEN" not in self._api.get_space_secrets(id) and self._request.sleep != NEVER:
                told_of.append(
                    "It has no secret HF_TOKEN, so it cannot suspend its sleep: a run that nobody watches may be cut "
                    "off. Use --secret HF_TOKEN; best with a token that may write to this Space alone."
                )
            if not any(one.mount_path == MOUNT for one in self._api.get_space_runtime(id).volumes or []):
                told_of.append(
                    "It has no bucket: what is trained there is lost at every restart and sleep. Use --bucket NAME."
                )
        return told_of

    def upload(self) -> int:
        """Put the project there in one commit and take away what it has no more; how many files. Raises HubError."""
        id, ours = self._request.id, files()
        with told(id, "Space"):
            there = {item for item in self._api.list_repo_files(id, repo_type="space") if item != ".gitattributes"}
            gone = [CommitOperationDelete(path) for path in sorted(there - {FRONT, *ours})]
            added = [CommitOperationAdd(name, path) for name, path in ours.items()]
            added += [CommitOperationAdd(FRONT, front_page(id))]
            self._api.create_commit(id, [*added, *gone], commit_message="ftapp", repo_type="space")
            if self._request.public and self._api.space_info(id).private:
                # not before the files with the sign-in are there
                self._api.update_repo_settings(id, private=False, repo_type="space")
        return len(ours) + 1

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
