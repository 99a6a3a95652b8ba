"""A machine that several people share, as a Space is: the real app, signed in to by a local Hub, asked over raw HTTP.

Every handler of the page is called by nobody, by another person and with forged cookies; none gets at what is Alice's.
"""

import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ftapp.contract import events as ev
from ftapp.contract.errors import ConfigError
from ftapp.people import Person
from ftapp.settings import read_settings
from ftapp.studio import Studio
from tests.hub.fixture import Hub, running_hub
from tests.hub.openid_routes import CLIENT_ID, CLIENT_SECRET
from tests.running import config_for, end, wait_for

ROOT = Path(__file__).parents[2]
SECRET = "alices-own-words"
"""Stands in everything of Alice's that can hold a text."""
OWNERS_TOKEN = "hf_OwnerOfTheSpace0123456789"
SPACE = "owner/tuner"


@dataclass
class Shared:
    """The app with people's sign-in, and what Alice has on it."""

    url: str
    home: Path
    hub: Hub
    log: Path
    run: str
    dataset: str

    def client(self, **cookies: str) -> httpx2.Client:
        """A browser without a page."""
        return httpx2.Client(base_url=self.url, cookies=cookies, timeout=60, trust_env=False)

    def signed_in(self, name: str) -> httpx2.Client:
        """One whose person has signed in."""
        client = self.client()
        self.sign_in(client, name)
        return client

    def sign_in(self, client: httpx2.Client, name: str) -> None:
        """Go to the provider and come back."""
        away = client.get("/login")
        assert away.status_code == 303
        page = client.get(away.headers["location"])
        fields = dict(re.findall(r"type=hidden name='(.+?)' value='(.*?)'", page.text))
        back = client.post(str(page.url).split("?")[0], data={**fields, "user": name})
        assert client.get(back.headers["location"]).status_code == 303

    def snapshot(self, name: str = "alice") -> str:
        """Everything in a person's folder."""
        digest = hashlib.sha256()
        for path in sorted((self.home / name).rglob("*")):
            if path.is_file() and path.name != ".summaries.json":
                digest.update(str(path.relative_to(self.home)).encode() + path.read_bytes())
        return digest.hexdigest()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    home, log = folder / "home", folder / "web.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_hub(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTAPP_HOME", str(home))
        for name in ("alice", "bob", "carol", "eve"):
            hub.add_user(name, f"hf_{name}OfTheTests0123456789", orgs=["lab"] if name == "carol" else [])
        hub.add_user("owner", OWNERS_TOKEN)
        studio = Studio(read_settings(), Person("alice", shared=True))
        config = config_for(studio, home / "no-model", folder / "rows")
        rows = folder / "own.jsonl"
        turns = [{"role": "user", "content": f"{SECRET}?"}, {"role": "assistant", "content": f"{SECRET}!"}]
        rows.write_text("".join(json.dumps({"messages": [*turns[:1], {**turns[1], "n": n}]}) + "\n" for n in range(9)))
        dataset = studio.add_dataset(rows, rows.name).id
        config = config.model_copy(update={"data": config.data.model_copy(update={"dataset": dataset})})
        job = end(studio._jobs.create(config), ev.Finished(artifact="adapter"))
        (job.folder / "adapter").mkdir()
        (job.folder / "adapter" / "adapter_config.json").write_text(json.dumps({"note": SECRET}))
        studio.describe_run(job.name, title=SECRET, note=SECRET)
        job.output.write_text(f"{SECRET}\n")
        env = hub.env(folder / "hf", OWNERS_TOKEN) | {
            "FTAPP_HOME": str(home), "FTAPP_PORT": str(port), "SPACE_ID": SPACE, "SPACE_AUTHOR_NAME": "owner",
            "FTAPP_ALLOWED": "alice, Bob,lab", "OAUTH_CLIENT_ID": CLIENT_ID, "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
            "OAUTH_SCOPES": "openid profile contribute-repos", "OPENID_PROVIDER_URL": hub.url,
            "FTAPP_MAX_REQUESTS": "100000", "FTAPP_MAX_ROWS": "1000", "FTAPP_MAX_UPLOAD_MB": "1",
            "TMPDIR": str(folder / "tmp"),
        }  # fmt: skip
        (folder / "tmp").mkdir()  # else the home were in the folder for temporary files, where Gradio trusts all
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=out, stderr=out)
        one = Shared(f"http://127.0.0.1:{port}", home, hub, log, job.name, dataset)

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return one.client().get("/health").status_code == 200
            except httpx2.TransportError:
                return False

        wait_for(answers, "the page", 90)
        yield one
        process.terminate()
        process.wait(30)


