"""Who may do what, decided in Studio: visitors look, people stay in their own folder, limits are told in words."""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request

from ftapp.contract.chat import Question
from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import JobError, LimitReached, NotAllowed
from ftapp.contract.events import Finished
from ftapp.contract.examples import Message
from ftapp.contract.publication import PublishConfig
from ftapp.contract.report import HubSource
from ftapp.openid import Account, organisations_in
from ftapp.people import LOCAL, NAME, VISITOR, Access, Person
from ftapp.settings import SignIn, read_settings
from ftapp.studio import Studio
from ftapp.studios import Studios
from ftapp.ui.sign_in import MOST_OF_ONE, Asker, SignInDesk
from tests.running import config_for, end, write_rows

LOOKS = {
    "archive", "artifact_folder", "card", "chat_answers", "chat_checkpoints", "chat_defaults", "chat_runs",
    "chat_state", "checking", "code", "compare", "dataset", "datasets", "demo_config", "duration", "evaluation",
    "evaluation_config", "evaluation_report", "evaluation_rows", "evaluations", "examples", "gpus", "held_out_row",
    "history", "log_tail", "measured_before", "memory", "misfits", "model_facts", "notices", "overlap",
    "parameters", "problems_csv", "publication", "publications", "queue", "recent_models", "rows_from_chat", "run",
    "runs", "search_examples", "votes",
}  # fmt: skip
"""Verbs that show something, to visitors too."""
KEEPS = {
    "close", "close_chat", "close_examiner", "close_idle", "close_preview", "give_way", "leave_page", "make_room",
    "make_way", "open_page", "sweep", "use_token",
}  # fmt: skip
"""What the app itself calls, on behalf of nobody."""


def test_every_verb_is_for_looking_or_asks_who_may_act() -> None:
    verbs = {name: verb for name, verb in inspect.getmembers(Studio, inspect.isfunction) if not name.startswith("_")}
    acting = {name for name, verb in verbs.items() if getattr(verb, "acts", False)}
    assert sorted(set(verbs) - acting - LOOKS - KEEPS) == []
    assert sorted(acting & (LOOKS | KEEPS)) == []
    assert sorted((LOOKS | KEEPS) - set(verbs)) == []
    visitor = Studio(read_settings(), VISITOR)
    for name in acting:
        given = [
            None for one in inspect.signature(getattr(visitor, name)).parameters.values() if one.default is one.empty
        ]
        with pytest.raises(NotAllowed, match="a demo to look at"):
            getattr(visitor, name)(*given)


def test_a_visitor_sees_the_demo_alone(tmp_path: Path) -> None:
    visitor = Studio(read_settings(), VISITOR)
    assert [info.id for info in visitor.datasets()] == ["demo"]
    assert visitor.memory(visitor.demo_config()).verdict
    config = visitor.demo_config()
    for id in ("Qwen/Qwen3-0.6B", str(tmp_path)):
        with pytest.raises(NotAllowed):
            visitor.memory(config.model_copy(update={"model": config.model.model_copy(update={"id": id})}))


def test_a_visitor_sees_the_demo_trained_and_evaluated() -> None:
    visitor = Studios(read_settings()).of(VISITOR)
    [run] = visitor.runs()
    assert (run.status, run.has_result) == ("finished", False)
    assert run.state.metrics
    assert run.state.evaluations
    assert run.state.samples
    report = visitor.evaluation_report(run.name, "1")
    assert report
    assert report.rows == len(visitor.evaluation_rows(run.name, "1"))
    assert report.verdict


