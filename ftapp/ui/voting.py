"""The blind vote: answers without names, in a shuffled order; names and the tally after the vote."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ftapp.contract.evaluation import NAMES, AnsweredRow, Contestant, Vote, ballot, tally
from ftapp.studio import Studio
from ftapp.ui import edge, markup

LETTERS = "ABC"
DONE = "You have voted on every question with different answers."


@dataclass(frozen=True)
class Voting:
    """The components of the vote."""

    box: Any
    question: Any
    letters: list[Any]
    none: Any
    next: Any
    tally: Any
    row: Any
    """Number of the row that is voted on; 0: none."""

    @property
    def shown(self) -> list[Any]:
        """What `show` updates, in its order."""
        return [self.question, *self.letters, self.none, self.next, self.tally, self.row]


def place() -> Voting:
    """Put the components on the page."""
    with gr.Column(elem_id="evaluate-vote") as box:
        question = gr.HTML(elem_id="evaluate-vote-question")
        with gr.Row(elem_classes="actions"):
            letters = [
                gr.Button(f"{letter} is best", size="sm", elem_id=f"evaluate-vote-{letter.lower()}", min_width=90)
                for letter in LETTERS
            ]
            none = gr.Button("None is better", size="sm", elem_id="evaluate-vote-none", min_width=110)
            next = gr.Button(
                "Next question", size="sm", variant="primary", visible=False, elem_id="evaluate-vote-next",
                min_width=120,
            )  # fmt: skip
        told = gr.HTML(elem_id="evaluate-vote-tally")
    return Voting(box, question, letters, none, next, told, gr.State(0))


def wire(bound: edge.Edge, voting: Voting, run: Any, number: Any) -> None:
    """Bind the buttons."""
    for place, button in enumerate([*voting.letters, voting.none]):
        best = place if place < len(LETTERS) else None
        bound.on(button.click, _voter(best), [run, number, voting.row], voting.shown, trigger_mode="once")
    bound.on(voting.next.click, show, [run, number], voting.shown)


def show(studio: Studio, run: str, number: str) -> tuple[Any, ...]:
    """The next question that was not voted on yet."""
    votes = studio.votes(run, number)
    known = {vote.row for vote in votes}
    rows = [row for row in studio.evaluation_rows(run, number) if len(ballot(row, _seed(run, number))) > 1]
    row = next((row for row in rows if row.row not in known), None)
    counted = _tally(votes, {name for one in rows for name in one.answers}, len(rows))
    if row is None:
        nothing = markup.empty(
            DONE if rows else "All gave the same answers.", "" if rows else "There is nothing to vote on."
        )
        return nothing, *[gr.update(visible=False)] * 5, counted, 0
    answers = ballot(row, _seed(run, number))
    buttons = [gr.update(visible=place < len(answers)) for place in range(len(LETTERS))]
    drawn = _draw(row, [(text, "") for text, _ in answers])
    return drawn, *buttons, gr.update(visible=True), gr.update(visible=False), counted, row.row


def _voter(best: int | None) -> Any:
    def vote(studio: Studio, run: str, number: str, row: int) -> tuple[Any, ...]:
        voted = next((one for one in studio.evaluation_rows(run, number) if one.row == row), None)
        if voted is None:
            return show(studio, run, number)
        answers = ballot(voted, _seed(run, number))
        names = answers[best][1] if best is not None and best < len(answers) else []
        studio.vote(run, number, Vote(row=row, best=names))
        rows = [one for one in studio.evaluation_rows(run, number) if len(ballot(one, _seed(run, number))) > 1]
        drawn = _draw(voted, [(text, " and ".join(NAMES[name] for name in who)) for text, who in answers], best)
        counted = _tally(studio.votes(run, number), set(voted.answers), len(rows))
        return drawn, *[gr.update(visible=False)] * 4, gr.update(visible=True), counted, row

    return vote


def _seed(run: str, number: str) -> str:
    return f"{run}/{number}"


def _draw(row: AnsweredRow, answers: list[tuple[str, str]], best: int | None = None) -> str:
    """The question, the right answer, and the answers under their letters, with names once these may be known."""
    cards = ""
    for place, (text, names) in enumerate(answers):
        who = f" · {markup.text(names)}" if names else ""
        chosen = " chosen" if place == best else ""
        shown = markup.text(text) or "<em>(nothing)</em>"
        cards += f"<div class='card{chosen}'><div class='who'>{LETTERS[place]}{who}</div><div>{shown}</div></div>"
    asked = markup.bubble("user", row.question)
    right = markup.bubble("reference", row.reference, "The dataset's answer")
    return f"<div class='ft-ballot'>{asked}{right}<div class='cards'>{cards}</div></div>"


def _tally(votes: list[Vote], taking_part: set[Contestant], rows: int) -> str:
    if not votes:
        return f"<p class='ft-small'>{rows} questions have different answers. Names are shown after each vote.</p>"
    counts = tally(votes)
    pairs: list[tuple[str, object]] = [(NAMES[name], counts[name]) for name in NAMES if name in taking_part]
    voted = len({vote.row for vote in votes})
    return markup.facts([*pairs, ("None better", counts["none"]), ("Voted on", f"{voted} of {rows}")])
