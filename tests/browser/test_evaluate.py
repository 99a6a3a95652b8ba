"""An evaluation through the page: from the Train tab's button to the verdict, the answers and a blind vote."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ftapp.contract.evaluation import NAMES
from ftapp.settings import Settings
from ftapp.studio import Studio
from tests.browser.conftest import Served
from tests.running import config_for, finish

MINUTES = 60_000


@pytest.fixture
def run(served: Served, tmp_path: Path) -> tuple[Studio, str]:
    from tests.models import make

    studio = Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    name = studio.start_training(config_for(studio, make("llama", tmp_path / "tiny"), tmp_path / "rows"))
    view = finish(studio, name)
    assert view.status == "finished", view.message
    return studio, name


@pytest.mark.opens_the_page_later
def test_an_evaluation_from_start_to_verdict(page: Page, served: Served, run: tuple[Studio, str]) -> None:
    studio, name = run
    page.goto(served.url)
    for tab in ("Chat", "Train"):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#{tab.lower()}-evaluate").click()
        expect(page.locator("#evaluate-progress")).to_contain_text("Not evaluated yet")
        expect(page.locator("#evaluate-run input")).to_have_value(name)

    rows = page.locator("#evaluate-rows input, #evaluate-rows textarea").first
    rows.fill("none")
    rows.blur()
    expect(page.locator("#evaluate-rows")).to_contain_text("must be a whole number")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-rows")).to_contain_text("must be a whole number")
    assert studio.evaluations(name) == []
    rows.fill("9")
    rows.blur()
    expect(page.locator("#evaluate-rows")).not_to_contain_text("must be a whole number")

    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-stop")).to_be_visible()
    expect(page.locator("#evaluate-verdict")).to_contain_text("it", timeout=2 * MINUTES)
    report = studio.evaluation_report(name, "1")
    assert report is not None
    expect(page.locator("#evaluate-verdict")).to_contain_text(report.verdict.sentence)
    expect(page.locator("#evaluate-figures")).to_contain_text("n = 9 rows held out by the run")
    expect(page.locator("#evaluate-stop")).to_be_hidden()

    answers = page.locator("#evaluate-answers tbody tr")
    expect(answers).to_have_count(9)
    page.get_by_role("radio", name="As drawn").check()
    first = studio.evaluation_rows(name, "1")[0]
    expect(answers.first).to_contain_text(first.question)
    expect(answers.first).to_contain_text(first.reference)

    page.get_by_role("tab", name="Blind vote").click()
    ballot = page.locator("#evaluate-vote-question")
    expect(ballot).to_contain_text("The dataset's answer")
    assert not any(word in ballot.inner_html() for word in NAMES.values()), "nobody is named before the vote"
    page.locator("#evaluate-vote-a").click()
    expect(page.locator("#evaluate-vote-tally")).to_contain_text("Voted on")
    expect(ballot).to_contain_text("A ·")
    assert len(studio.votes(name, "1")) == 1
    page.locator("#evaluate-vote-next").click()
    expect(ballot).not_to_contain_text("A ·")

    page.reload()
    page.get_by_role("tab", name="Evaluate").click()
    expect(page.locator("#evaluate-verdict")).to_contain_text(report.verdict.sentence)
