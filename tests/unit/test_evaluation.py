"""Figures, formats and verdicts against cases worked out by hand, and against other implementations of the same."""

import math
import random
from collections import Counter

import numpy
import pytest

from ftapp.contract import figures
from ftapp.contract.answers import JsonFormat, LabelFormat, ShapeFormat, find_format, in_format, same
from ftapp.contract.errors import ConfigError
from ftapp.contract.evaluation import (
    Answer,
    AnsweredRow,
    Contestant,
    EvaluationReport,
    Verdict,
    Vote,
    ballot,
    parse_evaluate_config,
    tally,
)
from ftapp.contract.examples import Example, Message
from ftapp.contract.findings import card_lines, card_metrics, compared_table
from ftapp.contract.scoring import comparisons_of, scores_of, unrelated_of
from ftapp.contract.verdict import judge
from ftapp.ui import findings
from ftapp.workers.overlap import overlap, spoken
from ftapp.workers.similar import Similar, with_examples, words

# Figures


def test_a_share_has_wilsons_interval() -> None:
    eight = figures.share([True] * 8 + [False] * 2)
    assert (eight.value, round(eight.low, 4), round(eight.high, 4)) == (0.8, 0.4902, 0.9433)
    none = figures.share([False] * 200)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1.96**2 / (200 + 1.96**2))
    assert figures.share([True] * 20).high == 1.0
    for right, n in ((1, 9), (17, 40), (199, 200)):  # by its definition: the shares that the score test does not refuse
        figure = figures.share([True] * right + [False] * (n - right))
        for end in (figure.low, figure.high):
            assert abs(figure.value - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / n))
    assert math.isnan(figures.share([]).value)


def test_a_mean_is_1_96_standard_errors_wide() -> None:
    figure = figures.mean([1.0, 2.0, 3.0, 4.0])
    error = math.sqrt(5 / 3) / 2  # sample variance 5/3, n = 4
    assert figure.value == 2.5
    assert figure.high - figure.value == pytest.approx(1.96 * error)


def test_the_loss_counts_every_token_the_same() -> None:
    # rows of 1 and 3 tokens with losses of 4 and 6 in all: 10 over 4 tokens, not the mean of 4 and 2
    figure = figures.ratio([4.0, 6.0], [1.0, 3.0])
    assert figure.value == 2.5
    # deviations (4 - 2.5 * 1) / 4 = 0.375 and -0.375; times sqrt(2 / 1)
    assert figure.high - figure.value == pytest.approx(1.96 * math.sqrt(2 * 2 * 0.375**2))
    assert figures.perplexity(figure).value == pytest.approx(math.exp(2.5))
    assert figures.perplexity(figures.ratio([1e6], [1.0])).value == math.inf


def test_the_ratios_standard_error_is_that_of_a_bootstrap() -> None:
    chance = numpy.random.default_rng(7)
    tokens = chance.integers(1, 40, 300)
    sums = tokens * chance.gamma(2.0, 0.5, 300)
    figure = figures.ratio(list(map(float, sums)), list(map(float, tokens)))
    drawn = chance.integers(0, 300, (4000, 300))
    spread = (sums[drawn].sum(1) / tokens[drawn].sum(1)).std()
    assert (figure.high - figure.value) / 1.96 == pytest.approx(spread, rel=0.06)


def test_the_interval_of_a_loss_covers_the_truth_as_often_as_it_says() -> None:
    chance = numpy.random.default_rng(3)
    covered = 0
    for _ in range(400):
        tokens = chance.integers(1, 30, 120)
        figure = figures.ratio(list(map(float, tokens * chance.gamma(2.0, 0.5, 120))), list(map(float, tokens)))
        covered += figure.low <= 1.0 <= figure.high
    assert 0.91 <= covered / 400 <= 0.98


def test_a_difference_of_shares_is_paired() -> None:
    one = figures.share_difference([True] * 6 + [False] * 14, [True] * 5 + [False] * 15)
    assert one.value == pytest.approx(0.05)
    # one row gained, none lost, 20 rows: sqrt(1 + 1 - 1/22) / 22
    assert one.standard_error == pytest.approx(math.sqrt(2 - 1 / 22) / 22)
    assert not one.real
    all_of_them = figures.share_difference([True] * 20, [False] * 20)
    assert all_of_them.real
    assert not figures.share_difference([True] * 7, [False] * 7).real, "too few rows"
    # as many gained as lost: no difference, however many
    assert not figures.share_difference([True] * 50 + [False] * 50, [False] * 50 + [True] * 50).real


