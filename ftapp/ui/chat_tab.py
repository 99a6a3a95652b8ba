"""The Chat tab: a run's model and its base, side by side or alone; what is loaded, and how answers are chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ftapp.contract.chat import Sampling
from ftapp.contract.errors import ConfigError
from ftapp.conversation import ChatState
from ftapp.studio import Studio
from ftapp.ui import answering, edge, exchanges, form, markup
from ftapp.ui.answering import RESULT, SAMPLING, History

WHO = [("Both, side by side", "both"), ("Tuned", "tuned"), ("Base", "base")]
SCRIPT = Path(__file__).with_name("chat.js").read_text(encoding="utf-8")
GROWN = """watch("value", () =>
  document.querySelector("#chat-box [data-chat]")?.dispatchEvent(new CustomEvent("grown", { detail: props.value })));"""
OVER = """() => document.querySelector("#chat-box [data-chat]")?.dispatchEvent(new CustomEvent("over"))"""
WATCH_SECONDS, GROW_SECONDS = 2.0, 0.1


@dataclass(frozen=True)
class ChatTab:
    """The components that other tabs are wired to."""

    run: Any
    checkpoint: Any
    who: Any
    four_bit: Any
    loaded: Any
    box: Any
    growth: Any
    grown: Any
    ticks: Any
    text: Any
    send: Any
    stop: Any
    notice: Any
    held_out: Any
    again: Any
    clear: Any
    evaluate: Any
    kept: Any
    kept_in: Any
    train_on: Any
    system: Any
    thinking: Any
    sampling: list[Any]
    own: Any
    problems: Any
    history: Any
    example: Any
    watch: Any
    seen: Any
    begun: Any

    @property
    def asked(self) -> list[Any]:
        """What decides how a question is answered, in the order in which `answering` takes it."""
        return [self.run, self.checkpoint, self.who, self.four_bit, self.system, self.thinking, *self.sampling]

    @property
    def shown(self) -> list[Any]:
        """The components of answering.SHOWN."""
        return [getattr(self, name) for name in answering.SHOWN]


def place() -> ChatTab:
    """Put the components on the page."""
    with gr.Row(elem_classes="fields"):
        run = gr.Dropdown(
            choices=[], label="Run", elem_id="chat-run", interactive=True, filterable=False, scale=3, min_width=300
        )
        checkpoint = gr.Dropdown(
            choices=[("Result", RESULT)], value=RESULT, label="As of", elem_id="chat-checkpoint", interactive=True,
            filterable=False, scale=1, min_width=120,
        )  # fmt: skip
        who = gr.Radio(choices=WHO, value="both", label="Who answers", elem_id="chat-variant", scale=2, min_width=290)
    loaded = gr.HTML(elem_id="chat-loaded")
    box = gr.HTML(
        exchanges.draw([]), elem_id="chat-box", elem_classes="chat-box", autoscroll=True, max_height=560,
        min_height=220, js_on_load=SCRIPT,
    )  # fmt: skip
    grown = gr.HTML("", html_template="", js_on_load=GROWN, visible="hidden", elem_id="chat-grown")
    with gr.Row(elem_classes="asking"):
        text = gr.Textbox(
            show_label=False, label="Message", placeholder="Ask something, Enter sends", lines=1, max_lines=8,
            elem_id="chat-input", scale=6, min_width=200, container=False,
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", elem_id="chat-send", scale=1, min_width=80)
        stop = gr.Button("Stop", variant="stop", elem_id="chat-stop", scale=1, min_width=80, visible=False)
    notice = gr.HTML(elem_id="chat-notice")
    with gr.Row(visible=False, elem_classes="actions") as kept:
        train_on = gr.Button("Train on it →", size="sm", variant="primary", elem_id="chat-train-on", min_width=110)
    with gr.Row(elem_classes="actions"):
        held_out = gr.Button("Try a held-out example", size="sm", elem_id="chat-held-out", min_width=150)
        again = gr.Button("Answer again", size="sm", elem_id="chat-again", min_width=110)
        clear = gr.Button("Clear", size="sm", elem_id="chat-clear", min_width=70)
        evaluate = gr.Button("Evaluate →", size="sm", visible=False, elem_id="chat-evaluate", min_width=110)
    with gr.Accordion("System prompt and sampling", open=False, elem_id="chat-sampling"):
        system = gr.Textbox(
            label="System prompt", info="What the training rows have in common, if they do; empty for none.", lines=2,
            max_lines=8, elem_id="chat-system",
        )  # fmt: skip
        thinking = gr.Radio(
            choices=list(answering.THINKING), value="as trained", label="Think before answering", visible=False,
            elem_id="chat-thinking",
        )  # fmt: skip
        with gr.Row(elem_classes="fields"):
            sampling = [
                form.component(field, elem_id=f"chat-{field.name.replace('_', '-')}", min_width=180)
                for field in SAMPLING
            ]
        with gr.Row(elem_classes="fields"):
            four_bit = gr.Checkbox(
                label="Base in 4 bit", info="A quarter of the memory, slightly other answers. At first as in training.",
                elem_id="chat-four-bit", interactive=True, min_width=220,
            )  # fmt: skip
            own = gr.Button("Back to the model's own", size="sm", elem_id="chat-own", min_width=190, scale=0)
    return ChatTab(
        run=run, checkpoint=checkpoint, who=who, four_bit=four_bit, loaded=loaded, box=box, grown=grown, text=text,
        growth=gr.State(None), ticks=gr.Timer(GROW_SECONDS, active=False),
        send=send, stop=stop, notice=notice, held_out=held_out, again=again, clear=clear, evaluate=evaluate, kept=kept,
        kept_in=gr.State(""), train_on=train_on, system=system, thinking=thinking, sampling=sampling, own=own,
        problems=gr.State({}), history=gr.State([]), example=gr.State(-1), watch=gr.Timer(WATCH_SECONDS, active=False),
        seen=gr.State(None), begun=gr.State(""),
    )  # fmt: skip


def wire(bound: edge.Edge, tab: ChatTab) -> Any:
    """Bind what happens inside this tab; returns the event after which there may be another dataset."""
    for event in (tab.send.click, tab.text.submit):
        bound.on(event, answering.ask, [tab.history, tab.text, *tab.asked], tab.shown, trigger_mode="once")
    bound.on(tab.again.click, answering.again, [tab.history, *tab.asked], tab.shown, trigger_mode="once")
    counted = bound.on(tab.held_out.click, lambda _, n: n + 1, [tab.example], [tab.example], trigger_mode="once")
    held_out = [tab.history, tab.example, *tab.asked]
    bound.on(counted.then, answering.held_out, held_out, tab.shown, trigger_mode="once")
    edited = bound.on(tab.box.edit, answering.edit, [tab.history, *tab.asked], tab.shown, trigger_mode="once")
    kept = bound.on(tab.box.like, answering.keep, [tab.history, *tab.asked], tab.shown, trigger_mode="multiple")
    for event in (edited.then, edited.failure, kept.then, kept.failure):
        bound.in_browser(event, OVER, [], [])
    bound.on(tab.stop.click, lambda studio: studio.stop_chat(), trigger_mode="multiple")
    bound.on(tab.clear.click, _clear, [tab.history], tab.shown)
    of_run = [tab.checkpoint, tab.evaluate, tab.system, tab.thinking, tab.four_bit, tab.example, *tab.sampling]
    bound.on(tab.run.change, _begin, [tab.run, tab.begun], [*of_run, tab.begun])
    bound.on(tab.own.click, _own_sampling, [tab.run], tab.sampling)
    for one in tab.sampling:
        bound.on(form.edited(one), _check, [tab.problems, *tab.sampling], [*tab.sampling, tab.problems])
    bound.poll(tab.ticks.tick, answering.grown, [tab.growth], [tab.grown])
    bound.poll(tab.watch.tick, _watched, [tab.seen], [tab.loaded, tab.watch, tab.seen])
    return kept


def refresh(bound: edge.Edge, event: Any, tab: ChatTab) -> None:
    """On this event, read again which runs there are to chat with, and what is loaded."""
    listed = bound.on(event, _listed, [tab.run, tab.history], [tab.run, tab.box])
    bound.on(listed.then, _watched, [tab.seen], [tab.loaded, tab.watch, tab.seen])


def _listed(studio: Studio, name: str | None, history: History) -> tuple[Any, Any]:
    update = chosen(studio, name)
    has = history or studio.chat_answers()
    # a value that is there already would count as a change, and what a run begins with undo what was typed
    return edge.keep_chosen(update, name), gr.skip() if has else exchanges.draw([], bool(update["value"]))


def chosen(studio: Studio, name: str | None) -> Any:
    """The runs that can be asked, the newest chosen unless another one was."""
    names = [view.name for view in studio.chat_runs()]
    value = name if name in names else names[0] if names else None
    return gr.update(choices=names, value=value, visible=bool(names))


def _clear(studio: Studio, history: History) -> answering.Updates:
    if answering.still_answering(studio):
        return answering.updates()
    history.clear()
    return answering.updates(box=exchanges.draw([]), notice="", kept=gr.update(visible=False))


def _begin(studio: Studio, name: str | None, begun: str) -> list[Any]:
    """What a chat with another run begins with; of one that has begun, the list that tells it anew changes nothing."""
    if not name or name == begun:
        return [gr.skip()] * (7 + len(SAMPLING))
    return [*_of_run(studio, name), name]


def _of_run(studio: Studio, name: str) -> list[Any]:
    """What a chat with this run begins with."""
    defaults, found = studio.chat_defaults(name), studio.chat_checkpoints(name)
    steps = [("Result", RESULT) if not one else (f"Step {one.rsplit('-', 1)[1]}", one) for one in found]
    value = steps[0][1] if steps else RESULT
    return [
        gr.update(choices=steps, value=value, visible=len(steps) > 1 or value != RESULT),
        gr.update(visible="" in found),
        defaults.system,
        gr.update(visible=defaults.thinking, value="as trained"),
        defaults.four_bit,
        -1,
        *_values(defaults.sampling),
    ]


def _own_sampling(studio: Studio, name: str | None) -> list[Any]:
    return _values(studio.chat_defaults(name).sampling) if name else [gr.skip()] * len(SAMPLING)


def _values(sampling: Sampling) -> list[form.Value]:
    values = form.config_to_values(sampling, SAMPLING)
    return [values[field.name] for field in SAMPLING]


def _check(_: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        form.parse(Sampling, {field.name: value for field, value in zip(SAMPLING, values, strict=True)}, SAMPLING)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(SAMPLING, problems, shown), problems]


def _watched(studio: Studio, seen: ChatState | None) -> tuple[Any, Any, Any]:
    """What is in memory, if it is not what is shown; watched as long as something is."""
    state = studio.chat_state()
    if state == seen:
        return gr.skip(), gr.skip() if state.held else gr.Timer(active=False), gr.skip()
    return _told(state), gr.Timer(active=state.held), state


def _told(state: ChatState) -> str:
    if loaded := state.loaded:
        step = f", {loaded.checkpoint.replace('checkpoint-', 'step ')}" if loaded.checkpoint else ""
        what = f"In memory: {loaded.model} in {loaded.precision} on {loaded.device}"
        with_what = f", fully trained by {loaded.run}{step}" if not loaded.adapters else f" + {loaded.run}{step}"
        more = f" · {loaded.adapters} adapters on the one base" if loaded.adapters > 1 else ""
        return f"<div class='ft-stats'>{markup.text(what + with_what + more)}</div>"
    if state.away:
        return markup.notice("info", f"The model was put away: {state.away}.", "The next question loads it again.")
    return ""
