"""Publishing through the page: merge, see the check, edit the card, push privately, see the link; no token is left."""

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, Route, expect

from ftapp.contract.publication import parse_publish_config
from ftapp.settings import Settings
from ftapp.studio import Studio
from tests.browser.conftest import TOKEN, Served, settled
from tests.hub.fixture import Hub
from tests.running import config_for, finish, wait_for

NASTY = "<img src=x onerror=alert(1)> `[click](javascript:alert(1))`"


def trained(served: Served, folder: Path) -> str:
    """A finished run of a tiny model, made below the page; somebody gave its base a nasty name."""
    from tests.models import make

    studio = Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    base = make("qwen3", folder / "tiny <b>base", "60KB")
    run = studio.start_training(config_for(studio, base, folder / "rows", duration={"max_steps": 12}))
    assert finish(studio, run).status == "finished"
    return run


def fill(page: Page, name: str, text: str) -> None:
    page.locator(f"#publish-{name} input, #publish-{name} textarea").first.fill(text)


@contextmanager
def held(page: Page) -> Iterator[None]:
    """What the page asks for meanwhile is sent afterwards only, and answered when this ends."""
    waiting: list[Route] = []
    page.route("**/queue/join*", lambda route: waiting.append(route))
    yield
    wait_for(lambda: page.wait_for_timeout(20) or waiting, "the page asks for something", 20)
    page.unroute("**/queue/join*")  # which lets them go on
    settled(page)


def argvs() -> str:
    return "\n".join(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


@pytest.mark.opens_the_page_later
def test_merge_check_edit_push_and_see_the_link(page: Page, served: Served, hub: Hub, tmp_path: Path) -> None:
    run = trained(served, tmp_path)
    page.goto(served.url)
    page.get_by_role("tab", name="Publish").click()
    expect(page.locator("#publish-about-base")).to_contain_text("is not on the Hub")
    expect(page.locator("#publish-with-base")).to_be_visible()
    page.get_by_role("radio", name="Merged").check()
    expect(page.locator("#publish-with-base")).to_be_hidden()
    page.get_by_role("radio", name="GGUF").check()
    expect(page.locator("#publish-about-base")).to_contain_text("FTAPP_LLAMA_CPP names none")
    expect(page.locator("#publish-destination")).to_be_hidden()
    page.get_by_role("radio", name="Merged").check()
    expect(page.locator("#publish-destination")).to_be_visible()

    page.locator("#publish-start").click()
    checked = page.locator("#publish-checked")
    expect(checked).to_contain_text("Checked: it says what was trained", timeout=120_000)
    expect(checked).to_contain_text("100.00 %")
    expect(page.locator("#publish-progress")).to_contain_text("Finished")
    with page.expect_download() as download:
        page.locator("#publish-zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert any(name.endswith("model.safetensors.index.json") for name in archive.namelist())
    page.get_by_text("Use it elsewhere").click()
    expect(page.locator("#publish-result")).to_contain_text("convert_hf_to_gguf.py")
    expect(page.locator("#publish-result")).to_contain_text("vllm serve")

    page.locator("#publish-token input").fill(TOKEN)
    page.locator("#publish-check").click()
    expect(page.locator("#publish-account")).to_contain_text("The token belongs to alice and can write")
    destination = page.locator("#publish-destination input, #publish-destination textarea").first
    expect(destination).to_have_value(f"alice/{run}")
    destination.fill("")
    with held(page):
        page.locator("#publish-check").click()
        destination.fill("alice/checked")
    expect(destination).to_have_value("alice/checked")
    page.locator("#publish-check").click()
    expect(page.locator("#publish-account")).to_contain_text("alice/checked is free: a private repository will be made")
    page.locator("#publish-card-box > button").click()
    card = page.locator("#publish-card textarea")
    expect(card).to_have_value(re.compile(r"# checked\n[\s\S]*same likeliest token"))
    # written from the run once more, but slowly: what a person types meanwhile stays
    page.locator("#publish-card-box > button").click()
    mine = card.input_value().replace("## Data", f"Mine: {NASTY}\n\n## Data")
    with held(page):
        page.locator("#publish-card-box > button").click()
        card.fill(mine)
    expect(card).to_have_value(mine)
    page.locator("#publish-card-look-button, [role=tab]:has-text('Preview')").first.click()
    expect(page.locator("#publish-card-preview")).to_contain_text("Mine:")
    assert page.locator("#publish-card-preview img, #publish-card-preview a[href^=javascript]").count() == 0

    hub.inject("POST", "/commit/main", delay=1.0)
    page.locator("#publish-start").click()
    expect(page.locator("#publish-token input")).to_have_value("")
    assert TOKEN not in argvs()
    link = page.locator("#publish-link a")
    expect(link).to_have_attribute("href", f"{hub.url}/alice/checked", timeout=120_000)
    expect(page.locator("#publish-progress")).to_contain_text("is still whole and is used")
    expect(page.locator("#publish-earlier")).to_contain_text("this machine")
    assert {item["id"]: item["private"] for item in hub.repos()}["alice/checked"] is True
    assert "Mine: " in hub.read("alice/checked", "README.md").decode()
    assert hub.read("alice/checked", "loss.png").startswith(b"\x89PNG")
    no_token_anywhere(page, served, hub)
    assert run in page.content()


@pytest.mark.opens_the_page_later
def test_a_refused_push_is_told_and_goes_on(page: Page, served: Served, hub: Hub, tmp_path: Path) -> None:
    run = trained(served, tmp_path)
    page.goto(served.url)
    page.get_by_role("tab", name="Publish").click()
    expect(page.locator("#publish-progress")).to_contain_text("Not published yet")
    # what another one begins, as the terminal does, is followed here too
    studio = Studio(Settings(served.home, "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    studio.publish(parse_publish_config({"run": run}))
    page.get_by_role("tab", name="Evaluate").click()
    page.get_by_role("tab", name="Publish").click()
    expect(page.locator("#publish-progress")).to_contain_text("Finished")
    page.locator("#publish-with-base input").check()
    fill(page, "destination", "alice/second")
    fill(page, "token", "hf_nobodysTokenAtAll")
    page.locator("#publish-start").click()
    expect(page.locator(".toast-body, [data-testid=toast-body]").first).to_contain_text("token is not valid")
    expect(page.locator("#publish-token input")).to_have_value("")
    hub.inject("POST", "/commit/main", status=403)
    fill(page, "token", TOKEN)
    page.locator("#publish-start").click()
    expect(page.locator("#publish-progress")).to_contain_text("this token may not do that (403)", timeout=120_000)
    fill(page, "token", TOKEN)
    hub.inject("POST", "/commit/main", delay=5)
    page.locator("#publish-again").click()
    wait_for(lambda: hub.faults() == [], "the commit on its way")
    served.kill()  # the push is a process of its own
    served.start()
    page.goto(served.url)
    page.get_by_role("tab", name="Publish").click()
    link = page.locator("#publish-link a")
    expect(link).to_have_attribute("href", f"{hub.url}/alice/second", timeout=120_000)
    assert "base/config.json" in hub.repo_files("alice/second")
    no_token_anywhere(page, served, hub)


def no_token_anywhere(page: Page, served: Served, hub: Hub) -> None:
    """Not in a file, an event, a log, an argument, the card, the page or the browser's storage."""
    for path in (*served.home.rglob("*"), served.home.parent / "web.log"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    stored = page.evaluate("() => JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert TOKEN not in stored + json.dumps(page.context.storage_state()) + page.content() + argvs()
    assert hub.leaks() == []
