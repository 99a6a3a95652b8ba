"""The Configure tab in a real browser: what is told about model, memory and time before anything is paid for."""

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import TOKEN, settled
from tests.browser.test_story import MINUTES, tab
from tests.hub.fixture import Hub
from tests.models import make
from tests.running import wait_for

COUNTING = """() => window.gradio_config.dependencies.filter((one) => one.outputs.some((id) =>
    window.gradio_config.components.find((part) => part.id === id)?.props.elem_id === "config-parameters"))
    .map((one) => one.id)"""
"""The numbers of the handlers that say how much is trained."""
PUSH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("alice/tiny-llama")
api.upload_folder(folder_path=sys.argv[1], repo_id="alice/tiny-llama")
"""


def test_a_model_of_the_hub_is_found_and_known_before_the_start(page: Page, hub: Hub, tmp_path: Path) -> None:
    base = make("llama", tmp_path / "tiny")
    subprocess.run([sys.executable, "-c", PUSH, str(base)], env=hub.env(tmp_path / "hf2", TOKEN), check=True)
    tab(page, "Configure")
    page.locator("#config-find").get_by_role("button").first.click()
    search = page.locator("#config-model-search input, #config-model-search textarea").first
    search.press_sequentially("llama nobody-has")
    expect(page.locator("#config-model-said")).to_contain_text("No model with safetensors weights")
    search.fill("tiny-llama")
    page.locator("#config-model-hits label").filter(has_text="alice/tiny-llama").click()
    facts = page.locator("#config-model-facts")
    expect(facts).to_contain_text("LlamaForCausalLM", timeout=1 * MINUTES)
    expect(facts).to_contain_text("256 tokens")
    expect(facts).to_contain_text("<|im_end|>")
    expect(page.locator("#config-model-id input, #config-model-id textarea").first).to_have_value("alice/tiny-llama")
    page.locator("#config-code").get_by_role("button").first.click()
    expect(page.locator("#config-code-command")).to_contain_text("python -m ftapp train")
    expect(page.locator("#config-code-config")).to_contain_text('"alice/tiny-llama"')
    expect(page.locator("#config-code-script")).to_contain_text("SFTTrainer")


def _headers_of_eight_billion(folder: Path) -> Path:
    """A Llama of eight billion parameters as far as its headers tell; the disk holds no weights."""
    hidden, inner, layers, words = 4096, 14336, 32, 128_256
    shapes = {"model.embed_tokens.weight": [words, hidden], "lm_head.weight": [words, hidden]}
    for number in range(layers):
        place = f"model.layers.{number}."
        for name, shape in {
            "q": [hidden, hidden],
            "k": [1024, hidden],
            "v": [1024, hidden],
            "o": [hidden, hidden],
        }.items():
            shapes[f"{place}self_attn.{name}_proj.weight"] = shape
        for name, shape in {"gate": [inner, hidden], "up": [inner, hidden], "down": [hidden, inner]}.items():
            shapes[f"{place}mlp.{name}_proj.weight"] = shape
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        header[name] = {
            "dtype": "BF16",
            "shape": [rows, columns],
            "data_offsets": [end, end := end + 2 * rows * columns],
        }
    text = json.dumps(header).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": words, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_does_not_fit_is_told_with_changes_that_make_it_fit(page: Page, tmp_path: Path) -> None:
    folder = _headers_of_eight_billion(tmp_path / "eight-billion")
    tab(page, "Configure")
    page.get_by_role("radio", name="Full").check()
    model = page.locator("#config-model-id input, #config-model-id textarea").first
    model.fill(str(folder))
    model.blur()
    expect(page.locator("#config-parameters")).to_contain_text("8.03")
    memory = page.locator("#config-memory")
    expect(memory).to_contain_text("It does not fit")
    offered = page.locator("#config-change-0")
    expect(offered).to_be_visible()
    offered.click()
    expect(memory).not_to_contain_text("It does not fit")
    expect(page.get_by_role("radio", name="Full")).not_to_be_checked()
    expect(offered).to_be_hidden()


def test_presets_fill_the_form_and_rows_are_measured(page: Page) -> None:
    tab(page, "Configure")
    epochs = page.locator("#config-duration-epochs input, #config-duration-epochs textarea").first
    rank = page.locator("#config-method-rank input, #config-method-rank textarea").first
    page.locator("#config-preset-quality").click()
    expect(epochs).to_have_value("5")
    expect(rank).to_have_value("64")
    page.locator("#config-preset").click()
    expect(epochs).to_have_value("10")
    memory = page.locator("#config-memory")
    expect(memory).to_contain_text("the longest allowed")
    page.locator("#config-measure").click()
    expect(memory).not_to_contain_text("the longest allowed", timeout=1 * MINUTES)
    expect(page.locator("#config-duration")).to_contain_text("No past run on this machine")
    page.locator("#config-two-steps").click()
    expect(page.locator("#config-duration")).to_contain_text("from two steps of this model", timeout=2 * MINUTES)


def test_what_is_told_is_of_the_last_values_though_it_comes_late(page: Page) -> None:
    tab(page, "Configure")
    expect(page.locator("#config-parameters")).to_contain_text("trained")
    rank = page.locator("#config-method-rank input, #config-method-rank textarea").first
    rank.fill("64")
    rank.blur()
    settled(page)
    told = page.locator("#config-parameters").inner_text()
    slow: list[Route] = []
    counting = page.evaluate(COUNTING)

    def hold(route: Route) -> None:
        asked = json.loads(route.request.post_data or "{}")
        if not slow and asked.get("fn_index") in counting:
            slow.append(route)
        else:
            route.continue_()

    page.route("**/queue/join*", hold)
    rank.fill("8")
    rank.blur()
    wait_for(lambda: page.wait_for_timeout(20) or slow, "the count for 8", 20)
    rank.fill("64")
    rank.blur()
    settled(page, 3)  # one is held, so it does not come to rest
    slow[0].continue_()
    settled(page)
    expect(page.locator("#config-parameters")).to_have_text(told, use_inner_text=True)
