"""What can be read off a request without knowing who sent it, and the ways it is answered or cut short."""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive


def refuse(status: int, words: str) -> Response:
    """An answer that Gradio's page shows as an error."""
    return JSONResponse({"error": words, "detail": words}, status)


def again_with(body: bytes, receive: Receive) -> Receive:
    """The body once more, for whoever reads it next, and then what comes."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def at_most(receive: Receive, most: int) -> Receive:
    """What comes, until it is more than so many bytes: then it is as if the other side had gone."""
    got = 0

    async def cut() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        return message if got <= most else {"type": "http.disconnect"}

    return cut


def files_named(value: Any) -> Iterable[str]:
    """Every file that a request names, as Gradio looks for them."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str):
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def path_of(request: Request) -> str:
    """The path by which Starlette finds a route; not the one in its URL, which is cleaned of what does not belong."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def netloc(address: str) -> str:
    """Host and port of an address; empty if it is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def hostname(host: str) -> str:
    """A Host header without its port; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def address_of(request: Request, behind_proxy: bool) -> str:
    """Where a request of nobody known came from; in a Space as the last proxy says that is not of its own network.

    What stands before that in the header, anybody may have written. Of IPv6 a whole network counts as one.
    """
    hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",") if behind_proxy else []
    for hop in reversed(hops):
        try:
            if ipaddress.ip_address(hop.strip()).is_global:
                return _network(hop.strip())
        except ValueError:
            continue
    return _network(request.client.host if request.client else "")


def _network(address: str) -> str:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if known.version == 4 else str(ipaddress.IPv6Network((int(known), 64), False))
