"""Where the page meets the studio: every handler is bound here, acts for whoever asks, and its errors become toasts."""

import functools
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.studio import Studio
from ftapp.studios import Studios
from ftapp.ui import markup
from ftapp.ui.gate import ASKER
from ftapp.ui.sign_in import Asker

log = logging.getLogger(__name__)

Handler = Callable[..., Any]

LAST = {"trigger_mode": "always_last"}
"""An option of a handler whose answer goes by values that may change meanwhile: it is called again for the last."""
TOAST_SECONDS = 20
PROGRESS_SECONDS = 0.5
UNEXPECTED = "Something unexpected went wrong. What you typed is still here; the details are in ftapp's log."


@dataclass(frozen=True)
class Several:
    """Events of which one happens, as one to go on from."""

    events: tuple[Any, ...]

    def then(self, *arguments: Any, **options: Any) -> "Several":
        """What follows whichever happened."""
        return Several(tuple(event.then(*arguments, **options) for event in self.events))


def ended(event: Any) -> Callable[..., Several]:
    """When this has ended, well or not; of Gradio's own, `then` is not called after an error."""
    return lambda *arguments, **options: Several(
        (event.then(*arguments, **options), event.failure(*arguments, **options))
    )


class Edge:
    """Binds handlers to components; a handler takes the studio of whoever asks, then the inputs' values."""

    def __init__(self, studios: Studios) -> None:
        self._studios = studios

    def studio_for(self, request: gr.Request) -> Studio:
        """The studio of the one who sent this request, as the gate found out; there is no other way in."""
        return self._studios.of(asker_of(request).person)

    def on(
        self,
        event: Callable[..., Any],
        handler: Handler,
        inputs: Sequence[Any] = (),
        outputs: Sequence[Any] = (),
        **options: Any,
    ) -> Any:
        """Call the handler when the event happens; the event's own function, so that no queue slot is shared.

        Values come as the browser sent them (`preprocess`): Gradio would refuse a choice that a list of an earlier
        moment lacks in words that are not ours, whereas Studio looks for itself and tells what is missing.
        """
        ours = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None, "preprocess": False}
        options = {**ours, **options}
        return event(self._told(handler, inputs), list(inputs), list(outputs), **options)

    def in_browser(self, event: Callable[..., Any], script: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Do this in the browser alone, on the values of that very moment: what is typed cannot be overtaken."""
        return event(None, list(inputs), list(outputs), js=script, show_progress="hidden", api_visibility="private")

    def poll(self, event: Callable[..., Any], handler: Handler, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Call the handler on every tick; an error goes to the log alone, since it would come back each second."""

        @functools.wraps(handler)
        def quiet(studio: Studio, *values: Any) -> Any:
            try:
                return handler(studio, *values)
            except FtappError as error:
                log.warning("while polling: %s", error)
            except Exception:
                log.exception("while polling")
            return gr.skip()

        return self.on(event, quiet, inputs, outputs, trigger_mode="once", queue=False)

    def visits(self, page: Any) -> None:
        """Tell the studio of every page that somebody opens, and of every one that is closed."""

        def arrive(request: gr.Request) -> None:
            self.studio_for(request).open_page(str(request.session_hash))

        def leave(request: gr.Request) -> None:
            self.studio_for(request).leave_page(str(request.session_hash))

        page.load(arrive, show_progress="hidden", api_visibility="private", concurrency_limit=None)
        page.unload(leave)

    def _told(self, handler: Handler, inputs: Sequence[Any]) -> Handler:
        """The handler as Gradio calls it: with the request first, with errors as toasts, with "" for no text."""
        text = [isinstance(one, gr.Textbox) for one in inputs]

        def read(values: Sequence[Any]) -> list[Any]:
            """A box that nobody has typed into yet comes as None."""
            return ["" if value is None and here else value for value, here in zip(values, text, strict=True)]

        if "event" in inspect.signature(handler).parameters:

            def act(request: gr.Request, event: gr.EventData, *values: Any) -> Iterator[Any]:
                try:
                    yield from handler(self.studio_for(request), *read(values), event=event._data)
                except Exception as error:
                    raise toast(error) from None

            return act
        if inspect.isgeneratorfunction(handler):

            def stream(request: gr.Request, *values: Any) -> Iterator[Any]:
                try:
                    yield from handler(self.studio_for(request), *read(values))
                except Exception as error:
                    raise toast(error) from None

            return stream
        if "progress" in inspect.signature(handler).parameters:

            def measured(request: gr.Request, progress: gr.Progress = gr.Progress(), *values: Any) -> Any:  # noqa: B008
                try:
                    return handler(self.studio_for(request), *read(values), progress=progress)
                except Exception as error:
                    raise toast(error) from None

            return measured

        def plain(request: gr.Request, *values: Any) -> Any:
            try:
                return handler(self.studio_for(request), *read(values))
            except Exception as error:
                raise toast(error) from None

        return plain


def asker_of(request: gr.Request) -> Asker:
    """Who sent a request."""
    asker: Asker = request.request.scope[ASKER]
    return asker


def toast(error: Exception) -> Exception:
    """The error as Gradio shows it; a bug goes to the log and becomes one sentence."""
    if isinstance(error, FtappError):
        words = markup.text(error.message) + (f"<br><br>{markup.text(error.hint)}" if error.hint else "")
    else:
        log.error("unexpected error in a handler", exc_info=error)
        words = UNEXPECTED
    shown: Exception = gr.Error(words, duration=TOAST_SECONDS, print_exception=False)
    return shown


def in_place(error: FtappError, level: str = "error") -> str:
    """The error as a box on the page, where a toast would be gone too soon."""
    return markup.notice(level, error.message, error.hint)


def by_bytes(progress: gr.Progress, doing: str) -> Callable[[int, int], None]:
    """Gradio's progress bar for work that goes by bytes; it draws every output anew each time, so not too often."""
    last = 0.0

    def told(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < PROGRESS_SECONDS:
            return
        last = time.monotonic()
        progress(done / max(1, total), desc=f"{doing}: {markup.size(done)} of {markup.size(total)}")

    return told


def keep_chosen(update: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """The update of a list, without its value where that is chosen already: another one may have been meanwhile."""
    return {key: value for key, value in update.items() if key != "value" or value != chosen}


def warn(message: str) -> None:
    """A toast that is no error."""
    gr.Warning(markup.text(message))
