"""The unmodified huggingface_hub client against the local Hub: both transfer ways, rights, pull requests and faults."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fixture import Hub, running_hub

ALICE, ALICE_READS, BOB, CAROL = "hf_alice_writes_0001", "hf_alice_reads_0002", "hf_bob_writes_0003", "hf_carol_0004"

PRELUDE = """
import json, sys
from pathlib import Path
from huggingface_hub import (
    CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, hf_hub_download, snapshot_download
)
api, given, out = HfApi(), json.loads(sys.argv[1]), {}

def failure(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, error.response.status_code if hasattr(error, "response") else None]
    return None

def add(path, content):
    return CommitOperationAdd(path, content if isinstance(content, bytes) else content.encode())
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub(tmp_path_factory.mktemp("served")) as hub:
        hub.add_user("alice", ALICE, orgs=["acme", "readers:read"])
        hub.add_user("alice", ALICE_READS, role="read")
        hub.add_user("bob", BOB)
        hub.add_user("carol", CAROL, orgs=["acme"])
        yield hub


@pytest.fixture
def hub(served: Hub) -> Iterator[Hub]:
    served.clear_requests()
    yield served
    served.clear_faults()
    assert "Traceback" not in (served.directory / "server.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 14 MB that do not compress, 1 MB that does, and text."""
    path = tmp_path_factory.mktemp("pushed")
    size = 14_000_000
    tensor = {"dtype": "F16", "shape": [size // 2000, 1000], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": tensor}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + os.urandom(size))
    chance = random.Random(7)
    floats = struct.pack("<250001f", *(chance.gauss(1, 0.001) for _ in range(250_001)))
    (path / "optimizer.bin").write_bytes(floats + b"abc")
    (path / "nested").mkdir()
    (path / "nested" / "tokenizer.json").write_text(json.dumps({"vocab": list(range(5000))}), encoding="utf-8")
    card = "---\nlicense: apache-2.0\nlibrary_name: peft\nbase_model: acme/base\ntags:\n- lora\n---\n# A model\n"
    (path / "README.md").write_text(card, encoding="utf-8")
    return path


def digests(path: Path) -> dict[str, str]:
    files = (file for file in path.rglob("*") if file.is_file() and ".cache" not in file.parts)
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def client(hub: Hub, home: Path, token: str | None, code: str, *, xet: bool = False, **given: Any) -> dict[str, Any]:
    """What a client process put into `out`."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code) + "\nprint(json.dumps(out))", json.dumps(given)],
        env=hub.env(home, token, xet=xet),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_whoami_tells_user_role_and_organisations(hub: Hub, tmp_path: Path) -> None:
    code = """
        for role, token in given["tokens"].items():
            me = api.whoami(token=token)
            roles = {org["name"]: org["roleInOrg"] for org in me["orgs"]}
            out[role] = [me["name"], me["auth"]["accessToken"]["role"], roles]
        out["wrong"] = failure(api.whoami, token="hf_unknown")
    """
    out = client(hub, tmp_path, None, code, tokens={"write": ALICE, "read": ALICE_READS})
    orgs = {"acme": "write", "readers": "read"}
    assert out["write"] == ["alice", "write", orgs]
    assert out["read"] == ["alice", "read", orgs]
    assert out["wrong"][1] == 401


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_pushed_folder_comes_back_byte_for_byte(hub: Hub, folder: Path, tmp_path: Path, xet: bool) -> None:
    repo = "alice/by-xet" if xet else "alice/by-lfs"
    push = """
        out["url"] = str(api.create_repo(given["repo"], private=True))
        api.create_repo(given["repo"], private=True, exist_ok=True)
        out["oid"] = api.upload_folder(repo_id=given["repo"], folder_path=given["folder"]).oid
    """
    pushed = client(hub, tmp_path / "push", ALICE, push, xet=xet, repo=repo, folder=str(folder))
    uploads = hub.requests("PUT", "/_lfs/"), hub.requests("POST", "/_cas/v1/xorbs/")
    pull = """
        repo = given["repo"]
        out["path"] = snapshot_download(repo)
        info = api.model_info(repo, files_metadata=True)
        out["info"] = [info.sha, info.private, info.card_data.base_model, info.tags, info.safetensors.parameters]
        out["sizes"] = {file.rfilename: file.size for file in info.siblings}
        out["listed"] = api.list_repo_files(repo)
        weights = api.get_safetensors_metadata(repo).files_metadata["model.safetensors"].tensors["weight"]
        out["weight"] = [weights.dtype, weights.shape]
        out["card"] = ModelCard.load(repo).data.license
    """
    pulled = client(hub, tmp_path / "pull", ALICE, pull, xet=xet, repo=repo)

    sent = digests(folder)
    received = digests(Path(pulled["path"]))
    received.pop(".gitattributes")
    assert received == sent
    assert sorted(pulled["listed"]) == sorted([".gitattributes", *sent])
    assert pushed["url"] == f"{hub.url}/{repo}"
    sha, private, base, tags, parameters = pulled["info"]
    assert (sha, private, base, parameters) == (pushed["oid"], True, "acme/base", {"F16": 7_000_000})
    assert {"lora", "peft", "license:apache-2.0"} <= set(tags)
    assert pulled["sizes"]["optimizer.bin"] == 1_000_007
    assert pulled["weight"] == ["F16", [7000, 1000]]
    assert pulled["card"] == "apache-2.0"

    parts, xorbs = uploads
    files = hub.repo_files(repo)
    assert (len(parts), len(xorbs)) == ((0, 1) if xet else (4, 0))  # three parts of the weights, and the other file
    assert bool(files["model.safetensors"]["xet"]) is xet
    assert not files["nested/tokenizer.json"]["lfs"]
    assert bool(hub.requests("GET", "/_cas/data/")) is xet
    assert hub.leaks() == []

    if xet:  # a client without xet gets the same bytes
        plain = client(hub, tmp_path / "plain", ALICE, 'out["path"] = snapshot_download(given["repo"])', repo=repo)
        assert digests(Path(plain["path"])) == digests(Path(pulled["path"]))


def test_private_repository_exists_for_its_owners_only(hub: Hub, tmp_path: Path) -> None:
    code = """
        for repo in ("alice/secret", "acme/shared"):
            api.create_repo(repo, private=True, token=given["alice"])
            api.create_commit(repo, [add("a.txt", "a")], commit_message="a", token=given["alice"])
        for name, token in {"nobody": False, "bob": given["bob"], "carol": given["carol"]}.items():
            out[name] = [
                [failure(call, repo, token=token) for call in (api.model_info, snapshot_download)]
                + [failure(api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, token=token)]
                for repo in ("alice/secret", "acme/shared")
            ]
        out["found"] = [[m.id for m in api.list_models(search="sec", token=given[who])] for who in ("alice", "bob")]
    """
    out = client(hub, tmp_path, None, code, alice=ALICE, bob=BOB, carol=CAROL)
    hidden = ["RepositoryNotFoundError", 404]
    assert out["bob"] == [[hidden] * 3] * 2
    assert out["nobody"] == [[["RepositoryNotFoundError", 401]] * 3] * 2
    assert out["carol"] == [[hidden] * 3, [None] * 3]  # she is in the organisation, but not alice
    assert out["found"] == [["alice/secret"], []]


def test_writes_need_a_write_token_and_ones_own_namespace(hub: Hub, tmp_path: Path) -> None:
    code = """
        api.create_repo("alice/open", token=given["alice"])
        api.upload_file(path_or_fileobj=b"a", path_in_repo="a.txt", repo_id="alice/open", token=given["alice"])
        def push(token, repo="alice/open", **more):
            return failure(
                api.upload_file, path_or_fileobj=b"x", path_in_repo="x.bin", repo_id=repo, token=token, **more
            )
        out["read token"] = [push(given["reads"]), failure(api.create_repo, "alice/new", token=given["reads"])]
        out["foreign"] = [
            push(given["bob"]),
            failure(api.create_repo, "alice/new", token=given["bob"]),
            failure(api.delete_repo, "alice/open", token=given["bob"]),
            failure(api.create_repo, "readers/new", token=given["alice"]),
        ]
        out["no token"] = [push(False), failure(api.create_repo, "alice/new", token=False)]
        out["wrong token"] = [push("hf_unknown"), failure(api.model_info, "alice/open", token="hf_unknown")]
        out["request"] = push(given["bob"], create_pr=True)
        out["again"] = failure(api.create_repo, "alice/open", token=given["alice"])
        api.delete_repo("alice/open", token=given["alice"])
        out["gone"] = failure(api.model_info, "alice/open", token=given["alice"])
    """
    out = client(hub, tmp_path, None, code, alice=ALICE, reads=ALICE_READS, bob=BOB)
    assert [status for _, status in out["read token"]] == [403, 403]
    assert [status for _, status in out["foreign"]] == [403] * 4
    assert [status for _, status in out["no token"]] == [401, 401]
    assert [status for _, status in out["wrong token"]] == [401, 401]
    assert out["request"] is None
    assert out["again"][1] == 409
    assert out["gone"] == ["RepositoryNotFoundError", 404]


def test_each_push_is_a_commit_and_old_ones_stay(hub: Hub, tmp_path: Path) -> None:
    code = """
        repo = "alice/history"
        def push(*operations, **more):
            return api.create_commit(repo, list(operations), commit_message="change", **more).oid
        def text(revision):
            return Path(hf_hub_download(repo, "notes/a.txt", revision=revision)).read_text()
        api.create_repo(repo)
        first = push(add("notes/a.txt", "one"), add("keep.bin", b"\\0kept"))
        second = push(add("notes/a.txt", "two"), parent_commit=first)
        out["same"] = push(add("notes/a.txt", "two"), add("keep.bin", b"\\0kept")) == second
        out["stale"] = failure(push, add("notes/a.txt", "three"), parent_commit=first)
        out["texts"] = [text(first), text("main"), text(second[:8])]
        api.create_branch(repo, branch="try/out", revision=first)
        out["branch again"] = failure(api.create_branch, repo, branch="try/out")
        push(add("notes/b.txt", "b"), revision="try/out")
        push(CommitOperationDelete("notes/"), revision="try/out")
        out["files"] = [api.list_repo_files(repo), api.list_repo_files(repo, revision="try/out")]
        out["branches"] = sorted(branch.name for branch in api.list_repo_refs(repo).branches)
        api.delete_branch(repo, branch="try/out")
        api.create_tag(repo, tag="v1", revision=first)
        out["tagged"] = text("v1")
        out["missing"] = [
            failure(hf_hub_download, repo, "notes/a.txt", revision="try/out"),
            failure(hf_hub_download, repo, "nothing.txt"),
            failure(push, CommitOperationDelete("nothing.txt")),
        ]
        out["titles"] = [commit.title for commit in api.list_repo_commits(repo)]
        info = api.get_paths_info(repo, ["notes", "keep.bin", "nothing"])
        out["paths"] = {item.path: getattr(item, "size", None) for item in info}
    """
    out = client(hub, tmp_path, ALICE, code)
    assert out["same"] is True
    assert out["stale"] == ["HfHubHTTPError", 412]
    assert out["texts"] == ["one", "two", "two"]
    assert out["files"] == [[".gitattributes", "keep.bin", "notes/a.txt"], [".gitattributes", "keep.bin"]]
    assert out["branches"] == ["main", "try/out"]
    assert out["branch again"][1] == 409
    assert out["tagged"] == "one"
    assert [name for name, _ in out["missing"]] == ["RevisionNotFoundError"] + ["RemoteEntryNotFoundError"] * 2
    assert out["titles"] == ["change", "change", "initial commit"]
    assert out["paths"] == {"notes": None, "keep.bin": 5}
    assert len(hub.commits("alice/history")) == 3


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_pull_request_leaves_main_alone(hub: Hub, tmp_path: Path, xet: bool) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "adapter.safetensors").write_bytes(os.urandom(100_000))
    (tmp_path / "new" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    code = """
        repo = given["repo"]
        api.create_repo(repo, token=given["alice"])
        made = api.upload_folder(repo_id=repo, folder_path=given["folder"], create_pr=True)
        out["made"] = [made.pr_revision, made.pr_num, made.pr_url]
        out["main"], out["files"] = api.list_repo_files(repo), api.list_repo_files(repo, revision=made.pr_revision)
        out["refs"] = [pull.ref for pull in api.list_repo_refs(repo, include_pull_requests=True).pull_requests]
        out["path"] = hf_hub_download(repo, "adapter.safetensors", revision="refs/pr/1")
    """
    repo = f"alice/pr-{xet}"
    folder = str(tmp_path / "new")
    out = client(hub, tmp_path / "home", BOB, code, xet=xet, repo=repo, folder=folder, alice=ALICE)
    assert out["made"] == ["refs/pr/1", 1, f"{hub.url}/{repo}/discussions/1"]
    assert out["main"] == [".gitattributes"]
    assert out["files"] == [".gitattributes", "README.md", "adapter.safetensors"]
    assert out["refs"] == ["refs/pr/1"]
    assert Path(out["path"]).read_bytes() == (tmp_path / "new" / "adapter.safetensors").read_bytes()


def test_gated_files_are_for_those_let_in(hub: Hub, tmp_path: Path) -> None:
    setup = """
        api.create_repo("alice/gated")
        api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="alice/gated")
    """
    client(hub, tmp_path, ALICE, setup)
    hub.gate("alice/gated", granted=["carol"])
    code = """
        out["gated"] = api.model_info("alice/gated").gated
        for name, token in given["tokens"].items():
            out[name] = [
                failure(hf_hub_download, "alice/gated", "config.json", token=token, local_dir=given["dir"] + name),
                failure(api.auth_check, "alice/gated", token=token),
            ]
    """
    tokens = {"alice": ALICE, "bob": BOB, "carol": CAROL, "nobody": False}
    out = client(hub, tmp_path, None, code, tokens=tokens, dir=f"{tmp_path}/as-")
    assert out["gated"] == "auto"
    assert out["alice"] == out["carol"] == [None, None]
    assert out["bob"] == [["GatedRepoError", 403]] * 2
    assert out["nobody"] == [["GatedRepoError", 401]] * 2


def test_datasets_and_spaces_work_as_models_do(hub: Hub, tmp_path: Path) -> None:
    code = """
        for kind in ("dataset", "space"):
            more = {"space_sdk": "docker"} if kind == "space" else {}
            out[kind] = [str(api.create_repo("acme/same-name", repo_type=kind, **more))]
            operations = [add("README.md", "---\\nlicense: mit\\n---\\n"), add("data/rows.parquet", b"PAR1" * 5000)]
            api.create_commit("acme/same-name", operations, commit_message="rows", repo_type=kind)
            info = api.repo_info("acme/same-name", repo_type=kind)
            path = snapshot_download("acme/same-name", repo_type=kind)
            out[kind] += [info.card_data.license, Path(path, "data/rows.parquet").stat().st_size]
        out["sdk"] = info.sdk
        out["runtime"] = api.get_space_runtime("acme/same-name").stage
        out["no model"] = failure(api.model_info, "acme/same-name")
    """
    out = client(hub, tmp_path, ALICE, code, xet=True)
    assert out["dataset"] == [f"{hub.url}/datasets/acme/same-name", "mit", 20_000]
    assert out["space"] == [f"{hub.url}/spaces/acme/same-name", "mit", 20_000]
    assert (out["sdk"], out["runtime"]) == ("docker", "RUNNING")
    assert out["no model"] == ["RepositoryNotFoundError", 404]


def test_faults_are_met_by_the_clients_own_retries(hub: Hub, tmp_path: Path) -> None:
    push = """
        api.create_repo(given["repo"])
        data = add("weights.bin", b"\\0" + bytes(range(256)) * 8000)
        out["failure"] = failure(api.create_commit, given["repo"], [data], commit_message="w")
    """
    hub.inject("POST", "/preupload/", status=503)
    hub.inject("POST", "objects/batch$", status=429, retry_after=0)
    hub.inject("PUT", "^/_lfs/", cut_request=1_000_000)
    out = client(hub, tmp_path / "lfs", ALICE, push, repo="alice/retried")
    assert out["failure"] is None
    assert hub.faults() == []
    assert [entry["status"] for entry in hub.requests("POST", "/preupload/")] == [503, 200]
    assert [entry["status"] for entry in hub.requests("POST", "objects/batch")] == [429, 200]
    assert [entry["status"] for entry in hub.requests("PUT", "/_lfs/")] == [None, 200]

    hub.inject("POST", "/_cas/v1/xorbs/", status=503)
    hub.inject("GET", "/_cas/data/", cut_response=10_000)
    pull = """
        out["size"] = Path(hf_hub_download(given["repo"], "weights.bin")).stat().st_size
    """
    out = client(hub, tmp_path / "xet", ALICE, push + pull, xet=True, repo="alice/retried-xet")
    assert out == {"failure": None, "size": 2_048_001}
    assert hub.faults() == []
    assert [entry["status"] for entry in hub.requests("POST", "/_cas/v1/xorbs/")] == [503, 200]


def test_a_commit_that_fails_is_told_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.inject("POST", "/commit/main", status=503)
    hub.inject("POST", "/commit/main", status=500, code="Made up")
    hub.inject("POST", "/api/repos/create", status=409, delay=0.2)
    code = """
        out["create"] = failure(api.create_repo, "alice/failing")
        api.create_repo("alice/failing")
        for name in ("first", "second", "third"):
            out[name] = failure(api.create_commit, "alice/failing", [add("a.txt", "a")], commit_message="a")
    """
    out = client(hub, tmp_path, ALICE, code)
    assert [out[name] and out[name][1] for name in ("create", "first", "second", "third")] == [409, 503, 500, None]
    assert len(hub.commits("alice/failing")) == 2


def test_log_finds_secrets_outside_the_authorization_header(hub: Hub, tmp_path: Path) -> None:
    code = """
        api.create_repo("alice/leaky")
        readme = "---\\nlicense: mit\\n---\\nMy token is " + given["own"]
        operations = [add("README.md", readme), add("w.bin", b"\\0" + b"my-secret")]
        api.create_commit("alice/leaky", operations, commit_message="x")
        failure(api.model_info, given["own"] + "/leaky")
    """
    hub.watch("the app's secret", "my-secret")
    client(hub, tmp_path, ALICE, code, xet=True, own=ALICE)
    found = hub.leaks()
    assert any(leak.endswith("token 1 of alice in file README.md") for leak in found)
    assert any(leak.endswith("the app's secret in file w.bin") for leak in found)
    assert "GET /api/models/***/leaky: token 1 of alice in url" in found
    assert ALICE not in json.dumps(hub.requests())


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        hub.add_user("alice", ALICE)
        push = """
            api.create_repo("alice/m", private=True)
            api.upload_file(path_or_fileobj=b"abc", path_in_repo="a", repo_id="alice/m")
        """
        client(hub, tmp_path / "one", ALICE, push)
    with running_hub(tmp_path / "hub") as hub:
        assert hub.repos() == [{"kind": "model", "id": "alice/m", "private": True}]
        assert hub.read("alice/m", "a") == b"abc"
        hub.revoke(ALICE)
        out = client(hub, tmp_path / "two", ALICE, 'out["info"] = failure(api.model_info, "alice/m")')
        assert out["info"][1] == 401
