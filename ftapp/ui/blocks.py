"""Gradio's page, which leaves alone what a handler leaves alone; page.py builds on it."""

import copy
from typing import Any

import gradio as gr

SKIPPED = gr.skip()


class Page(gr.Blocks):  # type: ignore[misc]
    """Blocks whose answers cost what changes: Gradio makes each component of an answer anew, unchanged ones too."""

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """As Gradio's, for those outputs alone that are not skipped."""
        outputs = block_fn.outputs
        if len(outputs) < 2:
            return list(await super().postprocess_data(block_fn, predictions, state))
        if predictions == SKIPPED:
            return [dict(SKIPPED) for _ in outputs]
        if not isinstance(predictions, list | tuple) or len(predictions) != len(outputs):
            return list(await super().postprocess_data(block_fn, predictions, state))
        changed = [number for number, value in enumerate(predictions) if not _is_skipped(value)]
        answer: list[Any] = [
            None if outputs[number].stateful else dict(SKIPPED) if _is_skipped(value) else None
            for number, value in enumerate(predictions)
        ]
        if changed:
            part = copy.copy(block_fn)
            part.outputs = [outputs[number] for number in changed]
            values = [predictions[number] for number in changed]
            made = await super().postprocess_data(part, values[0] if len(values) == 1 else values, state)
            for number, value in zip(changed, made, strict=True):
                answer[number] = value
        return answer


def _is_skipped(value: Any) -> bool:
    return isinstance(value, dict) and value == SKIPPED
