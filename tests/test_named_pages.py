"""Pages that code names, in texts of errors and in docstrings, are there, with the heading that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .docs.page import ROOT, anchors_of_headings

NAMED = re.compile(r"\bdocs/[\w./-]+?\.md(?:#[\w-]+)?")


def named(root: Path) -> Iterator[tuple[str, str]]:
    """(file and line, page as it is named there) in all code."""
    for folder in ("cluster", "data", "trainer", "scripts"):
        for path in sorted((root / folder).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                for page in NAMED.findall(line):
                    yield f"{path.relative_to(root)}:{number}", page


def wrong(root: Path) -> list[str]:
    found = []
    for place, name in named(root):
        page, _, anchor = name.partition("#")
        if not (root / page).is_file():
            found.append(f"{place} names {page}, which is not there")
        elif anchor and anchor not in anchors_of_headings((root / page).read_text()):
            found.append(f"{place} names {name}, and the page has no such heading")
    return found


def test_pages_that_code_names_are_there():
    assert wrong(ROOT) == []
    assert len(list(named(ROOT))) > 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('raise E("See docs/how-to/cluster.md.")', []),
        ('"""See docs/how-to/cluster.md#two-hosts, and docs/how-to/cluster.md."""', []),
        ("# docs/cluster.md", ["trainer/a.py:1 names docs/cluster.md, which is not there"]),
        (
            "\n(docs/how-to/cluster.md#tree)",
            ["trainer/a.py:2 names docs/how-to/cluster.md#tree, and the page has no such heading"],
        ),
    ],
)
def test_a_page_or_heading_that_is_not_there_is_found(source, said, tmp_path):
    (tmp_path / "docs" / "how-to").mkdir(parents=True)
    (tmp_path / "docs" / "how-to" / "cluster.md").write_text("# A cluster\n\n## Two hosts\n")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "a.py").write_text(source)
    assert wrong(tmp_path) == said
