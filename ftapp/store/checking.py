"""Rows → batches of canonical lines with what is worth knowing about each; a stretch of a file may be done alone."""

import json
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import xxhash

from ftapp.contract.examples import ProblemKind, RowProblem
from ftapp.contract.formats import Format, Mapping, recognise, to_canonical, written
from ftapp.contract.report import Edit, Problem
from ftapp.contract.turns import Turn, check_turns, is_whole, repair
from ftapp.store.readers import EXCERPT, Row, Source, read_source

BATCH_BYTES = 4 * 2**20
PROBLEMS_PER_BATCH = 5_000
MESSAGE_LIMIT = 250
"""Characters; a message may quote a value from the file."""
COLUMNS_KEPT = 200
SHORT_ANSWER_WORDS = 3
FACT_WORDS, FACT_CHARACTERS = 25, 250
"""An answer of more words or characters states no single fact."""
SHORT_ROW_WORDS = 40
"""Up to here rows are compared by their word triples, from here on by their words."""
PERMUTATIONS = 64
SHORT, SAME_ROLE, SYSTEM, QUESTION, FACT, TEXT = 1, 2, 4, 8, 16, 32
"""Flags of a row."""
# fmt: off
QUESTION_WORDS = frozenset(
    ["what", "who", "whom", "whose", "when", "where", "which", "why", "how", "is", "are", "was", "were", "do",
     "does", "did", "can", "could", "will", "would", "should", "wer", "wann", "wo", "wie", "warum", "welche",
     "welcher", "qui", "quand", "où", "comment", "pourquoi", "quel", "quelle", "qué", "quién", "cuándo", "dónde",
     "cómo"]
)
# fmt: on


@dataclass(frozen=True)
class Task:
    """One stretch of work: what to read, and how."""

    source: Source
    mapping: Mapping | None = None
    repairs: frozenset[str] = frozenset()
    drop_short: bool = False
    only: Format | None = None
    """When texts and conversations are mixed: what most rows are; the others are problems."""
    signatures: int = 0
    """Of how many rows, the first ones, to compute what near-duplicates are found by."""


@dataclass
class Batch:
    """Some rows, checked; numbers of rows and lines count from the start of the task."""

    position: int = 0
    """Bytes of the file read so far, from the start of the task."""
    rows: int = 0
    last_line: int = 0
    """Line of the task that the last row stands on."""
    lines: bytearray = field(default_factory=bytearray)
    """The usable rows, canonical, one JSON object a line."""
    part: str = ""
    """The file that the lines of this batch, and of the task's earlier ones, were written to instead."""
    problems: list[Problem] = field(default_factory=list)
    problem_kinds: Counter[ProblemKind] = field(default_factory=Counter)
    formats: Counter[Format] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    unknown: list[dict[str, Any]] = field(default_factory=list)
    """A few rows that were not recognised, to guess a mapping from."""
    left_out: Counter[Edit] = field(default_factory=Counter)
    numbers: "array[int]" = field(default_factory=lambda: array("i"))
    """Per usable row from here on: its number."""
    places: "array[int]" = field(default_factory=lambda: array("i"))
    """Its line."""
    sizes: "array[int]" = field(default_factory=lambda: array("i"))
    """Bytes of its canonical line."""
    lengths: "array[int]" = field(default_factory=lambda: array("i"))
    """Characters of its last answer."""
    flags: "array[int]" = field(default_factory=lambda: array("B"))
    prompts: "array[int]" = field(default_factory=lambda: array("Q"))
    """Hash of all that comes before the last answer, normalised."""
    answers: "array[int]" = field(default_factory=lambda: array("Q"))
    """Hash of the last answer, normalised."""
    groups: "array[int]" = field(default_factory=lambda: array("Q"))
    """Hash of the first prompt, normalised: rows that share it stay on one side of a split."""
    signatures: "array[int]" = field(default_factory=lambda: array("I"))
    """MinHash of the row's words, PERMUTATIONS values a row."""


def normal(text: str) -> str:
    """A text without what makes no difference to a reader: case, spaces and line breaks, forms of one character."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    # splitting and joining is the dearest step of a check, and most texts do not need it
    return " ".join(text.split()) if "  " in text or "\n" in text or "\t" in text or "\r" in text else text.strip()


def key(text: str) -> int:
    """A hash of 64 bits, the same in every process (XXH3)."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def batches(task: Task) -> Iterator[Batch]:
    """Read and check; raises DatasetError if the file is unusable as a whole."""
    batch, signed = Batch(), 0
    plain = not task.repairs and task.only is None and task.mapping is None
    shingles: list[list[str]] = []
    for row in read_source(task.source):
        batch.rows += 1
        batch.last_line = row.line
        try:
            if plain and row.value and _is_plain(row.value):
                batch.formats["messages"] += 1
                batch.columns["messages"] = None
                canonical = row.value
            else:
                canonical = _canonical(row, task, batch)
                check_turns(canonical)
            _measure(canonical, row, task, batch, shingles if signed + len(shingles) < task.signatures else None)
        except RowProblem as problem:
            _note(batch, row, problem)
        if len(batch.lines) > BATCH_BYTES or len(batch.problems) >= PROBLEMS_PER_BATCH:
            yield _closed(batch, task, shingles)
            signed += len(shingles)
            batch, shingles = Batch(), []
    yield _closed(batch, task, shingles)


def _closed(batch: Batch, task: Task, shingles: list[list[str]]) -> Batch:
    batch.position = task.source.position - task.source.start
    batch.signatures = signatures(shingles)
    return batch


