"""What can go wrong: errors made for people; anyone may raise them, three places catch them.

FtappError                what happened, with the value; and a hint: what to do
├── ConfigError           a value in the config; carries the problems field by field
├── DatasetError          an upload or a row that cannot be used
│   ├── EncodingNeeded    its text is not UTF-8: a person must confirm what it is
│   └── MappingNeeded     its columns are not recognised: a person must say what they hold
├── ModelError            a model that cannot be loaded, trained, merged or run
│   ├── NotFinite         the loss or the gradient is no finite number any more
│   └── NoGradient        nothing is being learned
├── AcceleratorError      the GPU, its driver or torch's own libraries do not work
├── JobError              a run or publication that is missing, busy, or in the wrong state
├── HubError              the Hub refused
│   └── HubUnreachable    the Hub did not answer at all
├── NotAllowed            who asks may not do that here
├── LimitReached          a limit that the owner of this installation set
└── StorageError          the disk is full or not writable

Caught in `ui/edge.py`, `terminal/verbs.py` and `workers/__main__.py`; anything else that is raised is a bug.
"""

from typing import ClassVar, Literal

FailureKind = Literal[
    "memory", "disk", "not_finite", "no_gradient", "accelerator", "data", "model", "hub", "process", "other"
]
"""Why a job could not go on, for faces that offer a way out; `process`: one of several that train together ended."""


class FtappError(Exception):
    """A failure that a person can act on."""

    kind: ClassVar[FailureKind] = "other"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(FtappError):
    """A config that is not valid: `problems` maps a dotted field name to what is wrong with it."""

    def __init__(self, message: str, hint: str = "", problems: dict[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.problems = problems or {}


class DatasetError(FtappError):
    """An upload or a row that cannot be used."""

    kind = "data"


class EncodingNeeded(DatasetError):
    """Text that is not UTF-8; `excerpt` is what it looks like in `encoding`, if a person confirms that."""

    def __init__(self, name: str, encoding: str, excerpt: str) -> None:
        super().__init__(
            f"{name} is not UTF-8 text. Read as {encoding} it says: “{excerpt}”.",
            f"If that looks right, read it as {encoding}; else save it as UTF-8. Nothing was stored.",
        )
        self.name = name
        self.encoding = encoding
        self.excerpt = excerpt


class MappingNeeded(DatasetError):
    """Rows of no known format; `columns` are there to choose from, `suggestion` says what to try for which role."""

    def __init__(self, message: str, hint: str, columns: list[str], suggestion: dict[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.columns = columns
        self.suggestion = suggestion


class ModelError(FtappError):
    """A model that cannot be loaded, trained, merged or run."""

    kind: ClassVar[FailureKind] = "model"


class NotFinite(ModelError):
    """The loss or the gradient is no finite number any more."""

    kind = "not_finite"


class NoGradient(ModelError):
    """Nothing is being learned."""

    kind = "no_gradient"


class AcceleratorError(FtappError):
    """The GPU, its driver or torch's own libraries do not work."""

    kind = "accelerator"


class JobError(FtappError):
    """A run or publication that is missing, busy, or in the wrong state."""


class HubError(FtappError):
    """The Hub refused."""

    kind = "hub"


class HubUnreachable(HubError):
    """The Hub did not answer at all; what is on this machine may still do."""


class NotAllowed(FtappError):
    """Who asks may not do that here."""


class LimitReached(FtappError):
    """A limit that the owner of this installation set."""


class StorageError(FtappError):
    """The disk is full or not writable."""

    kind = "disk"
