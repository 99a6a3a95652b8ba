"""The front door: settings → Studio → page → serve. `python app.py` serves the page until it is stopped."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

from starlette.middleware import Middleware

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it while it is imported
gc.disable()  # what is imported stays: the collector would look through it again and again

import ftapp.ui.stubs  # noqa: F401
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.processes.watching import start_watching
from ftapp.settings import LOOPBACK, Settings, read_settings
from ftapp.studios import Studios
from ftapp.ui import downloads
from ftapp.ui.gate import Gate
from ftapp.ui.hosting import without_reloading
from ftapp.ui.page import create_page
from ftapp.ui.sign_in import SignInDesk
from ftapp.ui.theme import STYLE, theme

gc.freeze()
gc.enable()

log = logging.getLogger("ftapp")

IDLE_CHECK_SECONDS = 10
PAGES_KEPT = 1000
"""Open pages of which Gradio keeps what it needs, 650 KiB each; of more, the longest unused lose it."""


class App:
    """One served page: start it, close it; jobs that it started go on without it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.studios = Studios(settings)
        self.page: Any = create_page(self.studios)
        self._closing = threading.Event()

    def start(self) -> str:
        """Serve without blocking; returns the address.

        Raises FtappError if the port is taken, or if strangers could come in.
        """
        settings = self.settings
        if not (settings.local or settings.password or settings.sign_in):
            raise ConfigError(
                f"FTAPP_HOST is {settings.host}: whoever reaches that address could use this machine.",
                "Set FTAPP_PASSWORD, which everybody is then asked for (the user is ftapp, or FTAPP_USER).",
            )
        desk = SignInDesk(settings.sign_in, self.studios) if settings.sign_in else None
        routes = [*downloads.routes(self.studios), *(desk.routes() if desk else [])]
        port = _free_port(self.settings.host, self.settings.port)
        try:
            self.studios.sweep()
        except OSError as error:
            log.warning("Cannot clear up after an earlier process: %s", error)
        self.page.queue(default_concurrency_limit=8)
        _pass_the_proxy_by()
        without_reloading()
        try:
            self.page.launch(
                server_name=self.settings.host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                show_error=False,
                footer_links=[],
                _frontend=False,  # else it gives up if the machine is so busy that its first answer takes 3 seconds
                state_session_capacity=PAGES_KEPT,
                max_file_size=self.settings.max_upload_bytes,
                theme=theme(),
                css_paths=[STYLE],
                app_kwargs={"middleware": [Middleware(Gate, settings, desk)], "routes": routes},
            )
        except OSError as error:
            raise FtappError(f"Port {port} is in use.", "Set FTAPP_PORT to another one.") from error
        scheduler = self.studios.scheduler
        threading.Thread(target=scheduler.keep_ticking, args=(self._closing,), name="scheduler", daemon=True).start()
        threading.Thread(target=self._close_idle, name="idle", daemon=True).start()
        start_watching(self.settings, scheduler, self._closing)
        host = "127.0.0.1" if self.settings.host == "0.0.0.0" else self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Stop serving, end checks and unload the chat's model; trainings and publications run on."""
        self._closing.set()
        self.studios.close()
        self.page.close(verbose=False)

    def _close_idle(self) -> None:
        while not self._closing.wait(IDLE_CHECK_SECONDS):
            try:
                self.studios.close_idle()
            except Exception:
                log.exception("cannot close what is idle")


def _pass_the_proxy_by() -> None:
    """Gradio asks its own page whether it is up, which a proxy that the environment names could not."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), *LOOPBACK]))


def create_app(settings: Settings) -> App:
    """The app over these settings, not served yet."""
    return App(settings)


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; raises FtappError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise FtappError(
                f"Cannot listen on {host}:{port}: {error.strerror}.", "Set FTAPP_PORT (or FTAPP_HOST) to another one."
            ) from None
        return int(probe.getsockname()[1])


def main() -> int:
    """Serve until Ctrl+C or SIGTERM; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "httpx2"):  # they would tell of every model that somebody looked at
        logging.getLogger(name).setLevel(logging.WARNING)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        app = create_app(read_settings())
        address = app.start()
    except FtappError as error:
        log.error("ftapp cannot start. %s", error)
        return 1
    log.info("ftapp is ready at %s", address)
    stopped.wait()
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