def test_a_difference_of_losses_is_paired_and_two_standard_errors() -> None:
    rows = 40
    before = [10.0 + (n % 7) for n in range(rows)]
    after = [loss - 1.0 + (0.5 if n % 2 else -0.5) for n, loss in enumerate(before)]
    tokens = [5.0] * rows
    one = figures.ratio_difference(after, tokens, before, tokens)
    # each row changes by -0.5 or -1.5 over 5 tokens: sd 0.1 * sqrt(40/39) around -0.2
    assert one.value == pytest.approx(-0.2)
    assert one.standard_error == pytest.approx(0.1 * math.sqrt(40 / 39) / math.sqrt(40))
    assert one.real
    assert not figures.Difference(value=0.199, standard_error=0.1, rows=40).real
    assert figures.Difference(value=0.2, standard_error=0.1, rows=40).real
    assert not figures.Difference(value=math.nan, standard_error=0.1, rows=40).real


# What answers have in common


def test_json_with_the_same_keys_is_a_format() -> None:
    answers = [f'{{"answer": "{n}", "topic": "x"}}' for n in range(19)]
    wanted = find_format([*answers, "no JSON"])
    assert wanted == JsonFormat(keys=["answer", "topic"])
    assert in_format('{"topic": "y",\n "answer": 3}', wanted)
    for other in ('{"answer": 1}', '{"answer": 1, "topic": 2, "more": 3}', '{"answer": 1, "topic": ', "[1, 2]", ""):
        assert not in_format(other, wanted), other
    assert find_format([*answers, *["no JSON"] * 3]) is None


def test_a_few_labels_are_a_format() -> None:
    wanted = find_format(["positive", "negative", "neutral "] * 8)
    assert isinstance(wanted, LabelFormat)
    assert in_format(" neutral", wanted)
    assert not in_format("Positive, I think", wanted)
    assert find_format([" ".join(["word"] * (n % 5 + 1)) + f" {n}" for n in range(26)]) is None


def test_a_regular_shape_is_a_format() -> None:
    wanted = find_format([f"INV-{n:04d}/{n % 7}" for n in range(40)])
    assert isinstance(wanted, ShapeFormat)
    assert in_format("INV-9999/3", wanted)
    assert not in_format("INV-99/3", wanted)
    assert not in_format("INV-9999/3.", wanted)
    assert find_format([f"{word} {word}" for word in "abcdefghijklmnopqrstuvwxyz"]) is None, "two words are no shape"
    sums = find_format([f"It is {n}." for n in range(20)])
    assert isinstance(sums, ShapeFormat)
    assert in_format("It is 150.", sums)


def test_the_same_is_the_same_value_or_the_same_text() -> None:
    assert same('{"a": 1, "b": "ü"}', '{ "b":"ü","a":1 }')
    assert same("Cafe\u0301  au\nlait", "Café au lait")
    assert not same('{"a": 1, "a": 1}', '{"a": 1}'), "a key twice is not that object"
    assert not same('{"a": 1} ', "{'a': 1}")
    assert not same("yes", "Yes")
    assert not same("NaN", '{"a": NaN}')
    assert not same("", '{"a": 1}')
    assert not same("[" * 100_000, '{"a": 1}'), "deep nesting is only text"


# Overlap and likeness, against other implementations


def chrf(answer: str, right: str, order: int = 6, beta: float = 2.0) -> float:
    """Popović 2015: n-grams without white space, less the orders that one of the texts is too short for."""
    a, b = "".join(answer.split()), "".join(right.split())
    precisions, recalls = [], []
    for n in range(1, order + 1):
        mine = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        theirs = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        if mine and theirs:
            common = sum((mine & theirs).values())
            precisions.append(common / mine.total())
            recalls.append(common / theirs.total())
    if not precisions:
        return 0.0
    p, r = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * (1 + beta**2) * p * r / (beta**2 * p + r) if p + r else 0.0