def test_folders_of_a_shared_machine_are_no_models(tmp_path: Path) -> None:
    settings = read_settings()
    ann = Studio(settings, Person("ann", shared=True))
    rows = ann.add_dataset(write_rows(tmp_path / "rows.jsonl"), "rows.jsonl").id
    other = settings.home / "bob" / "runs" / "x" / "model"
    other.mkdir(parents=True)
    link = settings.home / "ann" / "link"
    link.symlink_to(other)
    for folder in (other, link, settings.home / "ann" / ".." / "bob" / "runs" / "x" / "model", Path("/")):
        config = parse_run_config({"model": {"id": str(folder)}, "data": {"dataset": rows}})
        with pytest.raises(NotAllowed, match="a folder on this machine"):
            ann.start_training(config)
        with pytest.raises(NotAllowed):
            ann.memory(config)
        with pytest.raises(NotAllowed):
            ann.model_facts(config.model)
        with pytest.raises(NotAllowed):
            ann.token_rows(rows, config.model)
    for name in ("../bob/runs/x", "/etc", "..", ".x"):
        with pytest.raises(JobError):
            ann.run(name)
    with pytest.raises(JobError):
        ann.publish(PublishConfig(run="../bob", folder="/tmp/out"))


def test_limits_are_told_in_words(tmp_path: Path) -> None:
    settings = replace(read_settings(), max_runs=1)
    studio = Studio(settings)
    rows = studio.add_dataset(write_rows(tmp_path / "rows.jsonl"), "rows.jsonl").id
    config = parse_run_config({"model": {"id": "demo"}, "data": {"dataset": rows}})
    waiting = studio._jobs.create(config)
    with pytest.raises(
        LimitReached, match="You have 1 runs and evaluations waiting or at work, the most that are allowed here"
    ):
        studio.start_training(config)
    studio.unqueue(waiting.name)
    used = sum(path.stat().st_size for path in studio.folder.rglob("*") if path.is_file())
    full = Studio(replace(settings, max_disk_bytes=used - 1))
    with pytest.raises(LimitReached, match="MiB is the most that is allowed here"):
        full.start_training(config)
    with pytest.raises(LimitReached, match=r"and this needs 0 MiB.*Delete datasets or runs"):
        full.add_dataset(write_rows(tmp_path / "more.jsonl", 5), "more.jsonl")


def test_two_at_once_do_not_both_find_room(tmp_path: Path) -> None:
    studio = Studio(replace(read_settings(), max_runs=1))
    rows = studio.add_dataset(write_rows(tmp_path / "rows.jsonl"), "rows.jsonl").id
    config = parse_run_config({"model": {"id": "demo"}, "data": {"dataset": rows}})
    with ThreadPoolExecutor() as pool:
        with studio.turn:  # as if another of this person's requests were just making a run
            second = pool.submit(studio.start_training, config)
            wait([second], 0.5)
            assert not studio.runs()
            waiting = studio._jobs.create(config)
        with pytest.raises(LimitReached):
            second.result(30)
    studio.unqueue(waiting.name)


def test_two_people_do_not_both_find_room_for_a_chat(tmp_path: Path) -> None:
    studios = Studios(read_settings())
    ann, bob = studios.of(Person("ann", shared=True)), studios.of(Person("bob", shared=True))
    job = end(ann._jobs.create(config_for(ann, tmp_path / "no-model", tmp_path)), Finished(artifact="adapter"))
    (job.folder / "adapter").mkdir()
    with ThreadPoolExecutor() as pool:
        with bob.scheduler.one_chat:  # as if bob's were just being put into memory
            asked = pool.submit(ann.chat, job.name, Question(messages={"tuned": [Message(role="user", content="?")]}))
            wait([asked], 0.5)
            assert not ann.chat_state().held
        asked.result(30)
        assert ann.chat_state().held
        ann.close_chat()


def test_visitors_pages_are_not_counted() -> None:
    visitor, ann = Studio(read_settings(), VISITOR), Studio(read_settings(), Person("ann"))
    for one in (visitor, ann):
        one.open_page("x")
    assert (len(visitor._pages), len(ann._pages)) == (0, 1)


def test_a_download_that_there_is_no_room_for_is_not_begun() -> None:
    studio = Studio(replace(read_settings(), max_disk_bytes=2**20))
    with pytest.raises(LimitReached, match="and this needs 2 MiB"):
        studio.hold_hub_dataset(HubSource(id="a/b", revision="main", files=["x.jsonl"], bytes=2**21))