@dataclass
class Call:
    """What came of an event: an answer of the gate's, or all that was sent down the session's stream."""

    status: int
    text: str


def call(client: httpx2.Client, index: int, data: list[Any], session: str, **more: Any) -> Call:
    """Let an event of the page happen, as the page does, and read what it says until it is done."""
    body = {"fn_index": index, "data": data, "session_hash": session, "event_data": None, **more}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return Call(joined.status_code, joined.text)
    told = []
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            told.append(line)
            if '"process_completed"' in line or '"close_stream"' in line:
                break
    return Call(200, "\n".join(told))


@pytest.fixture(scope="module")
def handlers(shared: Shared) -> list[tuple[int, list[dict[str, Any]]]]:
    """One event for each different handler: its number, and its inputs."""
    config = shared.client().get("/config").json()
    components = {one["id"]: one for one in config["components"]}
    found = {}
    for event in config["dependencies"]:
        if event["backend_fn"]:
            found.setdefault((tuple(event["inputs"]), tuple(event["outputs"])), event)
    assert len(found) > 60
    return [(event["id"], [components[id] for id in event["inputs"]]) for event in found.values()]


def values(shared: Shared, inputs: list[dict[str, Any]]) -> list[Any]:
    """What the page would send if it showed what is Alice's."""
    known = {
        "train-run": shared.run, "chat-run": shared.run, "publish-run": shared.run, "evaluate-run": shared.run,
        "history-picked": [shared.run], "history-waiting": shared.run, "evaluate-number": "1",
        "dataset-list": shared.dataset, "config-data-dataset": shared.dataset, "config-model-id": "nobody/nothing",
        "tokens-model": "nobody/nothing",
        "evaluate-dataset": shared.dataset, "chat-input": "Hello", "dataset-pasted": "", "publish-destination": "bob/x",
        "dataset-hub-id": "nobody/nothing", "config-model-search": "",
    }  # fmt: skip
    return [known.get(one["props"].get("elem_id"), one["props"].get("value")) for one in inputs]


FORGED = {
    "nobody": {},
    "a number of one's own": {"ftapp_session": "A" * 43},
    "a name": {"ftapp_session": "alice", "session": "eyJvYXV0aF9pbmZvIjp7fX0.x.y", "username": "alice"},
}


@pytest.mark.parametrize("who", [*FORGED, "another person", "somebody who was not let in"])
def test_no_handler_gives_or_changes_what_is_anothers(
    shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]], who: str
) -> None:
    signing = {"another person": "bob", "somebody who was not let in": "eve"}
    client = shared.signed_in(signing[who]) if who in signing else shared.client(**FORGED[who])
    before, runs = shared.snapshot(), set(shared.home.glob("*/runs/*"))
    answered = 0
    for index, inputs in handlers if who in ("nobody", "another person") else handlers[::6]:
        found = call(client, index, values(shared, inputs), f"session-of-{re.sub(r'[^a-z]', '', who)}")
        answered += found.status == 200
        assert SECRET not in found.text, (index, [one["props"].get("elem_id") for one in inputs])
        assert "Traceback" not in found.text
    assert answered > 10
    assert shared.snapshot() == before
    assert set(shared.home.glob("*/runs/*")) == runs
    assert not any(
        OWNERS_TOKEN in path.read_text(errors="replace") for path in shared.home.rglob("*") if path.is_file()
    )


def test_what_is_ones_own_is_there(shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]) -> None:
    """The same calls, by whose it is: so that the tests above can fail."""
    alice = shared.signed_in("alice")
    for wanted in (["dataset-list", "dataset-search"], ["history-search"]):
        index, inputs = next(
            (index, inputs)
            for index, inputs in handlers
            if [name for one in inputs if (name := one["props"].get("elem_id"))][: len(wanted)] == wanted
        )
        assert SECRET in call(alice, index, values(shared, inputs), "session-of-alice").text, wanted
    page = alice.get("/")
    assert page.status_code == 200
    assert "ftapp_session" in alice.cookies
    cookie = next(one for one in alice.cookies.jar if one.name == "ftapp_session")
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert "hf_oauth" not in str(cookie.value), "the token stays in the web process"
    assert "hf_oauth" not in page.text


