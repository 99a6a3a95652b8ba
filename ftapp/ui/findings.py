"""What an evaluation found, in HTML: verdict, figures, answers side by side; the Evaluate tab alone calls it."""

from collections.abc import Sequence

from ftapp.contract.evaluation import (
    HIGHER_IS_BETTER,
    MEASURES,
    NAMES,
    Answer,
    AnsweredRow,
    Contestant,
    EvaluationReport,
    Measure,
)
from ftapp.contract.findings import ORDER, about, compared_table, figure_of, measured, number
from ftapp.ui import markup

LEVELS = {"helped": "success", "prompting": "info", "not_needed": "info"}
SORTS = {
    "best": "Most improved first",
    "worst": "Least improved first",
    "wrong": "Still wrong",
    "order": "As drawn",
}
PAGE = 10
SHOWN = 600
"""Characters of an answer."""


def verdict(report: EvaluationReport) -> str:
    """The sentence that it all comes to, and what else to know."""
    level = LEVELS.get(report.verdict.kind, "warning")
    remarks = "".join(f"<li>{markup.text(remark)}</li>" for remark in report.verdict.remarks)
    return (
        f"<section class='ft-verdict {level}' role='status'><p>{markup.text(report.verdict.sentence)}</p>"
        f"{f'<ul>{remarks}</ul>' if remarks else ''}</section>"
    )


def figures(report: EvaluationReport) -> str:
    """The table of figures, with the differences that are real, and what all that is of."""
    headings, rows = compared_table(report)
    text = markup.table(headings, rows, "Figures of the evaluation", "figures")
    return _bars(report) + text + f"<p class='ft-small'>{markup.text('; '.join(about(report)))}.</p>"


def _bars(report: EvaluationReport) -> str:
    """The first two shares, or the overlap, as bars with their intervals."""
    taken = [name for name in measured(report) if name in HIGHER_IS_BETTER and name != "stopped"][:3]
    groups = "".join(_group(report, measure) for measure in taken)
    return f"<div class='ft-intervals'>{groups}</div>" if groups else ""


def _group(report: EvaluationReport, measure: Measure) -> str:
    scale = 1.0 if measure == "overlap" else 100.0
    lines = []
    for name in ORDER:
        scores = report.of(name)
        if scores is None or (figure := figure_of(scores, measure)) is None:
            continue
        value, low, high = (max(0.0, min(100.0, scale * end)) for end in (figure.value, figure.low, figure.high))
        lines.append(
            f"<div class='line {name}'><span class='who'>{markup.text(NAMES[name])}</span><span class='track'>"
            f"<i style='width:{value:.1f}%'></i><b style='left:{low:.1f}%;width:{high - low:.1f}%'></b></span>"
            f"<span class='much'>{markup.text(number(measure, figure.value))}</span></div>"
        )
    return f"<figure><figcaption>{markup.text(MEASURES[measure])}</figcaption>{''.join(lines)}</figure>"


def ordered(rows: Sequence[AnsweredRow], by: str, against: Contestant) -> list[AnsweredRow]:
    """Rows by how much better the tuned model's answer is than another's; or those that it still gets wrong."""
    if by == "wrong":
        return [row for row in rows if not row.answers["tuned"].exact]
    if by == "order":
        return list(rows)
    return sorted(rows, key=lambda row: _gain(row, against), reverse=by == "best")


def _gain(row: AnsweredRow, against: Contestant) -> tuple[float, float]:
    """How much better the tuned model did on a row: by its answer, then by the loss of the right one."""
    tuned, other = row.answers["tuned"], row.answers.get(against, row.answers["base"])
    right = 100.0 * (tuned.exact - other.exact) + tuned.overlap - other.overlap
    return right, other.loss / max(1, other.tokens) - tuned.loss / max(1, tuned.tokens)


def answers(rows: Sequence[AnsweredRow], start: int) -> str:
    """A page of rows with the right answer and all contestants' side by side."""
    page = rows[start : start + PAGE]
    if not page:
        return markup.empty("No such answers.", "Choose another order.")
    taking_part = [name for name in ORDER if name in page[0].answers]
    talks = page[0].answers["base"].text is not None
    heads = ["Question", "Right answer"] if talks else ["Text"]
    head = "".join(f"<th scope='col'>{markup.text(name)}</th>" for name in [*heads, *(NAMES[n] for n in taking_part)])
    body = ""
    for row in page:
        asked = f"<td><span class='number'>{row.row}</span>{_text(row.question)}</td>" if talks else ""
        cells = "".join(_cell(row.answers[name], name) for name in taking_part)
        body += f"<tr>{asked}<td>{_text(row.reference)}</td>{cells}</tr>"
    return (
        "<div class='ft-table answers' role='region' aria-label='Answers side by side' tabindex='0'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(answer: Answer, name: Contestant) -> str:
    loss = answer.loss / max(1, answer.tokens)
    if answer.text is None:
        return f"<td class='{name}'>loss {loss:.3f}</td>"
    mark = "<span class='right' title='exactly right'>✓ right</span>" if answer.exact else f"chrF {answer.overlap:.0f}"
    cut = "" if answer.stopped else " · cut at the limit"
    text = _text(answer.text) or "<em>(nothing)</em>"
    return f"<td class='{name}'>{text}<div class='how'>{mark}{cut} · loss {loss:.3f}</div></td>"


def _text(content: str) -> str:
    more = len(content) - SHOWN
    return markup.text(content if more <= 0 else f"{content[:SHOWN]} … and {more:,} more characters")
