"""The run in the form as code: its config, the terminal's command, and a script that needs no ftapp."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.errors import FtappError
from ftapp.studio import Studio
from ftapp.ui import downloads, edge, fields, form, markup
from ftapp.ui.edge import Edge


@dataclass(frozen=True)
class CodeView:
    """The components that show the code."""

    box: Any
    problem: Any
    config: Any
    command: Any
    script: Any
    export: Any
    rows: Any


def place() -> CodeView:
    """Put them on the page, closed."""
    with gr.Accordion("Show the code", open=False, elem_id="config-code") as box:
        problem = gr.HTML(elem_id="config-code-problem")
        command = gr.Code(label="In the terminal", language="shell", interactive=False, elem_id="config-code-command")
        config = gr.Code(
            label="config.json", language="json", interactive=False, max_lines=20, elem_id="config-code-config"
        )
        script = gr.Code(
            label="The same with TRL and PEFT alone: train.py", language="python", interactive=False, max_lines=30,
            elem_id="config-code-script",
        )  # fmt: skip
        export = gr.Button("The rows for that script", size="sm", elem_id="config-code-export")
        rows = gr.File(label="Put them beside the script", file_count="multiple", visible=False, interactive=False)
    return CodeView(box, problem, config, command, script, export, rows)


def wire(bound: Edge, view: CodeView, components: list[Any]) -> None:
    """Bind opening it, which shows the values of that moment, and the rows."""
    shown = [view.problem, view.config, view.command, view.script]
    bound.on(view.box.expand, _show, components, shown)
    bound.on(view.export.click, _export, components, [view.problem, view.rows], show_progress="full")


def _show(studio: Studio, *values: form.Value) -> tuple[Any, ...]:
    config = fields.valid(values)
    if config is None:
        return markup.notice("warning", "Correct the values marked ⚠ first, then open this again."), *(gr.skip(),) * 3
    try:
        code = studio.code(config)
    except FtappError as error:
        return edge.in_place(error), *(gr.skip(),) * 3
    return "", code.config_json, code.command, code.script


def _export(studio: Studio, *values: form.Value) -> tuple[Any, Any]:
    config = fields.valid(values)
    if config is None:
        return markup.notice("warning", "Correct the values marked ⚠ first."), gr.skip()
    paths = studio.export_sides(config.data, config.seed)
    return "", gr.update(value=[downloads.offered(path) for path in paths], visible=True)
