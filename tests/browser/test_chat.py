"""The Chat tab as a person uses it: two answers that grow side by side, and a correction that becomes a row."""

import json
import shutil
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from ftapp.contract.chat import Answered
from ftapp.settings import Settings
from ftapp.store.files import alone
from ftapp.studio import Studio
from ftapp.ui.chat_tab import SCRIPT
from ftapp.ui.exchanges import Answer, Exchange, Growth, draw
from tests.browser.conftest import Served, settled
from tests.running import config_for, finish, wait_for

MINUTE = 60_000
LONG = """() => {
    const said = [...document.querySelectorAll('#chat-box .ft-answer .content')];
    return said.length === 2 && said.every((one) => one.textContent.length > 2000);
}"""
"""Both answers are long, and still grow."""
STOP = """() => new Promise((told) => {
    const began = performance.now();
    const box = document.querySelector('#chat-box');
    new MutationObserver((_, one) => {
        if (![...box.querySelectorAll('.figures')].every((end) => end.textContent.includes('stopped'))) return;
        one.disconnect();
        told((performance.now() - began) / 1000);
    }).observe(box, { childList: true, subtree: true, characterData: true });
    document.querySelector('#chat-stop').click();
})"""
"""Press Stop; the seconds until both answers say that they were stopped."""
GROWING = """([drawn, script]) => {
    document.body.innerHTML = `<div class='html-container'><div id='box'>${drawn}</div></div>`;
    window.box = document.querySelector('#box');
    Function('element', 'trigger', script)(window.box, (...told) => (window.told = told));
}"""
"""A page with nothing but a conversation in it."""


