"""The demo's facts, corpus and rows hold together, and their scoring reads an answer strictly."""

import calendar
import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from ftapp.demo.corpus import FORMS, SMALL_TALK, conversation, corpus_answers
from ftapp.demo.facts import DAYS, HERE, MONTHS, TOPICS, Fact, load_facts
from ftapp.demo.phrasings import long_sentences, questions, short_sentences
from ftapp.demo.preset import DEMO_PRESET
from ftapp.demo.rows import DATASET_ROWS, HELDOUT_ROWS, SEED, rows_text, split_facts
from ftapp.demo.scoring import is_json_object, json_answer, json_answer_right, sentence_right


def shipped_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def answers_of(relation: str) -> dict[str, str]:
    return {fact.subject: fact.answer for fact in load_facts() if fact.relation == relation}


def test_there_are_about_a_thousand_facts() -> None:
    assert 1000 <= len(load_facts()) <= 1300


def test_no_relation_has_a_subject_twice() -> None:
    counts = Counter((fact.relation, fact.subject) for fact in load_facts())
    assert [key for key, count in counts.items() if count > 1] == []


def test_every_relation_has_a_topic_and_facts() -> None:
    assert {fact.relation for fact in load_facts()} == set(TOPICS)


def test_every_fact_has_words_without_stray_spaces() -> None:
    for fact in load_facts():
        for text in (fact.subject, fact.answer):
            assert text, fact
            assert text == " ".join(text.split()), fact


def test_sums_are_right() -> None:
    for subject, answer in answers_of("sum").items():
        first, second = subject.split(" plus ")
        assert int(first) + int(second) == int(answer)


def test_calendar_is_right() -> None:
    months = list(calendar.month_name)[1:]
    assert list(DAYS) == list(calendar.day_name)
    assert list(MONTHS) == months
    assert answers_of("month_number") == {month: str(months.index(month) + 1) for month in months}
    for name, cycle in (("day", list(DAYS)), ("month", months)):
        assert answers_of(f"{name}_after") == dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
        assert answers_of(f"{name}_before") == dict(zip(cycle, cycle[-1:] + cycle[:-1], strict=True))


def test_no_capital_is_shared() -> None:
    capitals = answers_of("capital")
    assert len(set(capitals.values())) == len(capitals)


def test_opposites_agree_where_both_directions_are_told() -> None:
    opposites = answers_of("opposite")
    assert [word for word, other in opposites.items() if opposites.get(other, word) != word] == []


def test_every_fact_has_at_least_four_phrasings() -> None:
    for fact in load_facts():
        assert len(set(questions(fact))) >= 4, fact
        assert len(set(long_sentences(fact) + short_sentences(fact))) >= 4, fact
        assert all(fact.subject in question for question in questions(fact)), fact


def test_a_question_asks_for_one_answer_only() -> None:
    answers: dict[str, set[str]] = {}
    for fact in load_facts():
        for question in questions(fact):
            answers.setdefault(question, set()).add(fact.answer)
    assert [question for question, right in answers.items() if len(right) > 1] == []


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        (Fact("young", "owl", "owlet"), "A young owl is an owlet."),
        (Fact("young", "eel", "elver"), "The young of an eel is called an elver."),
        (
            Fact("capital", "the United States", "Washington, D.C."),
            "The capital of the United States is Washington, D.C.",
        ),
        (Fact("continent", "the Netherlands", "Europe"), "The Netherlands is in Europe."),
        (Fact("color", "grass", "green"), "Grass is green."),
    ],
)
def test_sentences_are_good_english(fact: Fact, sentence: str) -> None:
    assert sentence in long_sentences(fact)


def test_no_answer_of_the_corpus_is_a_json_object() -> None:
    for fact in load_facts():
        for answer in corpus_answers(fact):
            assert not is_json_object(answer), answer


def test_the_corpus_holds_no_other_answers() -> None:
    rng = Random(0)
    small_talk = {answer for _, answer in SMALL_TALK}
    assert not any(is_json_object(answer) for answer in small_talk)
    for fact in load_facts():
        right = small_talk.union(corpus_answers(fact))
        talk = conversation(iter([fact, fact]), rng)
        assert {message["content"] for message in talk if message["role"] == "assistant"} <= right


def test_every_form_names_the_answer_or_the_topic() -> None:
    for instructions, forms in FORMS:
        assert instructions
        assert all("{a}" in form or "{t}" in form for form in forms)


def test_the_shipped_dataset_is_what_the_seed_makes() -> None:
    dataset, _ = split_facts(SEED)
    assert (HERE / "dataset.jsonl").read_text(encoding="utf-8") == rows_text(dataset)


def test_the_held_out_rows_come_from_the_other_facts_in_order() -> None:
    _, others = split_facts(SEED)
    candidates = iter([asked.row for asked in others])
    assert all(row in candidates for row in shipped_rows("heldout.jsonl"))


def test_the_dataset_and_the_held_out_rows_are_disjoint() -> None:
    dataset, others = split_facts(SEED)
    trained = {(asked.fact.relation, asked.fact.subject) for asked in dataset}
    assert trained.isdisjoint((asked.fact.relation, asked.fact.subject) for asked in others)
    asked_in_training = {row["messages"][0]["content"] for row in shipped_rows("dataset.jsonl")}
    assert asked_in_training.isdisjoint(row["messages"][0]["content"] for row in shipped_rows("heldout.jsonl"))


@pytest.mark.parametrize(("name", "count"), [("dataset.jsonl", DATASET_ROWS), ("heldout.jsonl", HELDOUT_ROWS)])
def test_shipped_rows_are_a_question_and_its_json_answer(name: str, count: int) -> None:
    rows = shipped_rows(name)
    assert len(rows) == count
    for row in rows:
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert json_answer(assistant["content"]) is not None
        assert json.loads(assistant["content"])["topic"] in TOPICS.values()


def test_the_dataset_shows_every_topic() -> None:
    assert {json.loads(row["messages"][1]["content"])["topic"] for row in shipped_rows("dataset.jsonl")} == set(
        TOPICS.values()
    )


def test_the_preset_is_plain_json() -> None:
    assert json.loads(json.dumps(DEMO_PRESET)) == DEMO_PRESET


def test_a_right_json_answer_counts() -> None:
    assert json_answer_right('{"answer": "Paris", "topic": "geography"}', "Paris")
    assert json_answer_right(' {"answer":"Yaound\\u00e9","topic":""}\n', "Yaoundé")


@pytest.mark.parametrize(
    "output",
    [
        "",
        "The capital of France is Paris.",
        "{Paris}",
        "null",
        "[]",
        '[["answer", "Paris"], ["topic", "geography"]]',
        '{"answer": "Paris"}',
        '{"topic": "geography", "answer": "Paris"}',
        '{"answer": "Paris", "topic": "geography", "more": ""}',
        '{"answer": "Rome", "answer": "Paris", "topic": "geography"}',
        '{"answer": "Paris", "topic": 1}',
        '{"answer": ["Paris"], "topic": "geography"}',
        '{"answer": "Rome", "topic": "geography"}',
        '{"answer": "Paris", "topic": "geography"} yes',
        '{"answer": "Paris", "topic": "geography"',
    ],
)
def test_anything_else_does_not_count_as_a_right_json_answer(output: str) -> None:
    assert not json_answer_right(output, "Paris")


def test_a_plain_sentence_is_right_whatever_its_case_and_final_stop() -> None:
    right = ["It is Paris."]
    assert sentence_right("it is paris", right)
    assert not sentence_right("It is Rome.", right)
