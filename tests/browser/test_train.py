"""The Train tab in a real browser: the queue, the list of all runs, the curves, and what a failure offers."""

import re
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.settings import Settings
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import ProcessId
from ftapp.studio import Studio
from tests.browser.conftest import Served
from tests.browser.test_story import losses_on_screen, tab
from tests.models import make
from tests.running import WORKER, config_for, recorded, wait_for, wait_for_step, write_rows


def own(served: Served) -> Studio:
    return Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))


def choose_runs(page: Page, *names: str) -> None:
    for name in names:
        page.locator("#history-picked input").click()
        page.get_by_role("option", name=name).click()
    page.keyboard.press("Escape")


@pytest.mark.opens_the_page_later
def test_waiting_runs_are_put_in_order_taken_out_and_put_back(page: Page, served: Served, tmp_path: Path) -> None:
    studio = own(served)
    base = make("llama", tmp_path / "tiny")
    config = config_for(studio, base, tmp_path / "rows", duration={"epochs": 500})
    first = studio.start_training(config)
    second, third = studio.start_training(config), studio.start_training(config)
    wait_for_step(studio, first, 1)
    page.goto(served.url)
    tab(page, "Train")
    expect(page.locator("#train-run input")).to_have_value(re.compile(first))  # the one at work, not the newest
    tab(page, "All runs and the queue")
    expect(page.locator("#history-queue")).to_contain_text("2 runs wait for the machine")
    waiting = page.locator("#history-waiting label")
    expect(waiting.first).to_contain_text(second)
    waiting.filter(has_text=third).click()
    page.locator("#history-sooner").click()
    expect(waiting.first).to_contain_text(third)
    waiting.filter(has_text=second).click()
    page.locator("#history-unqueue").click()
    expect(page.locator("#history-queue")).to_contain_text("1 run waits for the machine")

    choose_runs(page, second)
    page.locator("#history-open").click()
    expect(page.locator("#train-status")).to_contain_text("Taken out of the queue before it began")
    page.locator("#train-resume").click()
    expect(page.locator("#train-status")).to_contain_text("Waiting")
    assert [entry.name for entry in studio.queue()] == [third, second]
    expect(page.locator("#train-kill")).to_be_hidden()
    page.get_by_role("button", name="Take out of the queue").filter(visible=True).click()
    expect(page.locator("#train-status")).to_contain_text("Taken out of the queue before it began")
    assert [entry.name for entry in studio.queue()] == [third]

    # the list follows what becomes of the run at work, without a click
    page.locator("#train-run input").click()
    page.get_by_role("option", name=first).click()
    expect(page.locator("#train-status")).to_contain_text("Running")
    tab(page, "All runs and the queue")
    expect(page.locator("#history-table tr").filter(has_text=first)).to_contain_text("Running")
    studio.unqueue(third)
    studio.kill(first)
    expect(page.locator("#history-table tr").filter(has_text=first)).to_contain_text("Stopped")


@pytest.mark.opens_the_page_later
def test_runs_are_searched_named_compared_and_deleted(page: Page, served: Served, tmp_path: Path) -> None:
    studio = own(served)
    info = studio.add_dataset(write_rows(tmp_path / "sums.jsonl"), "sums.jsonl")
    runs = []
    for rank, loss in ((8, 2.0), (16, 1.5), (32, 1.0)):  # fmt: skip
        config = parse_run_config({"data": {"dataset": info.id}, "method": {"type": "lora", "rank": rank}})
        runs.append(recorded(studio, config, ev.Finished(artifact="adapter"), (3.0, loss)).name)
    page.goto(served.url)
    tab(page, "Train")
    tab(page, "All runs and the queue")
    table = page.locator("#history-table")
    expect(table.locator("tbody tr")).to_have_count(3)

    choose_runs(page, runs[0])
    page.locator("#history-edit").click()
    page.locator("#history-title input, #history-title textarea").first.fill("The <b>small</b> one")
    page.locator("#history-note textarea, #history-note input").first.fill("a first try")
    page.locator("#history-save").click()
    expect(table).to_contain_text("The <b>small</b> one")
    search = page.locator("#history-search input, #history-search textarea").first
    search.fill("first try")
    search.press("Enter")
    expect(table.locator("tbody tr")).to_have_count(1)
    search.fill("")
    search.press("Enter")
    expect(table.locator("tbody tr")).to_have_count(3)

    choose_runs(page, runs[1])
    page.locator("#history-compare").click()
    differences = page.locator("#history-differences")
    expect(differences.locator("tr").filter(has_text="Rank")).to_contain_text("16")
    expect(differences.locator("tr").filter(has_text="Best held-out loss")).to_contain_text("1.5")
    expect(page.locator("#history-chart .js-plotly-plot")).to_be_visible()

    # what is chosen after the question is not deleted with the rest
    page.locator("#history-delete").click()
    expect(page.locator("#history-sure")).to_contain_text(f"Delete {runs[0]}, {runs[1]} for good")
    choose_runs(page, runs[2])
    page.locator("#history-sure-yes").click()
    expect(table.locator("tbody tr")).to_have_count(1)
    assert [row.name for row in studio.history()] == [runs[2]]