def _desk(address: str | None) -> tuple[SignInDesk, Callable[..., Asker]]:
    known = SignIn("id", "secret", "openid", "http://127.0.0.1:9", address, ("ann", "eve", "local"))
    desk = SignInDesk(known, Studios(read_settings()))

    def asker(**cookies: str) -> Asker:
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return desk.asker(Request({"type": "http", "headers": [(b"cookie", cookie.encode())]}))

    return desk, asker


def _account(name: str, expires: float = 1e12) -> Account:
    return Account(name, f"id-of-{name}", [], f"hf_{name}", expires)


def test_a_cookie_counts_only_under_a_name_that_no_neighbour_can_give() -> None:
    for address, name, other in (
        ("a-b.hf.space", "__Host-ftapp_session", "ftapp_session"),
        (None, "ftapp_session", "__Host-ftapp_session"),
    ):
        desk, asker = _desk(address)
        number = desk._remember(desk._accounts, _account("ann"))
        assert asker(**{name: number}).account == "ann"
        assert asker(**{other: number}).person == VISITOR


def test_who_is_called_as_the_machine_itself_is_not_let_in() -> None:
    desk, asker = _desk(None)
    assert asker(ftapp_session=desk._remember(desk._accounts, _account(LOCAL.name))).person == VISITOR


def test_an_accounts_sign_ins_do_not_push_out_anothers() -> None:
    desk, asker = _desk(None)
    anns = desk._remember(desk._accounts, _account("ann"))
    over = desk._remember(desk._accounts, _account("ann", expires=1.0))
    eves = []
    for _ in range(MOST_OF_ONE + 5):
        desk._forget(Request({"type": "http", "headers": []}), _account("eve"))
        eves.append(desk._remember(desk._accounts, _account("eve")))
    assert asker(ftapp_session=anns).account == "ann"
    assert [bool(asker(ftapp_session=one).account) for one in eves] == [False] * 5 + [True] * MOST_OF_ONE
    assert over not in desk._accounts


def test_an_organisation_counts_by_its_address_alone() -> None:
    told = [{"name": "lab"}, {"name": "lab", "preferred_username": "eves"}, {"preferred_username": "club"}]
    assert organisations_in({"orgs": told}) == ["eves", "club"]
    assert organisations_in({"orgs": None}) == organisations_in({}) == []


def test_who_is_let_in() -> None:
    access = Access.of("Owner", " lab ", "")
    assert access.lets_in("owner", [])
    assert access.lets_in("eve", ["x", "Lab"])
    assert not access.lets_in("eve", ["laboratory"])
    assert not Access.of().lets_in("", [""])
    assert not [name for name in (LOCAL.name,) if not NAME.fullmatch(name)]
    for name in (VISITOR.name, "..", ".hidden", "a/b", "", "-x", "x" * 100):
        assert not NAME.fullmatch(name), name


def test_a_name_that_another_account_had_before_opens_nothing() -> None:
    studios = Studios(read_settings())
    ann = Person("ann", shared=True)
    studios.signed_in(ann, "id-1", "hf_first")
    studios.signed_in(ann, "id-1", "hf_second")
    assert studios.of(ann).settings.hub_token == "hf_second"
    with pytest.raises(NotAllowed, match="Another account was called ann before"):
        studios.signed_in(ann, "id-2", "hf_third")
    assert studios.of(ann).settings.hub_token == "hf_second"
    assert "hf_second" not in "".join(path.read_text() for path in studios.settings.home.rglob("*") if path.is_file())


def test_the_installations_token_is_only_its_owners() -> None:
    studios = Studios(replace(read_settings(), hub_token="hf_owner"))
    assert studios.of(LOCAL).settings.hub_token == "hf_owner"
    assert studios.of(VISITOR).settings.hub_token is None
    assert studios.of(Person("ann", shared=True)).settings.hub_token is None
