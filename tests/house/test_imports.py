"""Who may import whom: the contracts in pyproject.toml, and what a fresh interpreter really loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "ftapp").rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


def test_import_contracts_hold() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def loaded_by(statement: str, names: tuple[str, ...]) -> str:
    script = f"import sys\n{statement}\nprint(','.join(name for name in {names!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_the_page_loads_no_torch() -> None:
    assert loaded_by("import app, gc, inspect; assert gc.isenabled(); inspect.getfile(app)", HEAVY) == ""


def test_the_terminal_loads_neither_torch_nor_gradio() -> None:
    assert loaded_by("import ftapp.__main__", (*HEAVY, "gradio", "pandas", "pyarrow")) == ""


def test_the_preview_loads_only_what_reads_tokens() -> None:
    assert loaded_by("import ftapp.workers.preview", (*HEAVY, "pandas")) == "torch,transformers"


def test_the_look_at_what_is_loaded_can_fail() -> None:
    assert loaded_by("import json", ("json", "torch")) == "json"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_lives_in_them(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree)
    if path.name == "__init__.py":
        assert [type(node) for node in tree.body if node is not (tree.body[0] if docstring else None)] == []
    else:
        assert docstring, "the module has no docstring"
    relative = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert relative == [], "relative imports"
