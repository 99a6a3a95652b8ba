"""The error answers of the Hub, as exceptions that a handler raises."""

from __future__ import annotations

from starlette.responses import JSONResponse


class HubError(Exception):
    """An answer with an error status; `code` becomes the X-Error-Code that types the client's exception."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}

    def response(self) -> JSONResponse:
        """The error as the Hub sends it: a JSON body, and the same message in a header."""
        headers = {"X-Error-Message": self.message.encode("ascii", "replace").decode(), **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message, **self.body}, self.status, headers)


def repo_not_found(anonymous: bool) -> HubError:
    """What a missing repository and a hidden one both look like."""
    if anonymous:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """No such branch, tag, pull request or commit."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str = "Entry not found", commit: str | None = None) -> HubError:
    """No such file; with the commit, the client remembers that the file is not there."""
    return HubError(404, message, "EntryNotFound", headers={"X-Repo-Commit": commit} if commit else None)