def upload(client: httpx2.Client, name: str, data: bytes) -> httpx2.Response:
    return client.post("/gradio_api/upload", files={"files": (name, data)})


def event_of(handlers: list[tuple[int, list[dict[str, Any]]]], elem_id: str) -> int:
    return next(index for index, inputs in handlers if [one["props"].get("elem_id") for one in inputs] == [elem_id])


def test_files_are_their_owners(shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]) -> None:
    alice, bob, nobody = shared.signed_in("alice"), shared.signed_in("bob"), shared.client()
    [path] = upload(alice, "mine.jsonl", b'{"prompt": "a", "completion": "b"}\n').json()
    assert alice.get(f"/gradio_api/file={path}").status_code == 200
    own = next((shared.home / "alice" / "datasets" / shared.dataset).rglob("rows.jsonl"))
    link = Path(path).parent / "link"
    link.symlink_to(own)
    for client, paths in {
        bob: (path, str(own), str(link)),
        nobody: (path, str(own)),
        alice: (str(own), str(link), "/etc/passwd", f"{path}/../../../../../etc/passwd", "/proc/self/environ"),
    }.items():
        for one in paths:
            assert client.get(f"/gradio_api/file={one}").status_code in (403, 404), one
            assert client.get(f"/gradio_api/file/{one}").status_code in (403, 404), one
    link.unlink()
    add = event_of(handlers, "dataset-taken")
    for client, one in (
        (bob, path),
        (bob, str(own)),
        (alice, "/proc/self/environ"),
        (alice, "http://169.254.169.254/latest/meta-data"),
        (alice, shared.hub.url + "/api/whoami-v2"),
    ):
        given = [{"path": one, "orig_name": "x.jsonl", "meta": {"_type": "gradio.FileData"}}]
        assert call(client, add, [given], f"session-of-{id(client)}").status == 403, one
    assert upload(nobody, "x.jsonl", b"{}").status_code == 403
    large = upload(bob, "large.jsonl", b"x" * (2 * 2**20))
    assert large.status_code == 413
    assert "size" in large.text
    assert nobody.get(f"/artifacts/{shared.run}/1.zip").status_code == 404
    assert bob.get(f"/artifacts/{shared.run}/1.zip").status_code == 404


def test_what_is_exported_can_be_saved_by_whose_it_is(
    shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]
) -> None:
    alice, bob = shared.signed_in("alice"), shared.signed_in("bob")
    events = alice.get("/config").json()
    names = {one["id"]: one["props"].get("elem_id") for one in events["components"]}
    for event in events["dependencies"]:
        outputs = [names[id] for id in event["outputs"]]
        if outputs == ["dataset-exported"]:
            told = call(alice, event["id"], [shared.dataset], "session-of-alice-3").text
        elif event["backend_fn"] and outputs[:1] == ["config-code-problem"] and len(outputs) == 2:
            inputs = next(inputs for index, inputs in handlers if index == event["id"])
            told = call(alice, event["id"], values(shared, inputs), "session-of-alice-3").text
        else:
            continue
        assert '"success":true' in told
        for path in re.findall(r'"path":"(.+?)"', told):
            saved = alice.get(f"/gradio_api/file={path}")
            assert saved.status_code == 200
            assert SECRET in saved.text or path.endswith(".parquet")
            assert bob.get(f"/gradio_api/file={path}").status_code == 403
    assert len(list((shared.home / "alice" / "exports").glob("*"))) == 3


def test_a_file_offers_nothing_by_what_it_says(shared: Shared) -> None:
    alice = shared.signed_in("alice")
    own = str(shared.home / "alice" / "account")
    [path] = upload(alice, "x.json", json.dumps({"path": own}).encode()).json()
    assert own in alice.get(f"/gradio_api/file={path}").text
    assert (
        alice.get(f"/gradio_api/file={own}").text
        == '{"error":"That file is not yours.","detail":"That file is not yours."}'
    )


def test_rows_have_a_limit(shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]) -> None:
    carol = shared.signed_in("carol")  # let in as one of an organisation
    rows = "".join(json.dumps({"prompt": f"q{n}", "completion": "a"}) + "\n" for n in range(1001))
    paste = next(
        index for index, inputs in handlers if [one["props"].get("elem_id") for one in inputs][:1] == ["dataset-pasted"]
    )
    told = call(carol, paste, [rows, None], "session-of-carol").text
    assert "has more than 1,000 rows, the most that are allowed here" in told
    assert not list((shared.home / "carol" / "datasets").glob("pasted-*"))


