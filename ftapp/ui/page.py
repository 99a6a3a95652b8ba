"""The page: five tabs and the ways from one to the next; app.py builds it, the tabs do the rest."""

from typing import Any

import gradio as gr

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import ConfigError
from ftapp.studio import Studio
from ftapp.ui import chat_tab, configure_tab, dataset_tab, edge, form, publish_tab, train_tab
from ftapp.ui.edge import Edge

HEADER = (
    "<header class='top'><h1>ftapp</h1><p>Fine-tune a language model without writing code: "
    "choose rows, train, chat with the result, publish it.</p></header>"
)
CACHE_SWEEP, CACHE_AGE = 3600, 24 * 3600
"""Seconds: how often Gradio's cache is swept, and how old a file in it may get."""


def create_page(studio: Studio) -> Any:
    """The whole page over one studio, not served yet."""
    bound = Edge(studio)
    with gr.Blocks(title="ftapp", analytics_enabled=False, delete_cache=(CACHE_SWEEP, CACHE_AGE)) as page:
        gr.HTML(HEADER)
        with gr.Tabs(selected="dataset", elem_id="tabs") as tabs:
            with gr.Tab("Dataset", id="dataset") as at_dataset:
                dataset = dataset_tab.place()
            with gr.Tab("Configure", id="configure") as at_configure:
                configure = configure_tab.place(studio)
            with gr.Tab("Train", id="train") as at_train:
                train = train_tab.place()
            with gr.Tab("Chat", id="chat") as at_chat:
                chat = chat_tab.place()
            with gr.Tab("Publish", id="publish") as at_publish:
                publish = publish_tab.place(studio)
        dataset_tab.wire(bound, dataset, [configure.dataset])
        configure_tab.wire(bound, configure)
        train_tab.wire(bound, train)
        chat_tab.wire(bound, chat)
        publish_tab.wire(bound, publish)
        _ways(bound, tabs, dataset, configure, train, chat, publish)
        _refresh(bound, page, (at_dataset, at_configure, at_train, at_chat, at_publish), dataset, configure, train)
        bound.on(at_chat.select, chat_tab.chosen, [chat.run], [chat.run])
        bound.on(at_publish.select, publish_tab.chosen, [publish.run], [publish.run])
        loaded = bound.on(page.load, chat_tab.chosen, [chat.run], [chat.run])
        bound.on(loaded.then, chat_tab._of_run, [chat.run, chat.history], [chat.box, chat.examples_row, *chat.examples])
        loaded = bound.on(page.load, publish_tab.chosen, [publish.run], [publish.run])
        bound.on(loaded.then, publish_tab._show, [publish.run, publish.number], publish.shown)
    return page
