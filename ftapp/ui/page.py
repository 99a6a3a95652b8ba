"""The page: six tabs and the ways from one to the next; app.py builds it, the tabs do the rest."""

from typing import Any

import gradio as gr

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import ConfigError
from ftapp.people import LOCAL, VISITOR
from ftapp.studio import Studio
from ftapp.studios import Studios
from ftapp.ui import (
    account,
    chat_tab,
    configure_tab,
    dataset_tab,
    edge,
    evaluate_tab,
    fields,
    form,
    notices,
    publish_tab,
    train_tab,
)
from ftapp.ui.blocks import Page
from ftapp.ui.edge import Edge

HEADER = (
    "<header class='top'><h1>ftapp</h1><p>Fine-tune a language model without writing code: "
    "choose rows, train, chat with the result, measure it, publish it.</p></header>"
)
CACHE_SWEEP, CACHE_AGE = 3600, 24 * 3600
"""Seconds: how often Gradio's cache is swept, and how old a file in it may get."""


def create_page(studios: Studios) -> Any:
    """The whole page, not served yet; whoever opens it sees the studio that is theirs."""
    bound = Edge(studios)
    studio = studios.of(VISITOR if studios.settings.sign_in else LOCAL)
    with Page(title="ftapp", analytics_enabled=False, delete_cache=(CACHE_SWEEP, CACHE_AGE)) as page:
        gr.HTML(HEADER)
        account.place(page, studios.settings)
        told = notices.place()
        with gr.Tabs(selected="dataset", elem_id="tabs") as tabs:
            with gr.Tab("Dataset", id="dataset") as at_dataset:
                dataset = dataset_tab.place()
            with gr.Tab("Configure", id="configure") as at_configure:
                configure = configure_tab.place(studio)
            with gr.Tab("Train", id="train") as at_train:
                train = train_tab.place()
            with gr.Tab("Chat", id="chat") as at_chat:
                chat = chat_tab.place()
            with gr.Tab("Evaluate", id="evaluate") as at_evaluate:
                evaluate = evaluate_tab.place()
            with gr.Tab("Publish", id="publish") as at_publish:
                publish = publish_tab.place(studio)
        lists = [(configure.dataset, dataset_tab.choices), (configure.held_out, dataset_tab.optional_choices)]
        dataset_tab.wire(bound, dataset, lists)
        configure_tab.wire(bound, configure)
        train_tab.wire(bound, train)
        acted = chat_tab.wire(bound, chat)
        bound.on(acted.then, dataset_tab.choices, outputs=[configure.dataset])  # one of them may be new
        bound.visits(page)
        evaluate_tab.wire(bound, evaluate)
        publish_tab.wire(bound, publish)
        for event in (page.load, at_dataset.select, at_train.select, at_publish.select):
            notices.refresh(bound, event, told)
        for event in (page.load, at_dataset.select):
            dataset_tab.refresh(bound, event, dataset, lists)
        for event in (page.load, at_configure.select):
            configure_tab.refresh(bound, event, configure)
        train_tab.load(bound, page.load, train, tabs)
        train_tab.refresh(bound, at_train.select, train)
        # filled when they are looked at: all of them at once keep the page busy for seconds
        chat_tab.refresh(bound, at_chat.select, chat)
        evaluate_tab.refresh(bound, at_evaluate.select, evaluate)
        publish_tab.refresh(bound, at_publish.select, publish)
        _ways(bound, tabs, dataset, configure, train, chat, evaluate, publish)
    return page


def _ways(
    bound: Edge,
    tabs: Any,
    dataset: dataset_tab.DatasetTab,
    configure: configure_tab.ConfigureTab,
    train: train_tab.TrainTab,
    chat: chat_tab.ChatTab,
    evaluate: evaluate_tab.EvaluateTab,
    publish: publish_tab.PublishTab,
) -> None:
    """From one tab to the next: each button takes along what was chosen."""

    def use(_: Studio, id: str) -> tuple[Any, Any]:
        return id, gr.Tabs(selected="configure")

    def to_chat(studio: Studio, name: str) -> tuple[Any, Any]:
        return chat_tab.chosen(studio, name), gr.Tabs(selected="chat")

    def to_evaluate(studio: Studio, name: str) -> tuple[Any, Any]:
        return evaluate_tab.chosen(studio, name), gr.Tabs(selected="evaluate")

    def to_publish(studio: Studio, name: str) -> tuple[Any, Any]:
        return publish_tab.chosen(studio, name), gr.Tabs(selected="publish")

    def again(studio: Studio, name: str) -> list[Any]:
        return [*configure_tab.filled(studio, studio.run(name).config), gr.Tabs(selected="configure")]

    def train_on(studio: Studio, name: str, id: str) -> list[Any]:
        config = studio.run(name).config
        data = config.data.model_copy(update={"dataset": id})
        return [*configure_tab.filled(studio, config.model_copy(update={"data": data})), gr.Tabs(selected="configure")]

    def take(_: Studio, id: str, taken: dict[str, str] | None) -> list[Any]:
        if taken is None or taken["dataset"] != id:  # another was chosen, and the button is about to go
            edge.warn("Measure this dataset first.")
            return [gr.skip()] * (len(fields.NAMES) + 2)
        values = {"data.dataset": id, "model.id": taken["model"], "data.max_length": taken["max_length"]}
        updates = [values.get(name, gr.skip()) for name in fields.NAMES]
        return [*updates, gr.update(open=True), gr.Tabs(selected="configure")]

    bound.on(dataset.use.click, use, [dataset.chosen], [configure.dataset, tabs])
    measured = [dataset.chosen, dataset.tokens.suggested]
    taken = bound.on(dataset.tokens.take.click, take, measured, [*configure.components, configure.advanced, tabs])
    configure_tab.after_values_changed(bound, taken, configure)
    bound.on(train.chat.click, to_chat, [train.run], [chat.run, tabs])
    taken = bound.on(chat.train_on.click, train_on, [chat.run, chat.kept_in], [*configure.components, tabs])
    configure_tab.after_values_changed(bound, taken, configure)
    for button, run in ((train.evaluate, train.run), (chat.evaluate, chat.run)):
        bound.on(button.click, to_evaluate, [run], [evaluate.run, tabs])
    bound.on(train.publish.click, to_publish, [train.run], [publish.run, tabs])
    taken = bound.on(train.again.click, again, [train.run], [*configure.components, tabs])
    configure_tab.after_values_changed(bound, taken, configure)
    marked = [*configure.components, configure.problems, configure.advanced]
    started = [*marked, train.run, tabs]
    bound.on(configure.start.click, _start, [configure.problems, *configure.components], started)


def _start(studio: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    """Start the run and go to it; with a wrong value, mark it instead and stay."""
    named = dict(zip(fields.NAMES, values, strict=True))
    try:
        config = form.parse(RunConfig, named, fields.FIELDS)
    except ConfigError as error:
        levels = [field.level for field in fields.FIELDS if field.name in error.problems]
        if not levels:
            raise
        edge.warn(f"Correct {'the value' if len(levels) == 1 else f'the {len(levels)} values'} marked ⚠ first.")
        opened = gr.update(open=True) if "advanced" in levels else gr.skip()
        return [*configure_tab.mark(error.problems, shown), opened, gr.skip(), gr.skip()]
    name = studio.start_training(config)
    return [*configure_tab.mark({}, shown), gr.skip(), train_tab.chosen(studio, name), gr.Tabs(selected="train")]
