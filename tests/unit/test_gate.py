"""The gate before the page: passwords, hosts, other sites, sizes, rates; over an app that would answer anything."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ftapp.settings import read_settings
from ftapp.ui.gate import MAX_BODY, Gate


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """What the gate protects: says what reached it."""
    body = await Request(scope, receive).body()
    told = {"path": scope["path"], "size": len(body), "file": {"path": "/cache/offered"}}
    await JSONResponse(["/cache/uploaded"] if scope["path"].endswith("/upload") else told)(scope, receive, send)


def ask(gate: Gate, method: str, path: str, host: str = "127.0.0.1:7860", **options: Any) -> httpx2.Response:
    async def asked() -> httpx2.Response:
        transport = httpx2.ASGITransport(gate)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asked())


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


def test_a_password_is_asked_of_everybody_for_everything() -> None:
    gate = with_password()
    for path in ("/", "/config", "/gradio_api/queue/join", "/artifacts/x/1.zip", "/assets/x.js"):
        for auth in (None, ("ann", "wrong"), ("other", "päss:word"), ("ann", "")):
            answer = ask(gate, "GET", path, "far.example", auth=auth)
            assert answer.status_code == 401, (path, auth)
            assert answer.headers["www-authenticate"].startswith("Basic ")
        assert ask(gate, "GET", path, "far.example", auth=("ann", "päss:word")).status_code == 200
    for broken in ("Basic", "Basic ???", "Bearer x", "Basic cMOkc3M"):
        assert ask(gate, "GET", "/", headers={"Authorization": broken}).status_code == 401
    assert ask(gate, "GET", "/health").text == "ok"


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
    assert named("/cache/offered") == 200, "it was offered by the answers before"


def test_a_file_in_a_text_is_not_offered(local: Gate) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({"text": '{"path": "/somebody/elses"}'})(scope, receive, send)

    gate = Gate(echo, read_settings(), None)
    assert ask(gate, "POST", "/gradio_api/queue/join", json={}).status_code == 200
    assert ask(gate, "GET", "/gradio_api/file=/somebody/elses").status_code == 403
