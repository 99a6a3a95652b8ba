"""The Dataset tab in a real browser: what a person is asked, shown, offered, and can take back."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
from playwright.sync_api import Locator, Page, Route, expect

from ftapp.store.exports import Kind
from tests.browser.conftest import TOKEN, Served, settled
from tests.browser.test_story import MINUTES, tab
from tests.hub.fixture import Hub
from tests.running import wait_for, write_rows


def upload(page: Page, *paths: Path) -> None:
    page.locator("#dataset-upload input[type=file]").set_input_files([str(path) for path in paths])


def choose(page: Page, column: str, value: str) -> None:
    page.locator(f"#dataset-column-{column} input").click()
    # of this list: another may still be about to close
    page.locator(f"#dataset-column-{column}").get_by_role("option", name=value, exact=True).click()


def test_unknown_columns_are_mapped_with_the_result_in_sight(page: Page, tmp_path: Path) -> None:
    rows = "".join(f"{number},Was ist {number} mal 2?,Das ist {2 * number}.\n" for number in range(30))
    path = tmp_path / "table.csv"
    path.write_text("no,col a,col b\n" + rows)
    upload(page, path)
    expect(page.locator("#dataset-question-words")).to_contain_text("no, col a, col b")
    choose(page, "prompt", "no")
    expect(page.locator("#dataset-mapped .user .content").nth(2)).to_have_text("2")
    choose(page, "prompt", "col a")
    choose(page, "answer", "col b")
    expect(page.locator("#dataset-mapped .user .content").nth(2)).to_have_text("Was ist 2 mal 2?")
    expect(page.locator("#dataset-mapped .assistant .content").nth(2)).to_have_text("Das ist 4.")
    page.locator("#dataset-map").click()
    expect(page.locator("#dataset-report")).to_contain_text("your own columns")
    expect(page.locator("#dataset-preview")).to_contain_text("Was ist 0 mal 2?")
    expect(page.locator("#dataset-question")).to_be_hidden()


def test_another_encoding_is_read_only_when_a_person_says_so(page: Page, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "umlauts.csv"
    path.write_bytes("question,answer\nWas ist schön?,Alles Grüne\n".encode("cp1252"))
    upload(page, path)
    expect(page.locator("#dataset-question-words")).to_contain_text("Was ist schön?")
    page.locator("#dataset-discard").click()
    expect(page.locator("#dataset-question")).to_be_hidden()
    assert not list(served.home.rglob("upload.json"))
    upload(page, path)
    page.get_by_role("button", name="Read it as cp1252").click()
    expect(page.locator("#dataset-preview")).to_contain_text("Alles Grüne")


def test_rows_as_tokens_are_paged_and_searched(page: Page, tmp_path: Path) -> None:
    upload(page, write_rows(tmp_path / "sums.jsonl", 96))
    expect(page.locator("#dataset-report")).to_contain_text("sums.jsonl")
    tab(page, "Tokens")
    page.locator("#tokens-measure").click()
    expect(page.locator("#tokens-lengths")).to_contain_text("no answer is cut", timeout=1 * MINUTES)
    rows = page.locator("#tokens-rows")
    expect(rows).to_contain_text("Row 1 · line 1")
    trained = rows.locator(".ft-tokens .trained").all_inner_texts()
    assert "".join(trained).replace("⏎", "").startswith("It is 0.<|im_end|>It is 1.")
    page.locator("#tokens-forth").click()
    expect(page.locator("#tokens-where")).to_contain_text("6–10 of 96 rows")
    expect(rows).to_contain_text("Row 6 · line 6")
    page.locator("#tokens-back").click()
    expect(page.locator("#tokens-where")).to_contain_text("1–5 of 96 rows")
    search = page.locator("#tokens-search input, #tokens-search textarea").first
    search.fill("3 PLUS 7")
    search.press("Enter")
    expect(page.locator("#tokens-where")).to_contain_text("1–1 of 1 rows")
    expect(rows).to_contain_text("Row 88")

    limit = page.locator("#tokens-max-length input, #tokens-max-length textarea").first
    limit.fill("20")
    page.locator("#tokens-measure").click()
    expect(page.locator("#tokens-lengths")).to_contain_text("19 of 96 rows (19.8%) are too long")
    limit.fill("none")
    page.locator("#tokens-measure").click()
    expect(page.locator("#tokens-said")).to_contain_text("must be a whole number")
    limit.fill("48")
    page.locator("#tokens-measure").click()
    page.get_by_role("button", name="Train with demo and a maximum length of 48").click()
    expect(page.locator("#config-data-max_length input, #config-data-max_length textarea").first).to_have_value("48")
    expect(page.locator("#config-rows")).to_contain_text("held out to measure on")


def search_box(page: Page) -> Locator:
    return page.locator("#dataset-search input, #dataset-search textarea").first


def choose_dataset(page: Page, name: str) -> None:
    page.locator("#dataset-list label").filter(has_text=name).click()


def halted(served: Served, verb: str) -> psutil.Process:
    """The worker that has just been started for this, stopped where it is until somebody resumes it."""

    def found() -> psutil.Process | None:
        assert served.process is not None
        for process in psutil.Process(served.process.pid).children(recursive=True):
            if f"ftapp.workers {verb}" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_STOPPED:
                process.suspend()
                return process
        return None

    return wait_for(found, f"a worker for {verb}")


def hold(page: Page, words: str) -> list[Route]:
    """Keep back the first of what the page asks for with these words; all else goes on."""
    kept: list[Route] = []

    def look(route: Route) -> None:
        if not kept and words in (route.request.post_data or ""):
            kept.append(route)
        else:
            route.continue_()

    page.route("**/queue/join*", look)
    return kept


def release(page: Page, kept: list[Route]) -> None:
    assert kept
    page.unroute("**/queue/join*")  # which lets them go on
    settled(page)


def test_what_is_measured_of_one_dataset_is_not_shown_of_another(page: Page, served: Served, tmp_path: Path) -> None:
    upload(page, write_rows(tmp_path / "sums.jsonl", 96))
    report, said, lengths = (page.locator(f"#{name}") for name in ("dataset-report", "tokens-said", "tokens-lengths"))
    expect(report).to_contain_text("sums.jsonl")
    settled(page)
    tab(page, "Tokens")
    page.locator("#tokens-measure").click()
    worker = halted(served, "preview")
    choose_dataset(page, "demo")
    expect(report).to_contain_text("demo.jsonl")
    expect(said).to_contain_text("Not measured yet")
    worker.resume()
    settled(page, 60)
    expect(said).to_contain_text("Not measured yet")
    expect(lengths).to_have_text("")
    expect(page.locator("#tokens-rows")).to_have_text("")
    expect(page.locator("#tokens-take")).to_be_hidden()

    page.locator("#tokens-measure").click()
    halted(served, "preview")
    choose_dataset(page, "sums")
    expect(report).to_contain_text("sums.jsonl")
    page.locator("#tokens-measure").click()
    expect(lengths).to_contain_text("Measured: 96 rows")
    expect(page.locator("#tokens-rows")).to_contain_text("What is 0 plus 0?")
    settled(page, 60)

    kept = hold(page, '"demo"')
    choose_dataset(page, "demo")
    wait_for(lambda: page.wait_for_timeout(20) or kept, "another dataset is asked for")
    page.locator("#tokens-take").click()
    expect(page.locator(".toast-body")).to_contain_text("Measure this dataset first")
    release(page, kept)
    expect(page.locator("#tokens-take")).to_be_hidden()


def test_rows_that_come_late_are_not_shown_of_another_dataset(page: Page, tmp_path: Path) -> None:
    upload(page, write_rows(tmp_path / "sums.jsonl", 96))
    preview = page.locator("#dataset-preview")
    expect(preview).to_contain_text("What is 0 plus 0?")
    settled(page)
    search_box(page).fill("a")
    kept = hold(page, '"a"')
    choose_dataset(page, "demo")  # to leave the field searches, too
    expect(page.locator("#dataset-report")).to_contain_text("demo.jsonl")
    expect(preview).not_to_contain_text("0 plus 0")
    release(page, kept)
    expect(preview).not_to_contain_text("0 plus 0")


def test_a_second_upload_is_checked_beside_the_first(page: Page, served: Served, tmp_path: Path) -> None:
    first = tmp_path / "first.jsonl.gz"
    first.write_bytes(gzip.compress(write_rows(tmp_path / "rows.jsonl", 30).read_bytes()))
    report, cancel, problem = (page.locator(f"#dataset-{name}") for name in ("report", "cancel", "problem"))
    upload(page, first)
    worker = halted(served, "check")
    upload(page, write_rows(tmp_path / "second.jsonl", 20))
    expect(report).to_contain_text("second.jsonl")
    expect(page.locator("#dataset-list")).to_contain_text("second")
    expect(cancel).to_be_visible()
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF")
    upload(page, bad)
    expect(problem).to_contain_text("is not a kind of file that can be read")
    page.wait_for_timeout(3000)  # as long as it takes to look again
    expect(cancel).to_be_visible()
    worker.resume()
    expect(report).to_contain_text("first.jsonl.gz")
    expect(problem).to_contain_text("is not a kind of file that can be read")
    expect(cancel).to_be_hidden()


def test_a_check_that_another_page_began_is_followed(page: Page, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl.gz"
    path.write_bytes(gzip.compress(write_rows(tmp_path / "rows.jsonl", 30).read_bytes()))
    upload(page, path)
    worker = halted(served, "check")
    other = page.context.new_page()
    other.goto(served.url)
    cancel = other.locator("#dataset-cancel")
    expect(cancel).to_be_visible()
    worker.resume()
    expect(cancel).to_be_hidden()
    expect(other.locator("#dataset-list")).to_contain_text("sums")
    other.close()


def test_rows_that_are_typed_during_a_check_stay(page: Page) -> None:
    tab(page, "Paste")
    box = page.locator("#dataset-pasted textarea")
    box.fill('{"question": "Wer ist da?", "answer": "Das bin ich."}')
    kept = hold(page, "Wer ist da?")
    page.locator("#dataset-paste").click()
    wait_for(lambda: page.wait_for_timeout(20) or kept, "the rows are sent")
    box.fill("other rows")
    release(page, kept)
    expect(page.locator("#dataset-preview")).to_contain_text("Wer ist da?")
    expect(box).to_have_value("other rows")


def test_a_fix_is_applied_and_taken_back(page: Page, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "twice.jsonl", 60)
    path.write_text(path.read_text() * 2 + '{"question": "q", "answer": ""}\n')
    upload(page, path)
    report = page.locator("#dataset-report")
    expect(report).to_contain_text("messages (OpenAI) (120), question and answer (1)")
    expect(report).to_contain_text("121")
    found, fix = page.locator("#dataset-finding-drop-duplicates"), page.locator("#dataset-fix-drop-duplicates")
    expect(found).to_contain_text("60 rows repeat an earlier row")
    fix.click()
    expect(found).to_contain_text("Repeated rows are left out (60 rows)")
    expect(page.locator("#dataset-where")).to_contain_text("of 60")
    expect(page.locator("#dataset-list")).to_contain_text("60 rows")
    page.locator("#dataset-fix-drop-problems").click()
    expect(report).to_contain_text("All 60 rows that are left can be used.")
    expect(fix).to_have_text("Undo")
    fix.click()
    expect(found).to_contain_text("60 rows repeat an earlier row")
    expect(page.locator("#dataset-where")).to_contain_text("of 120")
    expect(report).to_contain_text("All 120 rows that are left can be used.")

    tab(page, "Problems")
    expect(page.locator("#dataset-problems")).to_contain_text("turn 2 (assistant) is empty")
    page.locator("#dataset-problem-kind input").click()
    page.get_by_role("option", name="empty turn (1)").click()
    expect(page.locator("#dataset-problems")).to_contain_text("Fill the turn in")


def test_a_large_check_moves_lets_the_page_be_used_and_is_cancelled(page: Page, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(2_500_000):
            file.write(f'{{"question": "What is {number}?", "answer": "It is {number * number} and no more"}}\n')
    other = page.context.new_page()
    other.goto(served.url)
    tab(other, "Configure")
    upload(page, path)
    cancel = page.locator("#dataset-cancel")
    seen: set[str] = set()

    def moved() -> bool:
        seen.update(page.locator("#dataset-report").get_by_text(re.compile("Checking: .* of .*")).all_inner_texts())
        return len(seen) > 2

    wait_for(moved, "progress that moves")
    search = page.locator("#dataset-search input, #dataset-search textarea").first
    search.fill("nothing like it")
    search.press("Enter")
    expect(page.locator("#dataset-preview")).to_contain_text("No row contains", timeout=5_000)
    expect(cancel).to_be_visible()
    tab(other, "Dataset")
    expect(other.locator("#dataset-cancel")).to_be_visible()
    other.locator("#dataset-cancel").dispatch_event("click")
    expect(other.locator("#dataset-cancel")).to_be_hidden()
    other.close()
    expect(page.locator("#dataset-problem")).to_contain_text("large.jsonl.gz was cancelled")
    expect(cancel).to_be_hidden()
    expect(page.locator("#dataset-list")).not_to_contain_text("large")
    left = served.home / "local"
    wait_for(lambda: not any(left.glob("uploads/*")) and not any(left.glob("datasets/.check-*")), "nothing left")
    upload(page, write_rows(tmp_path / "small.jsonl", 20))
    expect(page.locator("#dataset-report")).to_contain_text("small.jsonl")


def test_rows_are_pasted_searched_and_exported(page: Page, served: Served) -> None:
    tab(page, "Paste")
    box = page.locator("#dataset-pasted textarea")
    box.fill("\n".join(json.dumps({"question": f"Wer ist {n}?", "answer": f"Das ist <b>{n}</b>."}) for n in range(12)))
    page.locator("#dataset-paste").click()
    expect(page.locator("#dataset-report")).to_contain_text("12")
    expect(page.locator("#dataset-preview")).to_contain_text("Das ist <b>0</b>.")
    expect(box).to_have_value("")
    settled(page)
    page.locator("#dataset-forth").click()
    expect(page.locator("#dataset-where")).to_contain_text("Rows 6–10 of 12")
    search = page.locator("#dataset-search input, #dataset-search textarea").first
    search.fill("wer ist 11")
    search.press("Enter")
    expect(page.locator("#dataset-preview")).to_contain_text("Row 12")
    settled(page)
    tab(page, "Export")
    kinds: tuple[Kind, ...] = ("jsonl", "parquet")
    for kind in kinds:
        page.locator(f"#dataset-export-{kind}").click()
        expect(page.locator("#dataset-exported")).to_contain_text(f".{kind}")
    with page.expect_download() as told:
        page.locator("#dataset-exported a").first.click()
    assert told.value.path().read_bytes()[:4] == b"PAR1"


PUSH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("alice/sums", repo_type="dataset", exist_ok=True)
api.upload_folder(folder_path=sys.argv[1], repo_id="alice/sums", repo_type="dataset")
"""


def test_a_dataset_of_the_hub_is_looked_up_before_it_is_downloaded(page: Page, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "repo" / "data"
    folder.mkdir(parents=True)
    write_rows(folder / "train.jsonl", 40)
    write_rows(folder / "test.jsonl", 5)
    subprocess.run([sys.executable, "-c", PUSH, str(folder.parent)], env=hub.env(tmp_path / "hf2", TOKEN), check=True)
    tab(page, "Hub")
    name = page.locator("#dataset-hub-id input, #dataset-hub-id textarea").first
    name.fill("alice/nothing")
    page.locator("#dataset-hub-look").click()
    expect(page.locator("#dataset-hub-said")).to_contain_text("There is no dataset 'alice/nothing'")
    name.fill("alice/sums")
    name.press("Enter")
    expect(page.locator("#dataset-hub-said")).to_contain_text("licence not stated")
    expect(page.locator("#dataset-hub-split input")).to_have_value(re.compile("default · train · .* KiB"))
    page.locator("#dataset-hub-fetch").click()
    expect(page.locator("#dataset-report")).to_contain_text("From the Hub: alice/sums · default · train · revision")
    expect(page.locator("#dataset-where")).to_contain_text("of 40")
