"""The Hub seen from the web: metadata and who am I; no torch, and nothing is downloaded but headers."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.errors import HubError, HubUnreachable


class Account(Contract):
    """Who a token belongs to."""

    name: str
    organisations: list[str] = Field(default_factory=list)
    can_write: bool


class HubModel(Contract):
    """What the Hub says about a model."""

    id: str
    revision: str
    """The commit that `revision` stood for."""
    licence: str | None = None
    gated: bool = False
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class Hub:
    """The Hub on behalf of one token."""

    def __init__(self, token: str | None) -> None:
        # False: never fall back to a token that somebody left on this machine
        self._token: str | bool = token or False
        self._api = HfApi(token=self._token)

    def whoami(self) -> Account:
        """Whose token this is; raises HubError when it is refused."""
        if not self._token:
            raise HubError("There is no Hub token.", "Paste one with write access, or set HF_TOKEN.")
        with told("the token"):
            answer = self._api.whoami()
        auth = answer.get("auth", {}).get("accessToken", {})
        return Account(
            name=answer["name"],
            organisations=[org["name"] for org in answer.get("orgs", [])],
            can_write=auth.get("role") != "read",
        )

    def model(self, id: str, revision: str | None) -> HubModel:
        """Licence, commit and tensor shapes of a model; raises HubError."""
        with told(id):
            info = self._api.model_info(id, revision=revision)
            metadata = self._api.get_safetensors_metadata(id, revision=info.sha)
        shapes = {
            name: tuple(tensor.shape)
            for file in metadata.files_metadata.values()
            for name, tensor in file.tensors.items()
        }
        licence = info.card_data.get("license") if info.card_data else None
        return HubModel(id=info.id, revision=info.sha or "main", licence=licence, gated=bool(info.gated), shapes=shapes)


@contextmanager
def told(what: str) -> Iterator[None]:
    """The client's errors about `what`, in plain words."""
    try:
        yield
    except GatedRepoError:
        raise HubError(
            f"{what} is gated: its owner asks you to accept the licence first.",
            f"Open https://huggingface.co/{what}, accept, and use a token of that account.",
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{what} has no such revision.", "Check the branch, tag or commit.") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"There is no model or repository '{what}' that this token can see.",
            "Check the spelling; for a private or gated one, give a token that may read it.",
        ) from None
    except NotASafetensorsRepoError:
        raise HubError(
            f"{what} has no safetensors weights.", "Choose a model with .safetensors files; pickles are refused."
        ) from None
    except HFValidationError:
        raise HubError(f"'{what}' is not the name of a Hub repository.", "It has the form owner/name.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise HubError(_refusal(what, status), _hint(status)) from None
    except (OSError, httpx2.TransportError) as error:
        raise HubUnreachable(
            f"The Hub could not be reached for {what} ({type(error).__name__}).", "Check the connection and try again."
        ) from None


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
