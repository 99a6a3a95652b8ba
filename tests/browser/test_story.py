"""The whole job through the page, as a new user would do it; and what must survive a reload and a killed server."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from ftapp.contract.events import Finished
from ftapp.demo.scoring import json_answer_right
from ftapp.settings import Settings
from ftapp.studio import DEMO_FOLDER, Studio
from tests.browser.conftest import TOKEN, Served, settled
from tests.hub.fixture import Hub
from tests.running import config_for, recorded, wait_for, wait_for_step

MINUTES = 60_000


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def losses_on_screen(page: Page) -> list[float]:
    """The training loss as the chart has drawn it."""
    values = page.evaluate(
        """() => {
            const plot = document.querySelector('#train-loss .js-plotly-plot');
            return plot && plot.data ? Array.from(plot.data[0].y) : [];
        }"""
    )
    return [float(value) for value in values]


def answer_on_screen(page: Page) -> str:
    return page.locator("#chat-box .content").last.inner_text().strip()


def test_upload_train_chat_merge_push_and_read_back(page: Page, served: Served, hub: Hub, tmp_path: Path) -> None:
    upload = tmp_path / "capitals and sums.jsonl"
    lines = (DEMO_FOLDER / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
    upload.write_text("\n".join([*lines, '{"messages": "broken"}', "not json"]) + "\n", encoding="utf-8")

    page.locator("#dataset-upload input[type=file]").set_input_files(str(upload))
    report = page.locator("#dataset-report")
    expect(report).to_contain_text(str(len(lines) + 2))
    tab(page, "Problems")
    expect(page.locator("#dataset-problems")).to_contain_text("not JSON")
    tab(page, "Rows")
    expect(page.locator("#dataset-preview")).to_contain_text(json.loads(lines[0])["messages"][0]["content"])
    page.locator("#dataset-fix-drop-problems").click()
    expect(page.locator("#dataset-finding-drop-problems")).to_contain_text("are left out (2 rows)")
    page.locator("#dataset-use").click()

    rate = page.locator("#config-optim-learning_rate input, #config-optim-learning_rate textarea").first
    rate.fill("fast")
    rate.blur()
    expect(page.locator("#config-optim-learning_rate")).to_contain_text("must be a number (got 'fast'), or auto")
    page.locator("#config-start").click()
    expect(page.locator("#config-optim-learning_rate")).to_contain_text("must be a number")
    rate.fill("1e-3")
    rate.blur()
    expect(page.locator("#config-optim-learning_rate")).not_to_contain_text("must be a number")
    expect(page.locator("#config-parameters")).to_contain_text("trained")
    page.locator("#config-start").click()

    expect(page.locator("#train-status")).to_contain_text("Running", timeout=2 * MINUTES)
    wait_for(lambda: len(losses_on_screen(page)) > 5, "a curve")
    expect(page.locator("#train-status")).to_contain_text("Finished", timeout=6 * MINUTES)
    drawn = losses_on_screen(page)
    assert sum(drawn[-5:]) < 0.3 * sum(drawn[:5]), "the loss falls"

    page.locator("#train-chat").click()
    question, answer = _held_out()
    page.get_by_role("radio", name="Tuned").check()
    box = page.locator("#chat-input textarea, #chat-input input").first
    box.fill(question)
    page.locator("#chat-send").click()
    expect(page.locator("#chat-box .figures")).to_contain_text("tokens/s", timeout=2 * MINUTES)
    assert json_answer_right(answer_on_screen(page), answer), answer_on_screen(page)
    page.get_by_role("radio", name="Base").check()
    box.fill(question)
    page.locator("#chat-send").click()
    wait_for(lambda: page.locator("#chat-box").inner_text().count("Base model") == 1, "the base's answer")
    expect(page.locator("#chat-send")).to_be_visible(timeout=1 * MINUTES)
    assert not json_answer_right(answer_on_screen(page), answer)

    tab(page, "Publish")
    page.get_by_role("radio", name="merged").check()
    page.locator("#publish-destination input, #publish-destination textarea").first.fill("alice/facts")
    page.locator("#publish-token input").fill(TOKEN)
    page.locator("#publish-start").click()
    link = page.locator("#publish-link a")
    expect(link).to_have_attribute("href", f"{hub.url}/alice/facts", timeout=2 * MINUTES)
    expect(page.locator("#publish-token input")).to_have_value("")

    assert {item["id"]: item["private"] for item in hub.repos()}["alice/facts"] is True
    assert json_answer_right(_ask_the_pushed(hub, tmp_path, question), answer)
    for path in served.home.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def _held_out() -> tuple[str, str]:
    turns = json.loads((DEMO_FOLDER / "heldout.jsonl").read_text(encoding="utf-8").splitlines()[0])["messages"]
    return turns[0]["content"], json.loads(turns[1]["content"])["answer"]


def _ask_the_pushed(hub: Hub, tmp_path: Path, question: str) -> str:
    """What the model on the Hub says, loaded by a stranger with transformers alone."""
    code = (
        "import sys\n"
        "from huggingface_hub import snapshot_download\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder = snapshot_download('alice/facts')\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "turns = [{'role': 'user', 'content': sys.argv[1]}]\n"
        "ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors='pt',\n"
        "    return_dict=True)\n"
        "out = AutoModelForCausalLM.from_pretrained(folder).generate(input_ids=ids['input_ids'],\n"
        "    attention_mask=ids['attention_mask'], do_sample=False, max_new_tokens=40)\n"
        "print('ANSWER', tokenizer.decode(out[0, ids['input_ids'].shape[1]:], skip_special_tokens=True))\n"
    )
    env = hub.env(tmp_path / "stranger", TOKEN)
    done = subprocess.run([sys.executable, "-c", code, question], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("ANSWER")).removeprefix("ANSWER").strip()


def _studio(served: Served) -> Studio:
    """The same home, seen from below the page."""
    return Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))


def _long_run(served: Served, tmp_path: Path) -> tuple[Studio, str]:
    """A run that the page did not start, on a tiny model, long enough to be looked at."""
    from tests.models import make

    studio = _studio(served)
    config = config_for(studio, make("llama", tmp_path / "tiny"), tmp_path / "rows", duration={"epochs": 500})
    run = studio.start_training(config)
    wait_for_step(studio, run, 2)
    return studio, run


@pytest.mark.opens_the_page_later
def test_a_run_survives_the_page_and_the_web_process(page: Page, served: Served, tmp_path: Path) -> None:
    studio, run = _long_run(served, tmp_path)
    page.goto(served.url)
    tab(page, "Train")
    expect(page.locator("#train-status")).to_contain_text("Running")
    wait_for(lambda: len(losses_on_screen(page)) > 1, "a curve")

    served.kill()
    step = studio.run(run).state.metrics[-1].step
    wait_for_step(studio, run, step + 3)
    served.start()
    page.goto(served.url)
    tab(page, "Train")
    expect(page.locator("#train-status")).to_contain_text("Running")
    wait_for(lambda: len(losses_on_screen(page)) > step, "the whole curve, what happened meanwhile included")

    page.locator("#train-stop").click()
    expect(page.locator("#train-status")).to_contain_text("Stopped", timeout=2 * MINUTES)
    assert studio.run(run).has_result


@pytest.mark.opens_the_page_later
def test_an_event_is_soon_on_the_screen_and_a_killed_worker_is_lost(page: Page, served: Served, tmp_path: Path) -> None:
    studio, run = _long_run(served, tmp_path)
    page.goto(served.url)
    tab(page, "Train")
    expect(page.locator("#train-status")).to_contain_text("Running")
    wait_for(lambda: len(losses_on_screen(page)) > 1, "a curve: the page is whole")
    late: list[float] = []
    for _ in range(5):
        step = studio.run(run).state.metrics[-1].step + 2
        wait_for_step(studio, run, step)
        written = studio.run(run).state.metrics[step - 1].time.timestamp()
        shown = wait_for(lambda step=step: _shown_at(page, step), f"step {step} on the screen")  # type: ignore[misc]
        late.append(shown - written)
    assert sorted(late)[2] < 2.5, late

    started = studio.run(run).state.started
    assert started is not None
    psutil.Process(started.pid).kill()
    expect(page.locator("#train-status")).to_contain_text("Lost")
    expect(page.locator("#train-status")).to_contain_text("killed")


@pytest.mark.opens_the_page_later
def test_each_way_from_a_run_takes_that_run_along(page: Page, served: Served, tmp_path: Path) -> None:
    studio = _studio(served)
    config = config_for(studio, tmp_path / "no-model", tmp_path / "rows")
    names = []
    for _ in range(2):
        job = recorded(studio, config, Finished(artifact="adapter"))
        (job.folder / "adapter").mkdir()
        names.append(job.name)
    page.goto(served.url)
    tab(page, "Train")
    chosen = page.locator("#train-run input")
    expect(chosen).to_have_value(re.compile("finished"))
    name = next(one for one in names if one not in chosen.input_value())
    chosen.click()
    page.get_by_role("option", name=name).click()
    expect(chosen).to_have_value(re.compile(name))
    for way in ("evaluate", "chat", "publish"):
        page.locator(f"#train-{way}").click()
        expect(page.locator(f"#{way}-run input")).to_have_value(name)
        tab(page, "Train")


def test_the_empty_page_says_what_to_do_next(page: Page) -> None:
    said = {
        "Train": "No runs yet",
        "Chat": "No trained run yet",
        "Evaluate": "Nothing to evaluate yet",
        "Publish": "Nothing to publish yet",
    }
    for name, words in said.items():
        tab(page, name)
        expect(page.get_by_role("tabpanel").filter(visible=True).first).to_contain_text(words)
    # what nobody has typed into yet
    tab(page, "Dataset")
    tab(page, "Hub")
    page.locator("#dataset-hub-look").click()
    expect(page.locator("#dataset-hub-said")).to_contain_text("Type the name of a dataset")
    tab(page, "Paste")
    page.locator("#dataset-paste").click()
    expect(page.locator("#dataset-problem")).to_contain_text("Nothing was pasted")
    tab(page, "Chat")
    page.locator("#chat-send").click()
    tab(page, "Configure")
    page.locator("#config-find").get_by_role("button").first.click()
    page.locator("#config-model-search input, #config-model-search textarea").first.press("Enter")
    settled(page)
    expect(page.get_by_text("Something unexpected")).to_have_count(0)


def _shown_at(page: Page, step: int) -> Any:
    import time

    return time.time() if len(losses_on_screen(page)) >= step else None
