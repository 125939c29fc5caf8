"""The pages of benchmarks: their tables are those of the kept results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts" / "benchmarks"


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import render

    return render


def test_the_pages_are_what_the_kept_results_make_of_them(render: ModuleType) -> None:
    pages = [page.read_text() for page in render.PAGES]
    assert [render.rendered(page, render.RESULTS) for page in pages] == pages
    shown = [name for page in pages for name in re.findall(r"<!--result (\w+)-->", page)]
    assert sorted(path.stem for path in render.RESULTS.glob("*.json")) == sorted(shown)


def test_a_result_has_its_origin_and_a_column_for_every_figure(render: ModuleType, tmp_path: Path) -> None:
    about = {
        "command": "python x.py",
        "commit": "abc",
        "day": "2026-01-01",
        "host": {"cores": 2},
        "versions": {"a": "1"},
    }
    rows = [{"way": "one", "ms": 1234.5}, {"way": "two", "parts": [1, 2]}]
    (tmp_path / "x.json").write_text(json.dumps({"about": about, "rows": rows}))
    assert render.rendered("before\n<!--result x-->\nold\n<!--/result-->\nafter", tmp_path) == (
        "before\n<!--result x-->\n`python x.py`, at abc on 2026-01-01; cores 2; a 1.\n\n"
        "| way | ms | parts |\n| --- | --- | --- |\n| one | 1,234.5 |  |\n| two |  | 1, 2 |\n<!--/result-->\nafter"
    )


def test_every_benchmark_has_a_row_in_the_list_of_questions() -> None:
    """A script that can be run by itself and is no part of another."""
    listed = set(re.findall(r"\| `(\w+\.py)`", (FOLDER / "README.md").read_text()))
    parts = re.compile(r".*_(process|data|sources|others|page_cache)\.py|(models|clock|disturb|run|render)\.py")
    assert listed == {path.name for path in FOLDER.glob("*.py") if not parts.fullmatch(path.name)}
