"""A real Chromium and the real app, as a person has them; the local Hub instead of the public one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.hub.fixture import Hub, running_hub
from tests.running import wait_for

ROOT = Path(__file__).parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
expect.set_options(timeout=60_000)  # a busy machine is slow, not wrong
TOKEN = "hf_AliceOfTheBrowser0123456789"


@dataclass
class Served:
    """The app as a process that can be killed and started again at the same address."""

    home: Path
    env: dict[str, str]
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the web process printed."""
        return (self.home.parent / "web.log").read_text(errors="replace")

    def start(self) -> None:
        """Start, and wait until the page answers."""
        with (self.home.parent / "web.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=self.env, stdout=log, stderr=log)

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers, "the page")

    def kill(self) -> None:
        """kill -9: nothing is said, nothing is tidied."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End it as Ctrl-C does."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", TOKEN)
        yield hub


@pytest.fixture
def served(tmp_path: Path, hub: Hub) -> Iterator[Served]:
    yield from serve(tmp_path, hub)


def serve(tmp_path: Path, hub: Hub, **variables: str) -> Iterator[Served]:
    """The app, with these variables in its environment, until the test is over."""
    home = tmp_path / "home"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = hub.env(tmp_path / "hf") | {"FTAPP_HOME": str(home), "FTAPP_PORT": str(port)} | variables
    app = Served(home, env, port)
    app.start()
    yield app
    app.close()
    subprocess.run(["pkill", "-9", "-f", f"ftapp.workers [a-z]+ {home}"], check=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    assert found, "these tests need a Chromium: run them by `make test`, which installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, served: Served, request: pytest.FixtureRequest, hub: Hub) -> Iterator[Page]:
    """The app's page; the test fails if it asks for anything from elsewhere or logs an error of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    elsewhere: list[str] = []
    broken: list[str] = []
    homes = (served.url, hub.url) if request.node.get_closest_marker("reaches_the_hub") else (served.url,)
    page.on("request", lambda request: _note(elsewhere, request.url, homes))
    _follow(page)
    page.on("pageerror", lambda error: broken.append(str(error)))
    if not request.node.get_closest_marker("opens_the_page_later"):
        page.goto(served.url)
        settled(page)
    yield page
    folder = os.environ.get("FTAPP_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / "last.png"), full_page=True)
    context.close()
    assert elsewhere == []
    assert broken == []
    assert "Traceback" not in served.log


UNDER_WAY: dict[Page, set[Request]] = {}
"""What each page has asked for that is not answered whole: its events, each by a stream, and parts of the page."""


def settled(page: Page, seconds: float = 20) -> None:
    """Wait until nothing that was begun on the page is under way: what comes late would undo what is done next.

    A page that asks again and again does not come to rest; what is expected of it then has to wait for itself.
    """
    quiet, ending = 0, time.monotonic() + seconds
    while quiet < 6 and time.monotonic() < ending:
        page.wait_for_timeout(50)
        quiet = 0 if UNDER_WAY[page] else quiet + 1


def _follow(page: Page) -> None:
    asked = UNDER_WAY[page] = set[Request]()

    def begun(request: Request) -> None:
        if "/heartbeat/" not in request.url:  # which lasts as long as the page
            asked.add(request)

    def ended(request: Request) -> None:
        asked.discard(request)

    page.on("request", begun)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)


def _note(elsewhere: list[str], url: str, homes: tuple[str, ...]) -> None:
    if not url.startswith((*homes, "data:", "blob:", "ws://127.0.0.1")):
        elsewhere.append(url)
