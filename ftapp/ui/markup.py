"""Pieces of the page that are HTML: every word from outside is escaped here; the tabs alone may call it."""

import html
import json
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from ftapp.contract.examples import Example, Message

_TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def text(value: object) -> str:
    """Plain text as HTML, safe inside Gradio's own templates too."""
    return html.escape(str(value)).translate(_TEMPLATE_SIGNS)


def empty(message: str, next_step: str = "") -> str:
    """What stands where nothing is yet, and what to do about it."""
    step = f"<p>{text(next_step)}</p>" if next_step else ""
    return f"<div class='ft-empty'><p class='empty-title'>{text(message)}</p>{step}</div>"


def notice(level: str, message: str, hint: str = "") -> str:
    """A message in a box; level is info, warning, error or success."""
    role = "alert" if level == "error" else "status"
    more = f"<div class='hint'>{text(hint)}</div>" if hint else ""
    return f"<div class='ft-notice {text(level)}' role='{role}'><div>{text(message)}</div>{more}</div>"


def badge(word: str, kind: str) -> str:
    """A word in a coloured pill."""
    return f"<span class='ft-badge {text(kind)}'>{text(word)}</span>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Small figures with their names, in a row."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f"<dl class='ft-facts'>{items}</dl>"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], label: str, kind: str = "") -> str:
    """A table that scrolls sideways by itself on a narrow screen."""
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in headers)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='ft-table {kind}' role='region' aria-label='{text(label)}' tabindex='0'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bar(fraction: float | None, label: str) -> str:
    """A progress bar; without a fraction it only says that something moves."""
    if fraction is None:
        return f"<div class='ft-bar moving' role='progressbar' aria-label='{text(label)}'><div></div></div>"
    percent = max(0.0, min(1.0, fraction)) * 100
    return (
        f"<div class='ft-bar' role='progressbar' aria-label='{text(label)}' aria-valuemin='0' aria-valuemax='100' "
        f"aria-valuenow='{percent:.0f}'><div style='width:{percent:.1f}%'></div></div>"
    )


def bubble(role: str, content: str, speaker: str = "", kind: str = "") -> str:
    """One turn of a conversation, its line breaks kept."""
    who = text(speaker or SPEAKERS.get(role, role))
    testid = "bot" if role == "assistant" else text(role)
    return (
        f"<div class='ft-turn {text(role)} {text(kind)}'><div class='who'>{who}</div>"
        f"<div class='content' data-testid='{testid}'>{text(content)}</div></div>"
    )


def row(example: Example, number: int) -> str:
    """One row of a dataset as it will be learned."""
    line = f" · line {example.line:,}" if example.line else ""
    tools = f" · {len(example.tools)} tools" if example.tools else ""
    return f"<section class='ft-row'><h4>Row {number:,}{line}{tools}</h4>{turns(example)}</section>"


def turns(example: Example) -> str:
    """The conversation of a row, or its text."""
    if example.text is not None:
        return bubble("text", _cut(example.text), "Text, learned whole")
    return "".join(_turn(message) for message in example.messages)


def _turn(message: Message) -> str:
    speaker = SPEAKERS[message.role] + (f" {message.name}" if message.name else "")
    if message.weight == 0:
        speaker += " · read, not learned"
    thought = f"[thinks] {message.reasoning_content}" if message.reasoning_content else ""
    return bubble(message.role, _cut("\n".join(filter(None, [thought, said(message)]))), speaker)


def said(message: Message) -> str:
    """What a turn says, and what it calls."""
    parts = [message.content] if message.content else []
    for call in message.tool_calls or []:
        function = call.get("function", call)
        parts.append(f"→ {function.get('name')}({json.dumps(function.get('arguments', {}), ensure_ascii=False)})")
    return "\n".join(parts)


def _cut(content: str, limit: int = 4000) -> str:
    more = len(content) - limit
    return content if more <= 0 else f"{content[:limit]} … and {more:,} more characters"


def link(url: str) -> str:
    """A link that opens in a new tab; anything but http(s) stays text."""
    if urlsplit(url).scheme not in ("http", "https"):
        return text(url)
    return f"<a href='{text(url)}' target='_blank' rel='noopener noreferrer'>{text(url)}</a>"


def quantity(number: float) -> str:
    """A count in three digits: 950, 1.2 K, 3.7 M, 8 B."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " K")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 999.5 * size else f"{number / size:,.0f}{unit}"
    return f"{number:.0f}"


def size(bytes: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if bytes < 1024:
            return f"{bytes:.0f} {unit}" if unit == "B" else f"{bytes:.1f} {unit}"
        bytes /= 1024
    return f"{bytes:.1f} GiB"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