def _canonical(row: Row, task: Task, batch: Batch) -> dict[str, Any]:
    value = row.value
    if value is None:
        raise RowProblem(row.problem, row.kind)
    if len(batch.columns) < COLUMNS_KEPT:
        batch.columns.update(dict.fromkeys(map(str, value)))
    if task.mapping is not None:
        batch.formats["mapped"] += 1
        canonical = to_canonical(value, "mapped", task.mapping)
    else:
        format, value = recognise(value)
        batch.formats[format] += 1
        if task.only and format != task.only and format != "unknown" and "text" in (format, task.only):
            raise RowProblem(f"the row looks like {format}, most rows are {task.only}", "other_format")
        if format in ("unknown", "preference") and len(batch.unknown) < 5:
            batch.unknown.append(value)
        canonical = to_canonical(value, format)
    if task.repairs and "messages" in canonical:
        canonical["messages"] = repair(canonical["messages"], task.repairs)
    return canonical


def _is_plain(value: dict[str, Any]) -> bool:
    """Whether the row is one question and one answer, canonical and right already, as most are: this is for speed."""
    turns = value.get("messages")
    if type(turns) is not list or len(turns) != 2 or len(value) != 1:
        return False
    first, second = turns
    if not (type(first) is dict is type(second) and len(first) == 2 == len(second)):
        return False
    if first.get("role") != "user" or second.get("role") != "assistant":
        return False
    asked, said = first.get("content"), second.get("content")
    if not (type(asked) is str is type(said)) or not asked or not said or asked.isspace() or said.isspace():
        return False
    return (asked.isascii() and said.isascii()) or (is_whole(asked) and is_whole(said))


def _note(batch: Batch, row: Row, problem: RowProblem) -> None:
    batch.problem_kinds[problem.kind] += 1
    excerpt = row.excerpt
    if not excerpt and row.value is not None:
        excerpt = json.dumps(_short(row.value), ensure_ascii=False, default=str)
    batch.problems.append(
        Problem(
            row=row.number,
            line=row.line,
            message=_whole(str(problem)[:MESSAGE_LIMIT]),
            kind=problem.kind,
            excerpt=_whole(excerpt[:EXCERPT]),
        )
    )


def _short(value: Any, depth: int = 4) -> Any:
    """The beginning of a value: enough for an excerpt, however large it is."""
    if isinstance(value, str):
        return value[:EXCERPT]
    if isinstance(value, (list, dict)) and not depth:
        return "…"
    if isinstance(value, list):
        return [_short(item, depth - 1) for item in value[:8]]
    if isinstance(value, dict):
        return {str(key)[:40]: _short(item, depth - 1) for key, item in islice(value.items(), 8)}
    return value


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _measure(canonical: dict[str, Any], row: Row, task: Task, batch: Batch, shingles: list[list[str]] | None) -> None:
    """Put a usable row into the batch, with its figures."""
    answer, flags = "", TEXT
    if "text" in canonical:
        group = before = normal(canonical["text"])
    else:
        found: list[Turn] = canonical["messages"]
        answer = normal(found[-1]["content"])
        first = found[0] if found[0]["role"] == "user" else next(turn for turn in found if turn["role"] == "user")
        group = before = normal(first["content"])
        if len(found) > 2 or "tools" in canonical:
            before = normal("\x1e".join([f"{turn['role']} {turn['content']}" for turn in found[:-1]]))
        flags = _flags(found, answer, group)
        if flags & SHORT and task.drop_short:
            batch.left_out["drop_short"] += 1
            return
        if "tool_calls" in found[-1]:
            answer += str(found[-1]["tool_calls"])
    line = written(canonical)
    batch.lines += line
    batch.numbers.append(row.number)
    batch.places.append(min(row.line, 2**31 - 1))
    batch.sizes.append(len(line))
    batch.lengths.append(len(answer))
    batch.flags.append(flags)
    batch.groups.append(hashed := key(group))
    batch.prompts.append(hashed if before is group else key(before))
    batch.answers.append(key(answer))
    if shingles is not None:
        tokens = f"{before} {answer}".split(" ")
        if len(tokens) < SHORT_ROW_WORDS:  # where the order says more than which words there are
            tokens = [f"{a} {b} {c}" for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False)] or tokens
        shingles.append(tokens)


def _flags(found: list[Turn], answer: str, prompt: str) -> int:
    flags = 0
    words = answer.count(" ") + 1 if len(answer) < FACT_CHARACTERS else FACT_WORDS + 1
    words = words if answer else 0
    if words < SHORT_ANSWER_WORDS and "tool_calls" not in found[-1]:
        flags |= SHORT
    if len(found) > 2:
        previous = ""
        for turn in found:
            role = turn["role"]
            if role == previous and role != "tool":
                flags |= SAME_ROLE
            if role == "system":
                flags |= SYSTEM
            previous = role
            content = turn["content"]
            learned = role == "assistant" and "tool_calls" not in turn and turn.get("weight") != 0
            if learned and len(content) < 40 and len(content.split()) < SHORT_ANSWER_WORDS:
                flags |= SHORT
    if prompt.endswith("?") or prompt[: prompt.find(" ")] in QUESTION_WORDS:
        flags |= QUESTION
    if words <= FACT_WORDS:
        said = found[-1]["content"].split()
        if any(word[:1].isupper() for word in said[1:]) or any(c.isdigit() for word in said for c in word):
            flags |= FACT
    return flags


def signatures(shingles: list[list[str]]) -> "array[int]":
    """MinHash of each set of shingles, PERMUTATIONS values each (rensa's R-MinHash)."""
    out = array("I")
    if not shingles:
        return out
    from rensa import RMinHash

    for sketch in RMinHash.from_token_sets(shingles, num_perm=PERMUTATIONS, seed=1):
        out.extend(sketch.digest())
    return out
