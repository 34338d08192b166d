"""Run what the documentation shows: Python blocks of every Markdown file, and every cookbook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from pytest_examples import CodeExample, EvalExample, find_examples

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "fusion_integrations/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "cookbooks").glob("*.ipynb"))


def _python_blocks(page: Path) -> list[CodeExample]:
    return [example for example in find_examples(str(page)) if example.prefix in ("python", "py")]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _python_blocks(page)], ids=_name)
def test_page_when_its_blocks_run_in_order_then_none_fails(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eval_example: EvalExample
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in _python_blocks(page):
        names |= eval_example.run(example, module_globals=dict(names))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_cookbook_when_run_then_no_cell_fails(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert any(cell.cell_type == "code" for cell in notebook.cells)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
