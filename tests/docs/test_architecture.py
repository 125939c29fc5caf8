"""The page for whoever changes the code: the files and folders that it names are there, and no floor is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..test_floors import FLOORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
FILES = {
    path.relative_to(ROOT).as_posix()
    for folder in ("cluster", "data", "trainer", "scripts", "tests")
    for path in (ROOT / folder).rglob("*.py")
}
FOLDERS = {parent.as_posix() for file in FILES for parent in Path(file).parents}


def unknown(page: str) -> Iterator[str]:
    """Files and folders that a page names and that are not there; a path may begin anywhere below the root."""
    for name in re.findall(r"[\w*/]+\.py\b|\b\w+/(?!\w)", page):
        there = FILES if name.endswith(".py") else FOLDERS
        if not any(f"/{each}".endswith(f"/{name.rstrip('/')}") for each in there):
            yield name


def test_files_and_folders_are_there_and_no_floor_is_missing():
    page = PAGE.read_text()
    assert list(unknown(page)) == []
    folders = {name for package, floors in FLOORS.items() for floor in floors for name in floor}
    folders = {name for name in folders if any(f"{package}/{name}" in FOLDERS for package in FLOORS)}
    assert {name for name in folders if f"{name}/" not in page} == set()


@pytest.mark.parametrize("name", ["`nothing.py`", "engine/mesh.py", "engines/", "`cluster/tree/`"])
def test_what_is_not_there_is_found(name):
    assert len(list(unknown(f"see {name} and `engine/step.py`, driver/ too"))) == 1
