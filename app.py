"""The front door: settings → Studio → page → serve. `python app.py` serves the page until it is stopped."""

import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it while it is imported
if os.environ.get("SPACE_ID"):
    os.environ["SYSTEM"] = "spaces"  # else Gradio does not believe that it is in one

from ftapp.contract.errors import FtappError
from ftapp.processes.watching import start_watching
from ftapp.settings import Settings, read_settings
from ftapp.studio import Studio
from ftapp.ui import downloads
from ftapp.ui.page import create_page
from ftapp.ui.theme import STYLE, theme

log = logging.getLogger("ftapp")

IDLE_CHECK_SECONDS = 10
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class App:
    """One served page: start it, close it; jobs that it started go on without it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.studio = Studio(settings)
        self.page: Any = create_page(self.studio)
        self._closing = threading.Event()

    def start(self) -> str:
        """Serve without blocking; returns the address. Raises FtappError if the port is taken."""
        port = _free_port(self.settings.host, self.settings.port)
        try:
            self.studio.sweep()
        except OSError as error:
            log.warning("Cannot clear up after an earlier process: %s", error)
        self.page.queue(default_concurrency_limit=8)
        try:
            served, _, _ = self.page.launch(
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
                max_file_size=self.settings.max_upload_bytes,
                theme=theme(),
                css_paths=[STYLE],
            )
        except OSError as error:
            raise FtappError(f"Port {port} is in use.", "Set FTAPP_PORT to another one.") from error
        downloads.serve(served, self.studio)
        scheduler = self.studio.scheduler
        threading.Thread(target=scheduler.keep_ticking, args=(self._closing,), name="scheduler", daemon=True).start()
        threading.Thread(target=self._close_idle, name="idle", daemon=True).start()
        start_watching(self.settings, scheduler, self._closing)
        host = "127.0.0.1" if self.settings.host == "0.0.0.0" else self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Stop serving, end checks and unload the chat's model; trainings and publications run on."""
        self._closing.set()
        self.studio.cancel_checks()
        self.studio.close_chat("ftapp was closed")
        self.studio.close_preview()
        self.studio.close_examiner()
        self.page.close(verbose=False)

    def _close_idle(self) -> None:
        while not self._closing.wait(IDLE_CHECK_SECONDS):
            try:
                self.studio.close_idle()
            except Exception:
                log.exception("cannot close what is idle")


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
    logging.getLogger("httpx").setLevel(logging.WARNING)
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
    if app.settings.host not in LOOPBACK:
        log.warning("It listens on %s without a login: whoever reaches it can use it.", app.settings.host)
    stopped.wait()
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
