"""The errors of the Hub's client in plain words, for the web and the workers; no torch."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ftapp.contract.errors import HubError, HubUnreachable

XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")


@contextmanager
def told(what: str, kind: str = "model or repository") -> Iterator[None]:
    """The client's errors about `what`, in plain words."""
    place = "datasets/" if kind == "dataset" else ""
    try:
        yield
    except GatedRepoError:
        raise HubError(
            f"{what} is gated: its owner asks you to accept the licence first.",
            f"Open https://huggingface.co/{place}{what}, accept, and use a token of that account.",
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{what} has no such revision.", "Check the branch, tag or commit.") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"There is no {kind} '{what}' that this token can see.",
            "Check the spelling; for a private or gated one, give a token that may read it.",
        ) from None
    except NotASafetensorsRepoError:
        raise HubError(
            f"{what} has no safetensors weights.", "Choose a model with .safetensors files; pickles are refused."
        ) from None
    except HFValidationError:
        raise HubError(f"'{what}' is not the name of a Hub repository.", "It has the form owner/name.") from None
    except HfHubHTTPError as error:
        raise HubError(_refusal(what, status_of(error)), _hint(status_of(error))) from None
    except (OSError, httpx2.TransportError) as error:
        if status := status_of(error):
            raise HubError(_refusal(what, status), _hint(status)) from None
        raise HubUnreachable(
            f"The Hub could not be reached for {what} ({type(error).__name__}).", "Check the connection and try again."
        ) from None


def status_of(error: Exception) -> int:
    """The HTTP status in the client's error; 0 if there was no answer. Xet's errors have it in their words only."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = XET_STATUS.search(str(error)) if isinstance(error, ConnectionError) else None
    return int(found[1]) if found else 0


def _refusal(what: str, status: int) -> str:
    match status:
        case 401:
            return f"The Hub refused {what}: the token is not valid (401)."
        case 403:
            return f"The Hub refused {what}: this token may not do that (403)."
        case 409:
            return f"The Hub refused {what}: it already exists or changed meanwhile (409)."
        case 412:
            return f"The Hub refused {what}: somebody else changed it meanwhile (412)."
        case 429:
            return f"The Hub refused {what}: too many requests (429)."
        case _:
            return f"The Hub failed on {what} ({status or 'no answer'})."


def _hint(status: int) -> str:
    if status in (401, 403):
        return "Make a token with write access at https://huggingface.co/settings/tokens and use that one."
    if status == 429:
        return "Wait a few minutes and try again."
    return "Try again; what was made here is kept."