@pytest.mark.opens_the_page_later
def test_a_failed_run_starts_again_with_what_its_failure_suggests(page: Page, served: Served, tmp_path: Path) -> None:
    studio = own(served)
    config = config_for(studio, make("llama", tmp_path / "tiny"), tmp_path / "rows", duration={"max_steps": 2})
    failed = ev.Failed(
        kind="memory", message="Out of memory.", hint="Try fewer.", changes={"batch.micro_size": 4}, traceback=""
    )
    name = recorded(studio, config, failed).name
    page.goto(served.url)
    tab(page, "Train")
    expect(page.locator("#train-status")).to_contain_text("Out of memory.")
    expect(page.locator("#train-changed")).to_have_text("Start again with: Micro-batch size 4")
    page.locator("#train-changed").click()
    wait_for(lambda: len(studio.runs()) == 2, "the new run")
    new = next(view for view in studio.runs() if view.name != name)
    assert new.config.batch.micro_size == 4
    expect(page.locator("#train-status")).to_contain_text("Finished", timeout=120_000)


@pytest.mark.opens_the_page_later
def test_curves_are_smoothed_and_another_figure_is_drawn_below(page: Page, served: Served) -> None:
    studio = own(served)
    config = parse_run_config({"data": {"dataset": "sums"}})
    job = recorded(studio, config, losses=tuple(2.0 + number % 2 for number in range(40)))
    log = EventLog(job.folder / "events.jsonl")

    def step(number: int) -> None:
        log.append(ev.Metrics(step=number, total_steps=50, epoch=1, loss=3.0, tokens=50 * number, seconds=number))

    step(41)
    me = psutil.Process()
    job.record_process(ProcessId(pid=me.pid, created=me.create_time()))  # as if this process trained
    page.goto(served.url)
    tab(page, "Train")
    wait_for(lambda: len(losses_on_screen(page)) == 41, "the curve")

    # somebody zooms in: that lasts while the curve grows, as it is the same chart
    chart = page.locator("#train-loss .js-plotly-plot")
    chart.evaluate("chart => chart.same = true")
    area = chart.locator(".draglayer .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, middle + 2, steps=5)
    page.mouse.up()
    wait_for(lambda: zoomed(page)[0] > 5, "the zoom")
    zoom = zoomed(page)
    step(42)
    wait_for(lambda: len(losses_on_screen(page)) == 42, "the next step")
    assert zoomed(page) == zoom
    assert chart.evaluate("chart => chart.same")
    # what is pointed at says its value; in a window of another width, and another, it is still whole
    wait_for(lambda: re.search(r"training loss\D*[23]", pointed_at(page, area)), "what is pointed at", 20)
    drawing = chart.locator(".main-svg").first
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 1000})
        wait_for(lambda width=width: 0.8 * width < size(drawing)[0] < width, "it is drawn anew", 20)
        assert size(chart)[1] >= 400
    tab(page, "Configure")
    tab(page, "Train")
    wait_for(lambda: len(losses_on_screen(page)) == 42, "the whole curve, though its chart may be another")
    log.append(ev.Finished(artifact="adapter"))
    job.record_process(WORKER)
    expect(page.locator("#train-status")).to_contain_text("Finished")
    rough = losses_on_screen(page)
    assert max(rough[20:40]) - min(rough[20:40]) == 1
    slider = page.locator("#train-smoothing input[type=number]")
    slider.fill("0.9")
    slider.press("Enter")
    wait_for(lambda: 0 < spread(page) < 0.2, "a smooth curve")
    page.locator("#train-below input").click()
    page.get_by_role("option", name="tokens / s").click()
    wait_for(lambda: "tokens / s" in page.locator("#train-loss").inner_html(), "its axis")


def zoomed(page: Page) -> list[float]:
    """The steps between which the curve is shown."""
    return list(page.evaluate("document.querySelector('#train-loss .js-plotly-plot').layout.xaxis.range"))


def size(shown: Locator) -> tuple[float, float]:
    """Its width and height."""
    box = shown.bounding_box()
    return (box["width"], box["height"]) if box else (0.0, 0.0)


def pointed_at(page: Page, area: Locator) -> str:
    """What a chart says of its middle, once somebody points there."""
    box = area.bounding_box()
    assert box
    for beside in (9, 6, 3, 0):
        page.mouse.move(box["x"] + box["width"] / 2 + beside, box["y"] + box["height"] / 2)
        page.wait_for_timeout(50)
    return page.locator("#train-loss .hoverlayer").text_content() or ""


def spread(page: Page) -> float:
    """Of the smoothed curve, once it has settled."""
    drawn = page.evaluate(
        """() => {
            const plot = document.querySelector('#train-loss .js-plotly-plot');
            return plot && plot.data ? plot.data.map(line => Array.from(line.y)) : [];
        }"""
    )
    lines = [[value for value in line[20:] if value is not None] for line in drawn if len(line) >= 40]
    return min((max(line) - min(line) for line in lines if line), default=0.0)
