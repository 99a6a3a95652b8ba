"""Repositories from the outside: who am I, create, delete, settings, search, information, branches, pull requests."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.hub.accounts import (
    Identity,
    may_see,
    require_content,
    require_user,
    require_visible,
    require_write,
    require_write_token,
)
from tests.hub.context import hub_of, json_body, kind_of, repo_of, segment
from tests.hub.errors import HubError, revision_not_found
from tests.hub.info import card_data, describe, only
from tests.hub.model import KINDS, MAIN, Kind, Pull, Repo


async def whoami(request: Request) -> Response:
    """The user behind the token."""
    return JSONResponse(require_user(hub_of(request).accounts.identify(request)).whoami())


def _named(body: dict[str, Any], who: Identity) -> tuple[Kind, str, str]:
    kind = body.get("type") or "model"
    if kind not in KINDS or not isinstance(body.get("name"), str):
        raise HubError(400, "Invalid repository type or name")
    namespace, _, name = body["name"].rpartition("/")
    return kind, namespace or body.get("organization") or who.name, name


async def create(request: Request) -> Response:
    """Create a repository in a namespace of the user's."""
    hub = hub_of(request)
    who = require_write_token(hub.accounts.identify(request))
    body = await json_body(request)
    kind, namespace, name = _named(body, who)
    if not who.writes_to(namespace):
        message = f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
        raise HubError(403, message)
    with hub.store.lock:
        existing = hub.store.find(kind, f"{namespace}/{name}")
        if existing:
            body = {"url": hub.url(request, existing.page)}
            raise HubError(409, f"You already created this {kind} repo: {existing.id}", body=body)
        if kind == "space" and not body.get("sdk"):
            raise HubError(400, "A Space needs an sdk")
        private = body.get("visibility") == "private" or body.get("private") is True
        # Secrets of a Space are not kept: nothing may read them back.
        space: dict[str, Any] = {
            key: body[key] for key in ("sdk", "hardware", "sleepTimeSeconds", "variables") if key in body
        }
        repo = hub.store.create(Repo(kind, namespace, name, private=private, space=space), who.name)
    return JSONResponse({"url": hub.url(request, repo.page), "name": repo.id, "id": repo.id, "private": private})


async def delete(request: Request) -> Response:
    """Delete a repository."""
    hub = hub_of(request)
    who = require_write_token(hub.accounts.identify(request))
    kind, namespace, name = _named(await json_body(request), who)
    repo = require_visible(hub.store.find(kind, f"{namespace}/{name}"), who)
    require_write(repo, who)
    hub.store.delete(repo)
    return JSONResponse({})


async def settings(request: Request) -> Response:
    """Change visibility and gating."""
    repo, who = repo_of(request)
    require_write(repo, who)
    body = await json_body(request)
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or body.get("private") is True
    if "gated" in body:
        repo.gated = body["gated"]
    hub_of(request).store.save(repo)
    return JSONResponse({"private": repo.private, "gated": repo.gated})


async def validate_yaml(request: Request) -> Response:
    """Check the front matter of a card before it is pushed."""
    content = (await json_body(request)).get("content", "")
    try:
        data = card_data(str(content).encode())
    except ValueError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if data else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def info(request: Request) -> Response:
    """A repository at a revision, main when none is named; gated repositories are described to everyone."""
    hub = hub_of(request)
    repo, _ = repo_of(request)
    commit = hub.store.commit_at(repo, segment(request, "revision") if "revision" in request.path_params else "main")
    blobs = request.query_params.get("blobs", "").lower() in ("true", "1")
    about = await run_in_threadpool(describe, hub.store, repo, commit, blobs=blobs)
    return JSONResponse(only(about, request.query_params.getlist("expand")))


async def search(request: Request) -> Response:
    """The repositories of a kind that match, private ones only for those who may see them."""
    hub, query = hub_of(request), request.query_params
    who = hub.accounts.identify(request)
    kind = kind_of(request)
    words = query.get("search", "").lower().split()
    found: list[dict[str, Any]] = []
    for repo in hub.store.repos():
        if repo.kind != kind or not may_see(repo, who) or query.get("author", repo.namespace) != repo.namespace:
            continue
        if not all(word in repo.id.lower() for word in words):
            continue
        about = await run_in_threadpool(describe, hub.store, repo, hub.store.commit_at(repo, "main"))
        if not set(query.getlist("filter")) <= set(about["tags"]):
            continue
        if query.get("pipeline_tag", about.get("pipeline_tag")) != about.get("pipeline_tag"):
            continue
        found.append(about)
    if query.get("sort") in ("lastModified", "createdAt", "downloads", "likes"):
        found.sort(key=lambda about: about[query["sort"]], reverse=True)
    del found[int(query.get("limit", 1000)) :]
    if "full" not in query and "expand" not in query:
        left_out = ("siblings", "sha", "safetensors")
        found = [{key: value for key, value in about.items() if key not in left_out} for about in found]
    return JSONResponse([only(about, query.getlist("expand")) for about in found])