def test_the_overlap_is_chrf() -> None:
    # "ab" in "abc": precision 1 and 1, recall 2/3 and 1/2: F2 = 5 * 1 * 7/12 / (4 + 7/12)
    assert overlap("ab", "abc") == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12), abs=0.01)
    assert overlap("It is 7.", "It is 7.") == 100
    assert overlap("", "It is 7.") == 0
    chance = random.Random(5)
    for _ in range(200):
        texts = ["".join(chance.choices("abc dé日本", k=chance.randint(1, 30))) for _ in range(2)]
        assert overlap(*texts) == pytest.approx(chrf(*texts), abs=0.01), texts


def test_thinking_is_not_part_of_the_answer() -> None:
    assert spoken("<think>\nwell\n</think>\n\nYes.") == "Yes."
    assert spoken(" No. ") == "No."


def conversation(question: str, answer: str = "ok", **more: object) -> Example:
    return Example.model_validate(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}
    )


def bm25(query: list[str], corpus: list[list[str]], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Robertson's BM25 with Lucene's inverse document frequency, from its formula."""
    mean = sum(map(len, corpus)) / len(corpus)
    scores = []
    for document in corpus:
        score = 0.0
        for word in query:
            found = sum(word in other for other in corpus)
            rarity = math.log(1 + (len(corpus) - found + 0.5) / (found + 0.5))
            times = document.count(word)
            score += rarity * times / (times + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


def test_the_rows_most_like_a_question_are_bm25s() -> None:
    chance = random.Random(1)
    vocabulary = ["river", "mountain", "capital", "sum", "plural", "of", "the", "what", "is", "opposite", "七", "ü"]
    questions = [" ".join(chance.choices(vocabulary, k=chance.randint(2, 9))) for _ in range(60)]
    similar = Similar([conversation(text) for text in questions])
    for query in ("what is the capital", "river river mountain", "plural of ü"):
        scores = bm25(words(query), [words(text) for text in questions])
        found = [turns[0].content for turns in similar.like([Message(role="user", content=query)], 5)]
        best = sorted(scores, reverse=True)[:5]
        assert [scores[questions.index(text)] for text in found] == pytest.approx(best)


def test_words_know_scripts_without_spaces() -> None:
    assert words("What's THE Straße?") == ["what", "s", "the", "strasse"]
    assert words("東京は首都") == ["東", "京", "は", "首", "都"]
    assert words("?!") == []


def test_what_cannot_be_an_example_is_not_shown() -> None:
    useless = [
        Example(text="a plain text about rivers"),
        conversation("rivers?", tools=[{"type": "function", "function": {"name": "look"}}]),
    ]
    assert Similar(useless).like([Message(role="user", content="rivers")], 3) == []
    assert Similar([conversation("!?")]).like([Message(role="user", content="…")], 3) != [], "no words, still a row"


def test_examples_stand_between_the_system_text_and_the_question() -> None:
    near, far = ([*conversation(text).messages] for text in ("near", "far"))
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="now")]
    put = with_examples(turns, [near, far])
    assert [turn.content for turn in put] == ["Be brief.", "far", "ok", "near", "ok", "now"]


# Scores and verdicts


def rows_of(
    right: dict[Contestant, int], n: int = 40, loss: dict[Contestant, float] | None = None
) -> list[AnsweredRow]:
    """So many of n rows answered right by each."""
    loss = loss or dict.fromkeys(right, 2.0)
    return [
        AnsweredRow(
            row=number + 1,
            turns=[Message(role="user", content=f"question {number}")],
            reference=f"right {number}",
            answers={
                name: Answer(
                    loss=loss[name] * 4 + (number % 3) / 10,
                    tokens=4,
                    text=f"right {number}" if number < count else f"{name} is wrong",
                    exact=number < count,
                    overlap=100.0 if number < count else 10.0 + number % 5,
                    in_format=number < count,
                    stopped=True,
                    length=3,
                )
                for name, count in right.items()
            },
        )
        for number in range(n)
    ]


def report_of(
    right: dict[Contestant, int],
    n: int = 40,
    loss: dict[Contestant, float] | None = None,
    unrelated: tuple[float, float] = (3.0, 3.0),
) -> EvaluationReport:
    rows, names = rows_of(right, n, loss), list(right)
    scores = [scores_of(name, rows, True) for name in names]
    comparisons = comparisons_of(names, rows, True)
    before, after = ([(one * 10 + n % 2 / 10, 10) for n in range(20)] for one in unrelated)
    forgotten = unrelated_of(before, after)
    return EvaluationReport(
        run="run", dataset="sums", held_out_by_run=True, rows=n, available=n, examples=4.0, max_new_tokens=36,
        format=JsonFormat(keys=["a|b"]), scores=scores, comparisons=comparisons, unrelated=forgotten,
        verdict=judge(n, 4.0, scores, comparisons, forgotten), seconds=1.0, device="CPU",
    )  # fmt: skip


def verdict_of(base: int, examples: int, tuned: int, n: int = 40, **more: object) -> Verdict:
    return report_of({"base": base, "examples": examples, "tuned": tuned}, n, **more).verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "examples", "tuned", "n", "kind"),
    [
        (0, 10, 38, 40, "helped"),
        (0, 36, 38, 40, "prompting"),  # 36 and 38 of 40: no difference
        (0, 38, 20, 40, "prompting"),
        (2, 36, 3, 40, "prompting"),
        (20, 20, 21, 40, "no_difference"),
        (40, 40, 40, 40, "not_needed"),
        (38, 10, 10, 40, "worse"),
        (0, 0, 5, 5, "too_few"),
        (10, 15, 20, 40, "helped"),  # better than the base, not measurably than the prompt, which is not better either
    ],
)
def test_the_verdict_follows_from_the_figures(base: int, examples: int, tuned: int, n: int, kind: str) -> None:
    verdict = verdict_of(base, examples, tuned, n)
    assert verdict.kind == kind, verdict.sentence


def test_the_verdict_is_a_sentence_with_figures() -> None:
    assert verdict_of(0, 10, 38).sentence == (
        "Fine-tuning helped: 95.0 % (83.5 to 98.6 %) of its 40 answers are exactly right, 0 % for the base as it is "
        "and 25.0 % with 4 examples in the prompt."
    )
    assert "Prompting is enough" in verdict_of(0, 36, 38).sentence
    assert "more or other data is needed" in verdict_of(20, 20, 21).sentence
    assert any("still not right" in remark for remark in verdict_of(0, 2, 16).remarks)
    assert not any("still not right" in remark for remark in verdict_of(0, 2, 38).remarks)


def test_where_hardly_anything_is_exact_the_overlap_decides() -> None:
    rows = rows_of({"base": 0, "tuned": 0})
    better = []
    for row in rows:
        tuned = row.answers["tuned"].model_copy(update={"overlap": 55.0})
        better.append(row.model_copy(update={"answers": row.answers | {"tuned": tuned}}))
    scores = [scores_of(name, better, False) for name in ("base", "tuned")]
    verdict = judge(40, 0, scores, comparisons_of(["base", "tuned"], better, False), unrelated_of([(1, 1)], [(1, 1)]))
    assert verdict.kind == "helped"
    assert "chrF" in verdict.sentence


def test_a_lower_loss_without_better_answers_is_said() -> None:
    report = report_of({"base": 20, "examples": 20, "tuned": 20}, loss={"base": 3.0, "examples": 3.0, "tuned": 1.0})
    assert report.verdict.kind == "no_difference"
    assert any("did learn" in remark for remark in report.verdict.remarks)


def test_what_was_forgotten_is_said() -> None:
    right: dict[Contestant, int] = {"base": 0, "examples": 0, "tuned": 40}
    told = "It forgot something: the loss on unrelated text rose from 3.005 to 4.005 (perplexity × 2.72)."
    assert told in report_of(right, unrelated=(3.0, 4.0)).verdict.remarks
    assert not any("orgot" in remark for remark in report_of(right, unrelated=(3.0, 3.0)).verdict.remarks)


def test_texts_are_judged_by_their_loss() -> None:
    rows = [
        AnsweredRow(
            row=n,
            turns=[],
            reference="text",
            answers={"base": Answer(loss=30 + n % 3, tokens=10), "tuned": Answer(loss=10 + n % 3, tokens=10)},
        )
        for n in range(20)
    ]
    scores = [scores_of(name, rows, False) for name in ("base", "tuned")]
    assert scores[0].exact is None
    comparisons = comparisons_of(["base", "tuned"], rows, False)
    assert [one.measure for one in comparisons] == ["loss"]
    verdict = judge(20, 0, scores, comparisons, unrelated_of([(1, 1)], [(1, 1)]))
    assert verdict.kind == "helped"
    assert "loss" in verdict.sentence


def test_answers_are_put_in_order_by_what_the_training_changed() -> None:
    right: dict[Contestant, int] = {"base": 2, "examples": 3, "tuned": 4}
    rows = rows_of(right, 5)
    worse = rows[0].answers["tuned"].model_copy(update={"text": "bad", "exact": False, "overlap": 1.0})
    rows[0] = rows[0].model_copy(update={"answers": rows[0].answers | {"tuned": worse}})

    def order(by: str, against: Contestant) -> list[int]:
        return [row.row for row in findings.ordered(rows, by, against)]

    assert set(order("best", "base")[:2]) == {3, 4}, "wrong before, right now"
    assert order("best", "base")[-1] == 1
    assert (order("worst", "base")[0], set(order("worst", "base")[-2:])) == (1, {3, 4})
    assert order("best", "examples")[0] == 4, "the third row was right with examples too"
    assert order("wrong", "base") == [1, 5]
    assert order("order", "base") == [1, 2, 3, 4, 5]
    page = findings.answers(findings.ordered(rows, "worst", "base"), 0)
    assert page.index("bad") < page.index("right 1")
    assert "<b>" not in findings.answers([rows[0].model_copy(update={"reference": "<b>"})], 0)


def test_a_report_survives_being_written() -> None:
    report = report_of({"base": 0, "examples": 3, "tuned": 40})
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


AGAINST = ("Tuned", "Tuned against base as it is")


def test_the_card_has_the_figures_and_nothing_that_markdown_acts_on() -> None:
    report = report_of({"base": 0, "examples": 3, "tuned": 40})
    lines = card_lines(report)
    table = [line for line in lines if line.startswith("|")]
    headings, rows = compared_table(report)
    assert [rows[0][headings.index(one)] for one in AGAINST] == ["100 % (91.2 to 100 %)", "+100 points"]
    same = compared_table(report_of({"base": 20, "examples": 20, "tuned": 20}))[1]
    assert {cell for row in same for cell in row[4:]} == {"no difference", ""}
    assert len(table) == len(rows) + 2
    assert all(line.count("|") == len(headings) + 1 for line in table)
    assert "Fine-tuning helped" in lines[0]
    assert "a\\|b" in lines[-1]
    metrics = {one["type"]: one["value"] for one in card_metrics(report)}
    assert metrics["exact_match"] == 100.0
    assert metrics["loss"] == pytest.approx(2.0, abs=0.1)


# The vote


def test_a_ballot_gives_nobody_away_and_joins_the_same_answers() -> None:
    rows = rows_of({"base": 0, "examples": 0, "tuned": 40})
    orders = Counter(tuple(who[0] for _, who in ballot(row, "run/1")) for row in rows)
    assert len(orders) > 3, "the order changes from row to row"
    assert ballot(rows[3], "run/1") == ballot(rows[3], "run/1")
    same_answers = rows_of({"base": 40, "examples": 0, "tuned": 40})
    assert sorted(sorted(who) for _, who in ballot(same_answers[0], "x")) == [["base", "tuned"], ["examples"]]


def test_the_last_vote_on_a_row_counts() -> None:
    votes = [
        Vote(row=1, best=["base"]),
        Vote(row=2, best=["base", "tuned"]),
        Vote(row=1, best=["tuned"]),
        Vote(row=3, best=[]),
    ]
    assert tally(votes) == {"base": 1, "examples": 0, "tuned": 2, "none": 1}


def test_a_wrong_request_is_told_field_by_field() -> None:
    with pytest.raises(ConfigError) as told:
        parse_evaluate_config({"run": "x", "rows": 0, "max_new_tokens": "many"})
    assert told.value.problems["rows"] == "must be at least 1 (got 0)"
    assert "auto" in told.value.problems["max_new_tokens"]