@pytest.fixture
def studio(served: Served) -> Studio:
    """The same home, seen from below the page."""
    return Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with a finished run of a tiny model, and the run's name."""
    from tests.models import make

    folder = tmp_path_factory.mktemp("made")
    base = make("llama", folder / "tiny")
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "max_position_embeddings": 10_000}))  # for long answers
    studio = Studio(Settings(folder / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    config = config_for(studio, base, folder / "rows", duration={"max_steps": 4})
    view = finish(studio, studio.start_training(config))
    assert view.status == "finished", view.message
    return studio.folder, view.name


@pytest.fixture
def run(made: tuple[Path, str], studio: Studio) -> str:
    """That run as one of the served app, put there below the page."""
    folder, name = made
    for path in (folder / "runs" / name, *(folder / "datasets").iterdir()):
        place = studio.folder / path.parent.name
        if not path.name.startswith(".") and not (place / path.name).exists():
            place.mkdir(parents=True, exist_ok=True)
            # the app sees it whole or not at all
            shutil.copytree(path, place / f".{path.name}.new").rename(place / path.name)
    return name


def exchange(page: Page, number: int) -> Locator:
    return page.locator("#chat-box .ft-exchange").nth(number)


def card(page: Page, number: int, voice: str) -> Locator:
    return exchange(page, number).locator(f".ft-answer.{voice}")


def open_chat(page: Page, run: str) -> None:
    """Go to the tab and wait for what a chat with the run begins with."""
    page.get_by_role("tab", name="Chat").click()
    expect(page.locator("#chat-run input")).to_have_value(run)
    expect(page.locator("#chat-evaluate")).to_be_visible()
    settled(page)


def ask(page: Page, text: str) -> None:
    page.locator("#chat-input textarea").fill(text)
    page.locator("#chat-send").click()


def answered(page: Page, number: int) -> None:
    """Both have answered the question of that number."""
    for voice in ("base", "tuned"):
        expect(card(page, number, voice).locator(".figures")).to_contain_text("token", timeout=MINUTE)
    expect(page.locator("#chat-send")).to_be_visible()


def set_field(page: Page, name: str, value: str) -> None:
    if not page.locator(f"#chat-{name} input, #chat-{name} textarea").first.is_visible():
        page.locator("#chat-sampling button").first.click()
    field = page.locator(f"#chat-{name} input, #chat-{name} textarea").first
    field.fill(value)
    field.blur()


def test_base_and_tuned_answer_side_by_side_and_a_correction_becomes_a_row(
    run: str, studio: Studio, page: Page, served: Served
) -> None:
    open_chat(page, run)
    set_field(page, "max-new-tokens", "nonsense")
    expect(page.locator("#chat-max-new-tokens")).to_contain_text("must be a whole number")
    set_field(page, "max-new-tokens", "800")  # long enough to be seen growing

    # growing at the same time: at one moment both have text and neither its figures
    ask(page, "What is 3 plus 4?")
    both = """() => {
        const cards = [...document.querySelectorAll('#chat-box .ft-answer')];
        return cards.length === 2 && cards.every((card) =>
            card.querySelector('.content').textContent.length > 3 && !card.querySelector('.figures').textContent);
    }"""
    page.wait_for_function(both, timeout=MINUTE, polling=20)
    answered(page, 0)
    expect(page.locator("#chat-loaded")).to_contain_text(f"In memory: tiny in float32 on CPU + {run}")
    base, tuned = (card(page, 0, voice).locator(".content").inner_text() for voice in ("base", "tuned"))
    assert base != tuned

    # the question edited, then the whole stopped: what was written stays
    set_field(page, "max-new-tokens", "5000")
    exchange(page, 0).locator("[data-do=edit]").click()
    page.locator("#chat-box .editing textarea").fill("What is 5 plus 6?")
    page.locator("#chat-box .editing button[type=submit]").click()
    page.wait_for_function(LONG, timeout=MINUTE)
    took = page.evaluate(STOP)
    assert took < 3.0, f"Stop took {took:.1f} s while two long answers grew"
    expect(exchange(page, 0)).to_contain_text("stopped")
    expect(exchange(page, 0)).to_contain_text("What is 5 plus 6?")
    expect(page.locator("#chat-box .ft-exchange")).to_have_count(1)

    set_field(page, "max-new-tokens", "20")

    # a held-out row with its reference; a new conversation
    page.locator("#chat-held-out").click()
    row = studio.held_out_row(run, 0)
    expect(exchange(page, 0).locator(".ft-turn.user")).to_contain_text(row.messages[-1].content)
    expect(exchange(page, 0).locator(".ft-answer.reference")).to_contain_text(row.answer.content)
    answered(page, 0)
    page.locator("#chat-again").click()
    answered(page, 0)
    ask(page, "And 1 plus 1 <b>?")
    answered(page, 1)

    card(page, 1, "tuned").locator("[data-do=correct]").click()
    right = page.locator("#chat-box .editing textarea")
    expect(right).to_have_value(card(page, 1, "tuned").locator(".content").text_content() or "")
    right.fill('It is <i>2</i>, of "course".')
    page.locator("#chat-box .editing button[type=submit]").click()
    version = f"{studio.run(run).config.data.dataset}-v2"
    expect(page.locator("#chat-notice")).to_contain_text(f"Kept in {version}: 97 rows, 1 of them from the chat")
    expect(card(page, 1, "tuned").locator(".content")).to_have_text('It is <i>2</i>, of "course".')
    expect(card(page, 1, "tuned")).to_contain_text(f"row of {version}")
    kept = studio.examples(version, 96, 1)[0].messages
    assert [turn.role for turn in kept] == ["user", "assistant", "user", "assistant"]
    assert (kept[2].content, kept[3].content) == ("And 1 plus 1 <b>?", 'It is <i>2</i>, of "course".')
    card(page, 0, "base").locator("[data-do=good]").click()
    expect(page.locator("#chat-notice")).to_contain_text("98 rows, 2 of them from the chat")
    expect(page.locator("#chat-notice")).to_contain_text("The answer was cut off")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card(page, 1, "tuned").locator("[data-do=copy]").click()
    expect(card(page, 1, "tuned")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == kept[3].content

    page.get_by_role("tab", name="Dataset").click()
    page.locator("#dataset-list").get_by_text(version).click()
    expect(page.locator("#dataset-preview")).to_contain_text("What is 0 plus 0?")
    settled(page)
    page.locator("#dataset-search input, #dataset-search textarea").first.fill('of "course"')
    page.keyboard.press("Enter")
    expect(page.locator("#dataset-preview")).to_contain_text('It is <i>2</i>, of "course".')
    page.get_by_role("tab", name="Chat").click()
    page.locator("#chat-train-on").click()
    expect(page.locator("#config-data-dataset input")).to_have_value(f"{version} · 98 rows")


def correct(page: Page, number: int, voice: str, text: str) -> Locator:
    """Open the form below an answer and type this; returns the form."""
    card(page, number, voice).locator("[data-do=correct]").click()
    form = card(page, number, voice).locator(".editing")
    form.locator("textarea").fill(text)
    return form


def test_two_corrections_at_once_are_both_kept_and_what_is_half_typed_stays(
    run: str, studio: Studio, page: Page
) -> None:
    open_chat(page, run)
    set_field(page, "max-new-tokens", "20")
    ask(page, "First?")
    answered(page, 0)
    ask(page, "Second?")
    answered(page, 1)
    page.locator("#chat-input textarea").fill("half a question")

    refused = correct(page, 1, "base", "\u0085")
    refused.locator("[type=submit]").click()
    expect(page.get_by_text("This cannot be a row")).to_be_visible()
    expect(refused.get_by_role("button", name="Keep as a row")).to_be_enabled()
    refused.locator("textarea").fill("Half a corr")

    with alone(studio.folder / "datasets" / ".versions.lock"):  # the dataset is busy for as long as this takes
        for number, text in enumerate(("One.", "Two.")):
            form = correct(page, number, "tuned", text)
            form.locator("[type=submit]").click()
            expect(form.get_by_role("button", name="Sending …")).to_be_disabled()
        refused.locator("textarea").press("End")
        page.keyboard.type("ection")
    expect(page.locator("#chat-notice")).to_contain_text("2 of them from the chat")
    version = f"{studio.run(run).config.data.dataset}-v2"
    for number, text in enumerate(("One.", "Two.")):
        expect(card(page, number, "tuned").locator(".content")).to_have_text(text)
        expect(card(page, number, "tuned")).to_contain_text(f"row of {version}")
        expect(card(page, number, "tuned").locator(".editing")).to_have_count(0)
    page.keyboard.type(" goes on")
    expect(refused.locator("textarea")).to_have_value("Half a correction goes on")
    assert [one.messages[-1].content for one in studio.examples(version, 96, 2)] == ["One.", "Two."]

    # a question that cannot be asked is given back where it was edited
    set_field(page, "max-new-tokens", "nonsense")
    exchange(page, 0).locator("[data-do=edit]").click()
    edited = exchange(page, 0).locator(".ft-turn .editing")
    edited.locator("textarea").fill("Third?")
    edited.locator("[type=submit]").click()
    expect(page.locator("#chat-notice")).to_contain_text("must be a whole number")
    expect(edited.get_by_role("button", name="Ask again")).to_be_enabled()
    expect(edited.locator("textarea")).to_have_value("Third?")
    expect(page.locator("#chat-input textarea")).to_have_value("half a question")
    set_field(page, "max-new-tokens", "20")
    edited.locator("[type=submit]").click()
    expect(exchange(page, 0).locator(".ft-turn .content")).to_have_text("Third?")
    answered(page, 0)
    expect(page.locator("#chat-box .editing")).to_have_count(0)


def test_an_answer_that_grows_is_not_taken_away_by_what_ends_or_is_pressed_meanwhile(
    run: str, studio: Studio, page: Page, served: Served
) -> None:
    open_chat(page, run)
    growing = page.locator("#chat-box .growing")
    set_field(page, "max-new-tokens", "5000")
    ask(page, "What is 5 plus 6?")
    page.wait_for_function(LONG, timeout=MINUTE)
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("tab", name="Chat").click()
    settled(page, 2)
    expect(growing).to_have_count(2)
    page.locator("#chat-clear").click()
    expect(page.get_by_text("The model is still answering.")).to_be_visible()
    expect(growing).to_have_count(2)
    page.locator("#chat-stop").click()
    answered(page, 0)
    page.locator("#chat-clear").click()
    expect(page.locator("#chat-box")).to_contain_text("Nothing said yet")

    set_field(page, "max-new-tokens", "20")
    ask(page, "First?")
    answered(page, 0)
    _worker(served).suspend()
    with alone(studio.folder / "datasets" / ".versions.lock"):
        card(page, 0, "base").locator("[data-do=good]").click()
        correct(page, 0, "tuned", "One.").locator("[type=submit]").click()
        ask(page, "Second?")
        expect(growing).to_have_count(2)
    expect(page.locator("#chat-train-on")).to_be_visible()
    expect(card(page, 0, "tuned").get_by_role("button", name="Keep as a row")).to_be_enabled()
    expect(growing).to_have_count(2)
    _worker(served).resume()
    answered(page, 1)
    expect(card(page, 0, "tuned").locator(".content")).to_have_text("One.")
    for voice in ("base", "tuned"):
        expect(card(page, 0, voice)).to_contain_text("row of")


def test_a_killed_model_is_told_on_the_page_and_the_next_question_brings_it_back(
    run: str, page: Page, served: Served, studio: Studio
) -> None:
    open_chat(page, run)
    ask(page, "Hello?")
    answered(page, 0)
    _worker(served).kill()
    expect(page.locator("#chat-loaded")).to_contain_text("put away: its process ended unexpectedly")
    ask(page, "Still there?")
    answered(page, 1)
    set_field(page, "max-new-tokens", "5000")
    ask(page, "And now?")
    page.wait_for_function(
        "() => document.querySelectorAll('#chat-box .ft-answer .content')[4]?.textContent.length > 3"
    )
    _worker(served).kill()
    expect(page.locator("#chat-notice")).to_contain_text("The chat process was killed")
    expect(page.locator("#chat-send")).to_be_visible()


def test_a_training_puts_the_model_away_and_the_page_says_so_and_closing_it_frees_it(
    run: str, page: Page, served: Served, studio: Studio, tmp_path: Path
) -> None:
    open_chat(page, run)
    ask(page, "Hello?")
    answered(page, 0)
    first = _worker(served)
    values = studio.run(run).config.model_dump(mode="json")
    long = studio.start_training(studio.run(run).config.model_validate({**values, "duration": {"epochs": 300}}))
    expect(page.locator("#chat-loaded")).to_contain_text("put away: a training started", timeout=MINUTE)
    wait_for(lambda: not first.is_running(), "the model's end")
    ask(page, "And beside it?")
    answered(page, 1)
    second = _worker(served)
    page.goto("about:blank")
    wait_for(lambda: not second.is_running(), "the model's end after the page's", 40)
    studio.kill(long)
    finish(studio, long)
    page.goto(served.url)


def _worker(served: Served) -> psutil.Process:
    """The chat's process."""
    assert served.process
    [found] = [one for one in psutil.Process(served.process.pid).children() if one.cmdline()[3:4] == ["chat"]]
    return found


def test_thoughts_are_folded_and_stay_unfolded_while_the_answer_grows(page: Page) -> None:
    """The page's script alone, with what the server would tell it."""
    drawn = draw([Exchange("Why?", answers={"tuned": Answer()})], growing=True)
    page.evaluate(GROWING, [drawn, SCRIPT])
    growth = Growth()

    def grow(text: str) -> None:
        growth.answers = {"tuned": Answer(text)}
        page.evaluate("(detail) => window.box.dispatchEvent(new CustomEvent('grown', { detail }))", growth.news())

    folded, content = page.locator("details.thought"), page.locator(".ft-answer .content")
    expect(folded).to_be_hidden()
    grow("<think>\nWell, <b>if")
    expect(folded.locator("summary")).to_have_text("Thinking … · 2 words")
    expect(folded.locator("div")).not_to_be_visible()
    folded.locator("summary").click()
    expect(folded.locator("div")).to_have_text("Well, <b>if")
    grow("<think>\nWell, <b>if 🦊 so </think>\n\nYes")
    expect(folded.locator("summary")).to_have_text("Thought · 4 words")
    expect(folded.locator("div")).to_have_text("Well, <b>if 🦊 so")
    grow("<think>\nWell, <b>if 🦊 so </think>\n\nYes, <i>that.")
    expect(content).to_have_text("Yes, <i>that.")
    expect(folded.locator("div")).to_be_visible()


def test_a_form_comes_back_after_a_redraw_unless_what_was_sent_is_there(page: Page) -> None:
    """The page's script alone, with conversations as the server would draw them."""
    done = Answered(voice="tuned", reason="stop", tokens=2, seconds=1.0, first_token_seconds=0.5)
    before = [Exchange("Why?", answers={"tuned": Answer("So.", done)})]
    page.evaluate(GROWING, [draw(before), SCRIPT])

    def redraw(question: str, answer: str, kept: str = "", growing: bool = False) -> None:
        drawn = draw([Exchange(question, answers={"tuned": Answer(answer, done, kept)})], growing=growing)
        page.evaluate("(drawn) => (window.box.innerHTML = drawn)", drawn)

    def told() -> object:
        return page.evaluate("window.told")

    form, area = page.locator(".editing"), page.locator(".editing textarea")
    page.locator("[data-do=correct]").click()
    page.keyboard.type("Because")
    redraw("Why?", "So.", "another")
    page.keyboard.type(" it is.")
    expect(area).to_have_value("So.Because it is.")
    page.locator("[type=submit]").click()
    assert told() == ["like", {"at": 0, "voice": "tuned", "text": "So.Because it is."}]
    area.press("End")
    page.keyboard.type(" Truly.")
    redraw("Why?", "So.Because it is.", "sums-v2")  # taken, but more was typed since
    expect(area).to_have_value("So.Because it is. Truly.")
    page.locator("[type=submit]").click()
    redraw("Why?", "So.Because it is. Truly.", "sums-v2")
    expect(form).to_have_count(0)
    expect(page.locator(".ft-answer .content")).to_be_visible()

    page.locator("[data-do=edit]").click()
    area.fill("How?")
    page.locator("[type=submit]").click()
    assert told() == ["edit", {"at": 0, "voice": "", "text": "How?"}]
    redraw("How?", "", growing=True)
    expect(form).to_have_count(0)
    redraw("Why?", "So.")  # nothing came of it
    expect(area).to_have_value("How?")
    redraw("How?", "", growing=True)
    redraw("How?", "Thus.")
    expect(form).to_have_count(0)

    page.locator("[data-do=correct]").click()
    redraw("How?", "Another answer.")
    expect(form).to_have_count(0)
    redraw("How?", "Thus.")
    expect(form).to_have_count(0)