async def auth_check(request: Request) -> Response:
    """Whether the user may read, or write, the repository's files."""
    repo, who = repo_of(request)
    require_content(repo, who)
    if request.url.path.endswith("/write"):
        require_write(repo, who)
    return JSONResponse({})


async def refs(request: Request) -> Response:
    """Branches, tags and, when asked, pull requests."""
    repo, _ = repo_of(request)

    def listed(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit}
            for ref, commit in repo.refs.items()
            if ref.startswith(prefix)
        ]

    answer = {"branches": listed("refs/heads/"), "converts": [], "tags": listed("refs/tags/")}
    if request.query_params.get("include_prs"):
        answer["pullRequests"] = listed("refs/pr/")
    return JSONResponse(answer)


async def branch(request: Request) -> Response:
    """Create a branch from a starting point, or delete one."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    require_write(repo, who)
    ref = f"refs/heads/{segment(request, 'branch')}"
    if request.method == "DELETE":
        if ref == MAIN:
            raise HubError(403, "Cannot delete the main branch")
        if repo.refs.pop(ref, None) is None:
            raise revision_not_found(ref)
        hub.store.save(repo)
        return JSONResponse({})
    body = await json_body(request)
    if ref in repo.refs:
        raise HubError(409, f"Reference already exists: {ref}")
    repo.refs[ref] = hub.store.commit_at(repo, body.get("startingPoint") or "main").oid
    hub.store.save(repo)
    return JSONResponse({}, 201)


async def tag(request: Request) -> Response:
    """Give a commit a name that stays."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    require_write(repo, who)
    ref = f"refs/tags/{(await json_body(request))['tag']}"
    if ref in repo.refs:
        raise HubError(409, f"Tag already exists: {ref}")
    repo.refs[ref] = hub.store.commit_at(repo, segment(request, "revision")).oid
    hub.store.save(repo)
    return JSONResponse({}, 201)


async def commits(request: Request) -> Response:
    """The history behind a revision, the latest commit first."""
    store = hub_of(request).store
    repo, _ = repo_of(request)
    history = store.history(repo, store.commit_at(repo, segment(request, "revision")))
    return JSONResponse(
        [
            {"id": c.oid, "title": c.title, "message": c.message, "authors": [{"user": c.author}], "date": c.date}
            for c in history
        ]
    )


def _discussion(repo: Repo, pull: Pull) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": pull.created,
        "status": pull.status,
        "repo": {"name": repo.id, "type": repo.kind},
        "isPullRequest": True,
        "events": [],
        "changes": {"base": MAIN},
        "filesWithConflicts": [],
        "diff": "",
    }


async def open_pull(request: Request) -> Response:
    """Open a pull request; plain discussions are not kept."""
    hub = hub_of(request)
    repo, who = repo_of(request)
    user = require_write(repo, who, pull_request=True)
    body = await json_body(request)
    if not body.get("pullRequest"):
        raise HubError(501, "This Hub keeps pull requests only")
    pull = hub.store.open_pull(repo, str(body.get("title", "")), str(body.get("description", "")), user.name)
    return JSONResponse(
        {"num": pull.num, "pullRequest": True, "url": f"{hub.url(request, repo.page)}/discussions/{pull.num}"}
    )


async def pull(request: Request) -> Response:
    """One pull request, or all of them."""
    repo, _ = repo_of(request)
    if "num" not in request.path_params:
        listed = [_discussion(repo, item) for item in repo.pulls]
        return JSONResponse({"discussions": listed, "count": len(listed), "start": 0})
    number = int(request.path_params["num"])
    if not 1 <= number <= len(repo.pulls):
        raise HubError(404, "Discussion not found")
    return JSONResponse(_discussion(repo, repo.pulls[number - 1]))


def repo_routes() -> list[BaseRoute]:
    """The routes; those of one repository end in what is asked of it."""
    repo = "/api/{kind:kind}/{namespace}/{name}"
    return [
        Route("/api/whoami-v2", whoami),
        Route("/api/repos/create", create, methods=["POST"]),
        Route("/api/repos/delete", delete, methods=["DELETE"]),
        Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
        Route("/api/{kind:kind}", search),
        Route(repo, info),
        Route(f"{repo}/revision/{{revision}}", info),
        Route(f"{repo}/settings", settings, methods=["PUT"]),
        Route(f"{repo}/auth-check", auth_check),
        Route(f"{repo}/auth-check/write", auth_check),
        Route(f"{repo}/refs", refs),
        Route(f"{repo}/branch/{{branch}}", branch, methods=["POST", "DELETE"]),
        Route(f"{repo}/tag/{{revision}}", tag, methods=["POST"]),
        Route(f"{repo}/commits/{{revision}}", commits),
        Route(f"{repo}/discussions", open_pull, methods=["POST"]),
        Route(f"{repo}/discussions", pull),
        Route(f"{repo}/discussions/{{num:int}}", pull),
    ]
