"""The model card on the Publish tab: as it would be published, edited, and looked at."""

import json
import re
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.card import CHECK_PLACE
from ftapp.contract.errors import FtappError
from ftapp.contract.publication import PublishConfig
from ftapp.studio import Studio
from ftapp.ui import edge

LOADING = re.compile(r"</?(img|picture|source|video|audio|iframe|object|embed|link|style)\b[^>]*>", re.IGNORECASE)
TAKE = """(text, drafted, offer) => {
    const [was, card] = offer ? JSON.parse(offer) : [];
    const untouched = (text ?? "") === was || text === drafted;
    return card !== undefined && untouched ? [card, card] : [text, drafted];
}"""
"""In the browser: put what was written from the run where an earlier draft stands, or what stood there when this was
asked for, but not over a person's words that were typed meanwhile."""
CHECK_WORDS = "*What the check of the merged model finds is put here.*"


@dataclass(frozen=True)
class CardBox:
    """The components of the card."""

    box: Any
    text: Any
    anew: Any
    preview: Any
    preview_tab: Any
    drafted: Any
    """As it was last written from the run: where `text` is the same, nobody changed it."""
    offer: Any


def place() -> CardBox:
    """Put it on the page, closed."""
    with gr.Accordion("Model card", open=False, elem_id="publish-card-box") as box, gr.Tabs():
        with gr.Tab("Text"):
            text = gr.Textbox(
                label="README.md", lines=18, max_lines=30, elem_id="publish-card", interactive=True,
                info="Written from the run; change what you like. It is pushed as it stands here.",
                html_attributes=gr.InputHTMLAttributes(spellcheck=False),
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                anew = gr.Button("Write it anew", size="sm", elem_id="publish-card-anew", min_width=110)
            drafted = gr.Textbox("", visible="hidden", elem_id="publish-card-drafted")
            offer = gr.Textbox("", visible="hidden", elem_id="publish-card-offer")
        with gr.Tab("Preview", elem_id="publish-card-look") as preview_tab:
            preview = gr.Markdown(elem_id="publish-card-preview", sanitize_html=True, latex_delimiters=[])
    return CardBox(box, text, anew, preview, preview_tab, drafted, offer)


def take(bound: edge.Edge, event: Any, card: CardBox) -> None:
    """On this event, put the card that `draft` offers into the box, unless somebody wrote there meanwhile."""
    bound.in_browser(event, TAKE, [card.text, card.drafted, card.offer], [card.text, card.drafted])


def edited(text: str | None, drafted: str) -> str | None:
    """The card if a person changed it; None if it is to be written from the run."""
    return text if text and text.strip() and text != drafted else None


def draft(studio: Studio, config: PublishConfig | None, text: str | None, drafted: str, anew: bool) -> str:
    """The card of this publication as an offer for the place of `text`, unless a person changed what stands there."""
    if not config or config.artifact == "gguf" or (edited(text, drafted) and not anew):
        return ""
    try:
        card = studio.card(config)
    except FtappError:
        return ""  # told where it is published
    return json.dumps([text or "", card])


def preview(_: Studio, text: str | None) -> str:
    """The card much as the Hub shows it: without its metadata; what it would load from elsewhere is only named."""
    body = re.sub(r"\A---\s*\n.*?\n---\s*\n", "", text or "", flags=re.DOTALL).replace(CHECK_PLACE, CHECK_WORDS)
    return LOADING.sub("", body).replace("![", "[")
