"""The Dockerfile read, and what its steps come to: the copied files, read-only, run as another user; no engine runs."""

import fnmatch
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import wait_for

ROOT = Path(__file__).parents[2]
MIB = 2**20
CONTEXT_LIMIT = 12 * MIB
IMAGE_HOME = "/home/user"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for line in lines if line.strip() for word, _, rest in [line.partition(" ")]]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())


def context() -> list[str]:
    """The files that an engine would get, of those that are not thrown away by git anyhow."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    patterns = (ROOT / ".dockerignore").read_text().split()

    def ignored(name: str) -> bool:
        parts = name.split("/")
        starts = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return any(
            fnmatch.fnmatch(part if pattern.startswith("**/") else start, pattern.removeprefix("**/"))
            for pattern in patterns
            for start, part in zip(starts, parts, strict=True)
        )

    names = [name.decode() for name in listed.stdout.split(b"\0") if name]
    return [name for name in names if not ignored(name) and (ROOT / name).is_file()]


def test_the_image_is_pinned_and_its_user_is_nobody_special() -> None:
    [base] = of("FROM")
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-\w+(@sha256:\w+)?", base)
    words = [name for name, _ in instructions()]
    assert of("USER") == ["user"]
    assert "useradd --create-home --uid 1000 user" in " ".join(of("RUN"))
    assert not set(words[words.index("USER") :]) & {"COPY", "ADD"}, "what is copied after it would be the user's"
    assert "ADD" not in words
    assert not [rest for rest in of("COPY") if "--chown" in rest]
    assert "-r requirements.txt" in " ".join(of("RUN"))
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.]+\s", line) for line in pins)
    [torch] = [line for line in pins if line.startswith("torch==")]
    assert "+cpu" not in torch
    assert not re.search(r"index-url|find-links", " ".join(of("RUN"))), "PyPI's torch is the one with CUDA"
    assert {"gcc", "libc6-dev"} <= set(" ".join(of("RUN")).split()), "Triton compiles"


def test_the_image_says_what_a_space_needs_and_holds_no_secret() -> None:
    said = environment()
    assert of("EXPOSE") == [said["FTAPP_PORT"]] == ["7860"]
    assert (said["FTAPP_HOST"], said["SYSTEM"]) == ("0.0.0.0", "spaces")
    assert of("CMD") == ['["python", "app.py"]']
    assert of("ARG") == []
    assert not [name for name in said if re.search(r"TOKEN|SECRET|PASSWORD|KEY", name)]
    assert not re.search(r"hf_[A-Za-z0-9]{10}|--mount=type=secret", (ROOT / "Dockerfile").read_text())


def test_the_context_is_small_and_has_nothing_that_is_not_run() -> None:
    names = context()
    assert {"app.py", "requirements.txt", "ftapp/demo/model/model.safetensors", "ftapp/ui/style.css"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", ".git", "docs/", ".venv", ".env", "spaces/"))]
    assert sum((ROOT / name).stat().st_size for name in names) < CONTEXT_LIMIT


@dataclass(frozen=True)
class Container:
    """The image's files in a folder of their own, and how a command runs in it."""

    root: Path
    port: int

    @property
    def home(self) -> Path:
        return self.root / IMAGE_HOME.lstrip("/")

    @property
    def code(self) -> Path:
        return self.home / of("WORKDIR")[0].removeprefix(f"{IMAGE_HOME}/")

    def environment(self, **more: str) -> dict[str, str]:
        said = {name: value.replace(IMAGE_HOME, str(self.home)) for name, value in environment().items()}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        tmp = {"HOME": str(self.home), "TMPDIR": str(self.root / "tmp")}
        return {**kept, **said, **tmp, "FTAPP_PORT": str(self.port), "OMP_NUM_THREADS": "1", **more}

    def argv(self, command: str) -> list[str]:
        """A CMD of the Dockerfile; the interpreter is ours, where the image has its own."""
        program, *rest = json.loads(command.replace(environment()["FTAPP_PORT"], str(self.port)))
        assert program == "python"
        # may read what root may, since that is where the interpreter may be, and write what user 1000 may
        drop = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all,+dac_read_search"]
        drop += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        return [*(drop if os.geteuid() == 0 else []), sys.executable, *rest]


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    root = Path(tempfile.mkdtemp(prefix="ftapp-container-"))
    root.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Container(root, port)
    for name in context():
        (made.code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, made.code / name)
    made.home.joinpath("ftapp").mkdir()
    (root / "tmp").mkdir(mode=0o777)
    (root / "tmp").chmod(0o777)
    for path in (made.home, made.home / "ftapp"):
        if os.geteuid() == 0:
            os.chown(path, 1000, 1000)
    for path in (*made.code.rglob("*"), made.code):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield made
    for path in (made.code, *made.code.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(root)


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_app_starts_in_a_space_as_user_1000_from_code_that_it_cannot_change(container: Container) -> None:
    before = sorted(path.relative_to(container.code) for path in container.code.rglob("*"))
    space = {"SPACE_ID": "alice/tuner", "SPACE_AUTHOR_NAME": "alice", "SPACE_HOST": "alice-tuner.hf.space"}
    oauth = {"OAUTH_CLIENT_ID": "client", "OAUTH_CLIENT_SECRET": "s" * 40, "FTAPP_VOLUME": str(container.root / "data")}
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")  # it is not asked about itself
    env = container.environment(**space, **oauth, **proxies)
    log = container.root / "log"
    with log.open("wb") as out:
        app = subprocess.Popen(
            container.argv(of("CMD")[0]), cwd=container.code, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        check = container.argv(re.sub(r"^.*CMD ", "", of("HEALTHCHECK")[0]))
        assert subprocess.run(check, env=env, capture_output=True).returncode != 0, "nothing answers yet"

        def answers() -> bool:
            assert app.poll() is None, log.read_text()
            return subprocess.run(check, env=env, capture_output=True).returncode == 0

        wait_for(answers, "an answer", 90)
        page = urllib.request.Request(f"http://127.0.0.1:{container.port}/", headers={"Host": "alice-tuner.hf.space"})
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert answer.status == 200
            assert b"ftapp" in answer.read()
        status = Path(f"/proc/{app.pid}/status").read_text()
        assert re.search(r"(?m)^Uid:\s+(\d+)", status)[1] == str(1000 if os.geteuid() == 0 else os.geteuid())  # type: ignore[index]
        wait_for(lambda: "ftapp is ready" in log.read_text(), "the log's last word")
        said = log.read_text()
        assert "Traceback" not in said
        assert "there is no such folder: nothing outlives this disk" in said
    finally:
        app.terminate()
        app.wait(30)
    assert sorted(path.relative_to(container.code) for path in container.code.rglob("*")) == before
    assert contents(container.home) == {"app", "ftapp"}, "nothing is written beside FTAPP_HOME"


def test_a_run_trains_there_too(container: Container) -> None:
    config = {
        "model": {"id": "demo"},
        "data": {"dataset": "demo", "eval_fraction": 0},
        "method": {"type": "lora"},
        "duration": {"max_steps": 1},
    }
    path = container.root / "tmp" / "config.json"
    path.write_text(json.dumps(config))
    command = container.argv(json.dumps(["python", "-m", "ftapp", "train", str(path), "--json"]))
    env = container.environment(FTAPP_PASSWORD="long enough to be one")
    done = subprocess.run(command, cwd=container.code, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"type":"finished"' in done.stdout
    assert contents(container.home) == {"app", "ftapp"}
    assert not list(container.code.rglob("__pycache__"))
