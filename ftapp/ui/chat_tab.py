"""The Chat tab: talk with a run's model, and with its base for comparison; answers stream in."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.chat import Done, Generate, Loading, Text
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.studio import Studio
from ftapp.ui import edge, form, markup

SAMPLING = [field for field in form.fields_of(Generate) if field.name != "tuned"]
VARIANTS = [("Tuned", "tuned"), ("Base", "base")]
SPEAKERS = {"tuned": "Tuned model", "base": "Base model"}
EXAMPLES = 3
REDRAW_SECONDS = 0.06
"""Between two drawings of an answer that is being written."""

History = list[dict[str, str]]
"""Turns: role, content, and for answers the variant that wrote them."""


@dataclass(frozen=True)
class ChatTab:
    """The components that other tabs are wired to."""

    run: Any
    variant: Any
    box: Any
    text: Any
    send: Any
    stop: Any
    clear: Any
    stats: Any
    sampling: list[Any]
    problems: Any
    examples: list[Any]
    examples_row: Any
    history: Any


def place() -> ChatTab:
    """Put the components on the page."""
    with gr.Row(elem_classes="fields"):
        run = gr.Dropdown(
            choices=[], label="Run", elem_id="chat-run", interactive=True, filterable=False, scale=3, min_width=220
        )
        variant = gr.Radio(
            choices=VARIANTS, value="tuned", label="Who answers", elem_id="chat-variant", scale=1, min_width=250
        )
    box = gr.HTML(elem_id="chat-box", elem_classes="chat-box", autoscroll=True, max_height=520, min_height=220)
    with gr.Row(visible=False, elem_classes="actions", elem_id="chat-examples") as examples_row:
        examples = [gr.Button("", size="sm", elem_id=f"chat-example-{n}", min_width=160) for n in range(EXAMPLES)]
    with gr.Row(elem_classes="asking"):
        text = gr.Textbox(
            show_label=False, label="Message", placeholder="Ask something, Enter sends", lines=1, max_lines=8,
            elem_id="chat-input", scale=6, min_width=200, container=False,
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", elem_id="chat-send", scale=1, min_width=80)
        stop = gr.Button("Stop", variant="stop", elem_id="chat-stop", scale=1, min_width=80, visible=False)
    stats = gr.HTML(elem_id="chat-stats")
    with gr.Row(elem_classes="actions"):
        clear = gr.Button("Clear the conversation", size="sm", elem_id="chat-clear", min_width=140)
    with gr.Accordion("How answers are chosen", open=False, elem_id="chat-sampling"), gr.Row(elem_classes="fields"):
        sampling = [
            form.component(field, elem_id=f"chat-{field.name.replace('_', '-')}", min_width=180) for field in SAMPLING
        ]
    return ChatTab(
        run, variant, box, text, send, stop, clear, stats, sampling, gr.State({}), examples, examples_row, gr.State([])
    )


def wire(bound: edge.Edge, tab: ChatTab) -> None:
    """Bind what happens inside this tab."""
    asked = [tab.run, tab.variant, tab.text, tab.history, *tab.sampling]
    answered = [tab.box, tab.history, tab.text, tab.stats, tab.send, tab.stop]
    bound.on(tab.send.click, answer, asked, answered, trigger_mode="once")
    bound.on(tab.text.submit, answer, asked, answered, trigger_mode="once")
    bound.on(tab.stop.click, lambda studio: studio.stop_chat(), trigger_mode="multiple")
    bound.on(tab.clear.click, lambda _: (draw([]), [], ""), outputs=[tab.box, tab.history, tab.stats])
    for button in tab.examples:
        chosen = bound.on(button.click, lambda _, question: question, [button], [tab.text])
        bound.on(chosen.then, answer, asked, answered, trigger_mode="once")
    bound.on(tab.run.change, _of_run, [tab.run, tab.history], [tab.box, tab.examples_row, *tab.examples])
    for one in tab.sampling:
        bound.on(form.edited(one), _check, [tab.problems, *tab.sampling], [*tab.sampling, tab.problems])


def refresh(bound: edge.Edge, event: Any, tab: ChatTab) -> None:
    """On this event, read again which runs have a result."""
    bound.on(event, _listed, [tab.run, tab.history], [tab.run, tab.box])


def _listed(studio: Studio, name: str | None, history: History) -> tuple[Any, str]:
    update = chosen(studio, name)
    return update, draw(history, bool(update["value"]))


def chosen(studio: Studio, name: str | None) -> Any:
    """The runs that have a result, the newest chosen unless another one was."""
    names = [view.name for view in studio.runs() if view.has_result]
    value = name if name in names else names[0] if names else None
    return gr.update(choices=names, value=value, visible=bool(names))


def _of_run(studio: Studio, name: str | None, history: History) -> tuple[Any, ...]:
    questions = studio.example_questions(name, EXAMPLES) if name else []
    padded = [*questions, *[""] * (EXAMPLES - len(questions))]
    buttons = [gr.update(value=question, visible=bool(question)) for question in padded]
    return draw(history, bool(name)), gr.update(visible=bool(questions)), *buttons


def _check(_: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        _request([], True, values)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(SAMPLING, problems, shown), problems]


def _request(messages: list[dict[str, str]], tuned: bool, sampling: tuple[form.Value, ...]) -> Generate:
    values = {field.name: value for field, value in zip(SAMPLING, sampling, strict=True)}
    return form.parse(Generate, values, SAMPLING, messages=messages, tuned=tuned)


def answer(
    studio: Studio, run: str | None, variant: str, text: str, history: History, *sampling: form.Value
) -> Iterator[tuple[Any, ...]]:
    """Stream one answer into the conversation; a failure gives the question back."""
    if not run:
        edge.warn("There is no trained run to chat with yet. Start one in the Configure tab.")
        yield (gr.skip(),) * 6
        return
    if not text.strip():
        yield (gr.skip(),) * 6
        return
    asked = [*history, {"role": "user", "content": text}]
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in asked]
    busy = gr.update(visible=False), gr.update(visible=True)
    idle = gr.update(visible=True), gr.update(visible=False)
    written, drawn = "", 0.0
    try:
        request = _request(messages, variant == "tuned", sampling)
        yield draw([*asked, _turn(variant, "…")]), gr.skip(), "", _waiting("Asking"), *busy
        with closing(studio.chat(run, request)) as replies:  # type: ignore[type-var]
            for reply in replies:
                if isinstance(reply, Loading):
                    yield gr.skip(), gr.skip(), gr.skip(), _waiting(reply.name), *[gr.skip()] * 2
                elif isinstance(reply, Text):
                    written += reply.text
                    if time.monotonic() - drawn > REDRAW_SECONDS:
                        drawn = time.monotonic()
                        yield draw([*asked, _turn(variant, written)]), *[gr.skip()] * 5
                elif isinstance(reply, Done):
                    done = [*asked, _turn(variant, written)]
                    yield draw(done), done, gr.skip(), _stats(reply), *idle
    except FtappError:
        if written:
            kept = [*asked, _turn(variant, written)]
            yield draw(kept), kept, gr.skip(), "", *idle
        else:
            yield draw(history), gr.skip(), text, "", *idle
        raise


def _turn(variant: str, content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content, "variant": variant}


def draw(history: History, has_run: bool = True) -> str:
    """The conversation, each answer with the name of the model that wrote it."""
    if not history:
        if has_run:
            return markup.empty("Nothing said yet.", "Ask the same thing of Tuned and of Base to see what changed.")
        return markup.empty("No trained run yet.", "Go to Configure and press Start: the demo takes under a minute.")
    turns = [
        markup.bubble(turn["role"], turn["content"], SPEAKERS.get(turn.get("variant", ""), ""), turn.get("variant", ""))
        for turn in history
    ]
    return f"<div role='log' aria-live='polite' aria-label='Conversation'>{''.join(turns)}</div>"


def _waiting(what: str) -> str:
    return f"<div class='ft-stats waiting'>{markup.text(what)} …</div>"


def _stats(done: Done) -> str:
    ends = {"stop": "", "length": " · cut at the longest length", "stopped": " · stopped"}
    writing = done.seconds - done.first_token_seconds
    speed = f"{(done.tokens - 1) / writing:.0f} tokens/s" if done.tokens > 1 and writing > 0 else ""
    parts = [f"{done.tokens} tokens", speed, f"first token after {done.first_token_seconds:.2f} s"]
    return f"<div class='ft-stats'>{' · '.join(part for part in parts if part)}{ends[done.reason]}</div>"