def test_sessions_are_their_owners(shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]) -> None:
    alice, bob = shared.signed_in("alice"), shared.signed_in("bob")
    list_of = next(index for index, inputs in handlers if not inputs)
    assert call(alice, list_of, [], "of-alice-alone").status == 200
    assert call(bob, list_of, [], "of-alice-alone").status == 403
    for path, asked in (("queue/data", {"session_hash": "of-alice-alone"}), ("heartbeat/of-alice-alone", {})):
        assert bob.get(f"/gradio_api/{path}", params=asked).status_code == 403
        assert shared.client().get(f"/gradio_api/{path}", params=asked).status_code == 403
    # by Gradio's other way of reading a session, an event that is not known is the name of one
    assert bob.get("/gradio_api/call/x/of-alice-alone").status_code == 404
    for path in ("cancel", "reset"):
        body = {"session_hash": "of-alice-alone", "fn_index": list_of, "event_id": "x"}
        assert bob.post(f"/gradio_api/{path}", json=body).status_code == 403


def test_a_sign_in_counts_only_in_the_browser_that_began_it(shared: Shared) -> None:
    client, other = shared.client(), shared.client()
    away = client.get("/login").headers["location"]
    state = re.search(r"state=([^&]+)", away)[1]  # type: ignore[index]
    for one, asked in (
        (other, {"state": state, "code": "x"}),  # a link that somebody was made to follow
        (client, {"state": "another", "code": "x"}),
        (client, {"state": state, "code": "x"}),  # used up by the try before
    ):
        assert one.get("/login/callback", params=asked).status_code == 400
    away = client.get("/login").headers["location"]
    state = re.search(r"state=([^&]+)", away)[1]  # type: ignore[index]
    refused = client.get("/login/callback", params={"state": state, "error": "access_denied"})
    assert refused.status_code == 403
    away = client.get("/login").headers["location"]
    state = re.search(r"state=([^&]+)", away)[1]  # type: ignore[index]
    refused = client.get("/login/callback", params={"state": state, "code": "invented"})
    assert refused.status_code == 403
    assert "did not confirm the sign-in" in refused.text
    alice = shared.signed_in("alice")
    before = alice.cookies["ftapp_session"]
    shared.sign_in(alice, "alice")
    kept = alice.cookies["ftapp_session"]
    assert upload(shared.client(ftapp_session=before), "x.jsonl", b"{}").status_code == 403, "it took its place"
    assert alice.post("/logout", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert alice.post("/logout", headers={"Origin": shared.url}).status_code == 303
    again = shared.client(ftapp_session=kept)
    assert upload(again, "x.jsonl", b"{}").status_code == 403, "a cookie from before signing out is nobody's"


def test_everything_carries_security_headers(shared: Shared) -> None:
    client = shared.client()
    for path in ("/", "/config", "/login/callback", "/gradio_api/file=/etc/passwd", "/nowhere"):
        headers = client.get(path).headers
        assert "frame-ancestors 'self' https://huggingface.co" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    for path in (
        "/gradio_api/proxy=https://huggingface.co/x",
        "/monitoring",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
    ):
        assert client.get(path).status_code == 404
    config = client.get("/config").json()
    assert not config["analytics_enabled"]
    assert not config.get("run_history")
    page = client.get("/").text
    for word in (OWNERS_TOKEN, CLIENT_SECRET, "googletagmanager", "huggingface.co/telemetry"):
        assert word not in page


def test_a_push_uses_the_token_of_who_signed_in(
    shared: Shared, handlers: list[tuple[int, list[dict[str, Any]]]]
) -> None:
    bob = shared.signed_in("bob")
    told = "".join(
        call(bob, index, [None, *values(shared, inputs)[1:]], "session-of-bob-2").text
        for index, inputs in handlers
        if [one["props"].get("elem_id") for one in inputs][:2] == ["publish-run", "publish-token"]
    )
    assert "bob" in told, told
    assert "owner" not in told


def test_another_address_needs_a_password() -> None:
    from app import create_app

    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match=f"FTAPP_HOST is {host}: whoever reaches that address") as caught:
            create_app(replace(read_settings(), host=host)).start()
        assert "FTAPP_PASSWORD" in caught.value.hint
