"""The papers tell the truth: the README's tree, the option table, the requirements' reasons, the settings."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic.fields import FieldInfo

from ftapp.contract import config, evaluation, publication
from ftapp.contract.base import Contract

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree_paths(text: str) -> list[str]:
    """The paths in a tree: two spaces a level, several names a line, two spaces before what they are."""
    block = text.split("## The code", 1)[1].split("```")[1]
    paths: list[str] = []
    parents: list[str] = []
    for line in filter(str.strip, block.splitlines()[1:]):
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        del parents[depth:]
        paths += ["".join(parents) + name for name in names]
        parents.append(names[-1])
    return paths


def test_every_path_in_the_readmes_tree_exists() -> None:
    missing = [path for path in tree_paths(README) if not (ROOT / path).exists()]
    assert missing == []


def test_every_module_is_in_the_readmes_tree() -> None:
    named = set(tree_paths(README))
    real = {str(path.relative_to(ROOT)) for path in (ROOT / "ftapp").rglob("*.py") if path.name != "__init__.py"}
    assert sorted({"app.py", *real} - named) == []


def test_the_readme_is_short() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert len(prose.split()) <= 750


def test_the_papers_name_every_setting() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    names = r"(?:FTAPP|OAUTH|SPACE|OPENID)_[A-Z_]+|HF_TOKEN"
    known = set(re.findall(names, (ROOT / "ftapp/settings.py").read_text(encoding="utf-8")))
    assert known
    assert sorted(name for name in known if f"`{name}`" not in page) == []
    assert sorted(set(re.findall(names, page + README)) - known) == []


def test_the_readmes_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readmes_config_is_valid() -> None:
    block = re.search(r"```json\n(.*?)```", README, flags=re.DOTALL)
    assert block
    assert config.RunConfig.model_validate_json(block[1])


def test_the_option_table_is_the_schemas() -> None:
    written = runpy.run_path(str(ROOT / "docs/generate.py"))["page"]()
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == written, "run: make docs"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_pin_and_a_reason(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith(("#", "-r "))]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.+]+\s+# \S.*", line)] == []


MODELS = [
    each
    for each in (*vars(config).values(), evaluation.EvaluateConfig, publication.PublishConfig)
    if isinstance(each, type) and issubclass(each, Contract)
]
FIELDS = [(f"{model.__name__}.{name}", field) for model in MODELS for name, field in model.model_fields.items()]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_config_field_has_a_title_and_a_description(name: str, field: FieldInfo) -> None:
    assert field.title
    assert field.description
    assert field.description.endswith(".")


def test_the_spaces_front_page_is_a_docker_space() -> None:
    text = (ROOT / "spaces/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["sdk"] == "docker"
    assert f"FTAPP_PORT={front['app_port']}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert len(front["short_description"]) <= 60
    assert front["hf_oauth"] is True
    assert front["hf_oauth_expiration_minutes"] == 480
    assert set(front["hf_oauth_scopes"]) == {"contribute-repos", "gated-repos", "read-repos"}, "the least that can push"
    assert "huggingface.co/spaces/OWNER/NAME?duplicate=true" in text


def test_the_repository_does_not_name_where_it_was_written() -> None:
    usual = {"", "/", "/app", "/home", "/srv", "/tmp", "/usr/src", "https://pypi.org/simple"}
    needles = {f"{place}/" for place in {str(ROOT), str(ROOT.parent)} - usual}
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for value in re.findall(r"(?:index-url|find-links|constraint)='([^']+)'", pip):
        parts = {part.removeprefix("file://").rstrip("/") for part in value.split()}
        needles |= {part for part in parts - usual if not part.startswith("https://download.pytorch.org")}
    tracked = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True).stdout
    named = [
        (name.decode(), needle)
        for name in filter(None, tracked.split(b"\0"))
        if (path := ROOT / name.decode()).is_file() and path.stat().st_size < 2**20
        for needle in needles
        if needle.encode() in path.read_bytes()
    ]
    assert named == []
