"""Signing in with Hugging Face in a real browser, against a local provider: to it, back from it, out again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Served, serve, settled
from tests.hub.fixture import Hub
from tests.hub.openid_routes import CLIENT_ID, CLIENT_SECRET


@pytest.fixture
def served(tmp_path: Path, hub: Hub) -> Iterator[Served]:
    hub.add_user("bob", "hf_BobOfTheBrowser0123456789")
    hub.add_user("eve", "hf_EveOfTheBrowser0123456789")
    yield from serve(
        tmp_path,
        hub,
        SPACE_ID="alice/tuner",
        SPACE_AUTHOR_NAME="alice",
        FTAPP_ALLOWED="bob",
        OAUTH_CLIENT_ID=CLIENT_ID,
        OAUTH_CLIENT_SECRET=CLIENT_SECRET,
        OAUTH_SCOPES="openid profile contribute-repos",
        OPENID_PROVIDER_URL=hub.url,
    )


def sign_in(page: Page, name: str) -> None:
    page.get_by_role("link", name="Sign in with Hugging Face").click()
    page.get_by_role("button", name=f"Authorize as {name}").click()


@pytest.mark.reaches_the_hub
def test_people_sign_in_and_each_has_a_place_of_their_own(page: Page, browser: Browser, served: Served) -> None:
    account = page.locator("#account")
    expect(account).to_contain_text("A demo to look at")
    expect(account.get_by_role("link", name="duplicate this Space")).to_have_attribute(
        "href", "https://huggingface.co/spaces/alice/tuner?duplicate=true"
    )
    page.get_by_role("tab", name="Evaluate").click()
    expect(page.locator("#evaluate-verdict")).to_contain_text("Fine-tuning helped")
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#train-status")).to_contain_text("Finished")
    expect(page.locator("#train-status")).not_to_contain_text(str(served.home))
    page.get_by_role("tab", name="Configure").click()
    page.locator("#config-start").click()
    expect(page.locator(".toast-body").first).to_contain_text("nothing can be changed or started in it")

    sign_in(page, "alice")
    expect(account).to_contain_text("Signed in as alice")
    assert not page.evaluate("Object.values({...localStorage, ...sessionStorage}).join().includes('hf_oauth')")
    assert not page.evaluate("document.cookie"), "no script can read the cookie"
    page.get_by_role("tab", name="Dataset").click()
    page.get_by_role("tab", name="Paste").click()
    page.locator("#dataset-pasted textarea").fill(
        '{"prompt": "Alices question", "completion": "<img src=x onerror=a>"}\n' * 2
    )
    page.locator("#dataset-paste").click()
    expect(page.locator("#dataset-preview")).to_contain_text("Alices question")

    for name, words in (("bob", "Signed in as bob"), ("eve", "eve was not let in")):
        other = browser.new_context().new_page()
        other.goto(served.url)
        sign_in(other, name)
        expect(other.locator("#account")).to_contain_text(words)
        expect(other.locator("#dataset-list")).to_contain_text("demo")
        expect(other.locator("#dataset-list")).not_to_contain_text("pasted")
        other.context.close()

    page.get_by_role("button", name="Sign out").click()
    expect(account).to_contain_text("A demo to look at")
    expect(page.locator("#dataset-list")).not_to_contain_text("pasted")
    settled(page)
    served.kill()
    served.start()
    page.goto(served.url)
    expect(account).to_contain_text("A demo to look at")
    sign_in(page, "alice")
    expect(page.locator("#dataset-list")).to_contain_text("pasted")
