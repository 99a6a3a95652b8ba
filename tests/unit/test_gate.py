"""The gate before the page: passwords, hosts, other sites, sizes, rates; over an app that would answer anything."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from ftapp.settings import read_settings
from ftapp.ui.gate import MAX_BODY, PAGES, WRONG_PASSWORDS, Gate
from ftapp.ui.ledgers import MINUTE, MOST_AT_ONCE, Rate
from ftapp.ui.requests import address_of

T = TypeVar("T")


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """What the gate protects: says what reached it."""
    body = b"".join([piece async for piece in Request(scope, receive).stream()])
    told = {"path": scope["path"], "size": len(body), "file": {"path": "/cache/offered"}}
    await JSONResponse(["/cache/uploaded"] if scope["path"].endswith("/upload") else told)(scope, receive, send)


def run(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: this one may have a browser's event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def ask(gate: Gate, method: str, path: str, host: str = "127.0.0.1:7860", **options: Any) -> httpx2.Response:
    async def asked() -> httpx2.Response:
        transport = httpx2.ASGITransport(gate)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **options)

    return run(asked())


@pytest.fixture
def local() -> Gate:
    return Gate(behind, read_settings(), None)


def with_password() -> Gate:
    return Gate(behind, replace(read_settings(), host="0.0.0.0", user="ann", password="päss:word"), None)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"])
def test_this_machine_comes_in_under_its_own_names(local: Gate, host: str) -> None:
    assert ask(local, "GET", "/", host).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "192.168.1.4:7860"])
def test_a_name_that_points_here_from_outside_does_not(local: Gate, host: str) -> None:
    answer = ask(local, "GET", "/", host)
    assert answer.status_code == 421
    assert "http://127.0.0.1:7860" in answer.json()["error"]


def test_another_site_may_not_act(local: Gate) -> None:
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:7860", 200)):
        answer = ask(local, "POST", "/gradio_api/queue/join", json={}, headers={"Origin": origin})
        assert answer.status_code == status, origin


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://far.example", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://hub.example", "Sec-Fetch-Site": "same-origin"}, 200),  # a proxy changed the host
        ({"Origin": "http://far.example"}, 200),
        ({}, 200),
    ],
)
def test_another_site_may_not_act_by_what_a_browser_knows_of_it(sent: dict[str, str], status: int) -> None:
    auth = ("ann", "päss:word")
    answer = ask(with_password(), "POST", "/gradio_api/cancel", "far.example", json={}, headers=sent, auth=auth)
    assert answer.status_code == status


def test_another_site_may_not_read() -> None:
    gate, auth = with_password(), ("ann", "päss:word")
    for sent, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link to here
    ):
        assert ask(gate, "GET", "/config", "far.example", headers=sent, auth=auth).status_code == status
    assert ask(gate, "OPTIONS", "/config", "far.example", auth=auth).status_code == 405


def test_a_password_is_asked_of_everybody_for_everything() -> None:
    gate = with_password()
    for path in ("/", "/config", "/gradio_api/info", "/artifacts/x/1.zip", "/assets/x.js"):
        for auth in (None, ("ann", "wrong"), ("other", "päss:word"), ("ann", "")):
            answer = ask(gate, "GET", path, "far.example", auth=auth)
            assert answer.status_code == 401, (path, auth)
            assert answer.headers["www-authenticate"].startswith("Basic ")
        assert ask(gate, "GET", path, "far.example", auth=("ann", "päss:word")).status_code == 200
    for broken in ("Basic", "Basic ???", "Bearer x", "Basic cMOkc3M"):
        assert ask(gate, "GET", "/", headers={"Authorization": broken}).status_code == 401
    assert ask(gate, "GET", "/health").text == "ok"


@pytest.mark.parametrize(
    ("client", "counted"), [("192.0.2.7", "192.0.2.7"), ("2001:db8::1:7", "2001:db8::/64"), ("", ""), ("pipe", "pipe")]
)
def test_a_whole_network_of_ipv6_counts_as_one(client: str, counted: str) -> None:
    request = Request({"type": "http", "headers": [], "client": (client, 1)})
    assert address_of(request, behind_proxy=False) == counted


def test_passwords_cannot_be_guessed_at_will(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, right = with_password(), ("ann", "päss:word")
    for _ in range(WRONG_PASSWORDS + 10):  # to be asked for one is no guess
        assert ask(gate, "GET", "/", "far.example").status_code == 401
    for guess in range(WRONG_PASSWORDS):
        assert ask(gate, "GET", "/", "far.example", auth=("ann", str(guess))).status_code == 401
    refused = ask(gate, "GET", "/", "far.example", auth=right)
    assert refused.status_code == 429
    assert "wrong passwords" in refused.json()["error"]
    later = time.monotonic() + MINUTE
    monkeypatch.setattr("ftapp.ui.ledgers.time.monotonic", lambda: later)
    assert ask(gate, "GET", "/", "far.example", auth=right).status_code == 200


def test_requests_have_a_size(local: Gate) -> None:
    assert ask(local, "POST", "/gradio_api/queue/join", content=b"[" + b"1," * (MAX_BODY // 2)).status_code == 413
    assert ask(local, "GET", "/", headers={"X-Long": "x" * 40_000}).status_code == 431
    assert ask(local, "POST", "/gradio_api/queue/join", content=b"{nonsense").status_code == 400
    assert ask(local, "POST", "/gradio_api/queue/join", content=b"[" * 200_000).status_code == 400
    body = json.dumps({"data": ["x" * 100_000]}).encode()
    assert ask(local, "POST", "/gradio_api/queue/join", content=body).json()["size"] == len(body)


def test_requests_have_a_rate() -> None:
    gate = Gate(behind, replace(read_settings(), max_requests=3), None)
    assert [ask(gate, "GET", "/").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_requests_at_once_have_a_limit() -> None:
    rate = Rate(MOST_AT_ONCE + 2)
    assert [rate.begin("ann") for _ in range(MOST_AT_ONCE + 1)] == [True] * MOST_AT_ONCE + [False]
    assert rate.begin("bob")
    rate.end("ann")
    assert rate.begin("ann")


@pytest.mark.parametrize(
    ("proxied", "same"),
    [
        (("6.6.6.6, 5.5.5.5", "7.7.7.7, 5.5.5.5, 10.1.2.3"), True),  # what stands before, anybody may have written
        (("5.5.5.5", "5.5.5.6"), False),
        (("2a00:1:2:3::1", "2a00:1:2:3:ffff::2"), True),
        (("2a00:1:2:3::1", "2a00:1:2:4::1"), False),
        (("nonsense", "x" * 1000), True),
    ],
)
def test_the_rate_of_nobody_known_goes_by_address(proxied: tuple[str, str], same: bool) -> None:
    gate = Gate(behind, replace(read_settings(), max_requests=1, space_id="a/b"), None)
    asked = [ask(gate, "GET", "/", headers={"X-Forwarded-For": one}).status_code for one in proxied]
    assert asked == [200, 429 if same else 200]


def test_of_gradios_own_only_what_the_page_uses_is_open(local: Gate) -> None:
    for path in (
        "call/x/another-session", "call/v2/x/y", "component_server", "component_server/", "dev/reload", "deep_link",
        "file/etc/passwd", "proxy=https://x", "queue/join/", "stream/x", "custom_component/a/client/b/c",
        "queue/join%0A", "upload%0A", "mcp/",
    ):  # fmt: skip
        assert ask(local, "GET", f"/gradio_api/{path}").status_code == 404, path
    for path in ("queue/data?session_hash=x", "heartbeat/x", "info", "run/predict", "theme.css"):
        assert ask(local, "GET", f"/gradio_api/{path}").status_code == 200, path


def test_behind_a_path_the_same_is_closed() -> None:
    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        await Gate(behind, read_settings(), None)({**scope, "root_path": "/tuner"}, receive, send)

    transport = httpx2.ASGITransport(below)

    async def asked(path: str) -> int:
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get(path)).status_code

    assert run(asked("/tuner/gradio_api/info")) == 200
    assert run(asked("/tuner/gradio_api/dev/reload")) == 404
    assert run(asked("/tuner/gradio_api/file=/etc/passwd")) == 403


def test_sessions_have_names_of_a_length(local: Gate) -> None:
    for name in ("x" * 65, "", "a b", "é"):
        assert ask(local, "POST", "/gradio_api/reset", json={"session_hash": name}).status_code == 403
        assert ask(local, "GET", "/gradio_api/queue/data", params={"session_hash": name}).status_code == 403
    assert ask(local, "POST", "/gradio_api/reset", json={"session_hash": "x" * 64}).status_code == 200


def test_pages_have_a_rate() -> None:
    gate = Gate(behind, replace(read_settings(), max_requests=10 * PAGES), None)

    def opened(name: str) -> int:
        return ask(gate, "POST", "/gradio_api/reset", json={"session_hash": name}).status_code

    assert [opened(f"page-{number}") for number in range(PAGES + 1)] == [200] * PAGES + [429]
    assert opened("page-0") == 200, "one that is open already"
    assert ask(gate, "GET", "/gradio_api/heartbeat/another").status_code == 429


def test_an_upload_is_never_more_than_may_be(local: Gate) -> None:
    gate = Gate(behind, replace(read_settings(), max_upload_bytes=1000), None)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 2**16

    assert ask(gate, "POST", "/gradio_api/upload", content=b"x" * 2**21).status_code == 413
    with pytest.raises(ClientDisconnect):  # of no length that is told
        ask(gate, "POST", "/gradio_api/upload", content=endless())
    assert ask(gate, "POST", "/gradio_api/upload", content=b"x" * 1000).status_code == 200


def test_uploads_that_nothing_was_made_of_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    lying = tmp_path / "lying"

    async def lay(scope: Scope, receive: Receive, send: Send) -> None:
        lying.write_bytes(await Request(scope, receive).body())
        await JSONResponse([str(lying)])(scope, receive, send)

    gate = Gate(lay, replace(read_settings(), max_disk_bytes=1000), None)
    left, coming = tmp_path / "tmpleft", tmp_path / "tmpcoming"
    for path in (left, coming):
        path.write_bytes(b"x")
    os.utime(left, (0, 0))
    assert ask(gate, "POST", "/gradio_api/upload", content=b"x" * 600).status_code == 200
    assert (left.exists(), coming.exists()) == (False, True), "what an upload left that was broken off"
    refused = ask(gate, "POST", "/gradio_api/upload", content=b"x" * 600)
    assert refused.status_code == 413
    assert "leave no room" in refused.json()["error"]
    lying.unlink()  # it became a dataset
    assert ask(gate, "POST", "/gradio_api/upload", content=b"x" * 600).status_code == 200


def test_a_body_has_a_time(local: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftapp.ui.gate.BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    async def receives() -> Message:
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    pieces, sent = slow(), list[Message]()

    async def sends(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/cancel", "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    run(local(scope, receives, sends))
    assert sent[0]["status"] == 408


def test_an_upload_offers_no_file_by_what_is_in_it(local: Gate) -> None:
    async def own(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/gradio_api/upload":
            await JSONResponse(["/cache/own.json"])(scope, receive, send)
        else:
            await JSONResponse({"path": "/somebody/elses"})(scope, receive, send)

    gate = Gate(own, read_settings(), None)
    ask(gate, "POST", "/gradio_api/upload", content=b"")
    assert ask(gate, "GET", "/gradio_api/file=/cache/own.json").json() == {"path": "/somebody/elses"}
    assert ask(gate, "GET", "/gradio_api/file=/somebody/elses").status_code == 403


def test_only_files_that_came_from_here_can_be_named(local: Gate) -> None:
    def named(path: str) -> int:
        told = {"data": [[{"path": path, "meta": {"_type": "gradio.FileData"}}]]}
        return ask(local, "POST", "/gradio_api/queue/join", json=told).status_code

    for path in ("/etc/passwd", "http://10.0.0.1/", "/cache/uploaded", "/cache/offered"):
        assert named(path) == 403
    ask(local, "POST", "/gradio_api/upload", content=b"")
    assert named("/cache/uploaded") == 200
    assert ask(local, "GET", "/gradio_api/file=/cache/uploaded").status_code == 200
    assert ask(local, "GET", "/gradio_api/file=/cache/../etc/passwd").status_code == 403
    assert named("/cache/offered") == 403
    ask(local, "GET", "/gradio_api/queue/data?session_hash=x")
    assert named("/cache/offered") == 200, "it was offered by an event"


def test_a_file_in_a_text_is_not_offered(local: Gate) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"text": '{"path": "/somebody/elses"}'})(scope, receive, send)

    gate = Gate(echo, read_settings(), None)
    assert ask(gate, "GET", "/gradio_api/queue/data?session_hash=x").status_code == 200
    assert ask(gate, "GET", "/gradio_api/file=/somebody/elses").status_code == 403
