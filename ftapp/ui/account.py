"""Who the page takes its visitor for: a line under the title, on a machine that several people share."""

from typing import Any

import gradio as gr

from ftapp.settings import Settings
from ftapp.ui import markup
from ftapp.ui.edge import asker_of
from ftapp.ui.sign_in import Asker

# a frame's cookies are refused by many browsers: there, the sign-in goes to a window of its own
SIGN_IN = (
    "<a class='ft-button' href='/login' target='_blank' "
    "onclick=\"if (self === top) this.target = '_self'\">Sign in with Hugging Face</a>"
)
SIGN_OUT = "<form method='post' action='/logout'><button class='ft-button' type='submit'>Sign out</button></form>"


def place(page: Any, settings: Settings) -> None:
    """Put the line on the page, if people sign in here."""
    if settings.sign_in is None:
        return
    line = gr.HTML(elem_id="account")

    def show(request: gr.Request) -> str:
        return drawn(asker_of(request), settings)

    page.load(show, outputs=[line], show_progress="hidden", api_visibility="private", concurrency_limit=None)


def drawn(asker: Asker, settings: Settings) -> str:
    """The line, as HTML."""
    if asker.person.may_act:
        return f"<div class='ft-account'><span>Signed in as <b>{markup.text(asker.account)}</b></span>{SIGN_OUT}</div>"
    words = "<b>A demo to look at.</b> "
    if asker.account:
        words += f"{markup.text(asker.account)} was not let in by the owner of this Space."
    else:
        words += "Sign in with an account that its owner let in, and train, chat and publish here."
    if settings.space_id:
        address = f"https://huggingface.co/spaces/{markup.text(settings.space_id)}?duplicate=true"
        words += (
            f" Or <a href='{address}' target='_blank' rel='noopener'>duplicate this Space</a> and have it to yourself."
        )
    return f"<div class='ft-account'><span>{words}</span>{SIGN_OUT if asker.account else SIGN_IN}</div>"
