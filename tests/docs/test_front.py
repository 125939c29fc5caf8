"""README and the front page of the docs lead somewhere, and by the same questions to the same pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .page import ROOT, anchors_of_headings

README, INDEX = ROOT / "README.md", ROOT / "docs" / "index.md"


def links(page: Path) -> list[tuple[str, Path, str]]:
    """(text, file, anchor) of a page's links, but for those to elsewhere in the web."""
    found = re.findall(r"\[([^]]+)\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text())
    inside = [(text, place, anchor) for text, place, anchor in found if "://" not in place]
    return [(text, (page.parent / place).resolve() if place else page, anchor) for text, place, anchor in inside]


def anchors(page: Path) -> set[str]:
    """Those of its headings, and those that stand there as `(name)=`."""
    text = page.read_text()
    return anchors_of_headings(text) | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", [README, INDEX], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert links(page)
    for text, place, anchor in links(page):
        assert place.exists(), f"[{text}] leads to {place}"
        assert not anchor or anchor in anchors(place), f"[{text}] leads to #{anchor} of {place}"


def test_both_answer_the_questions_by_the_same_pages():
    table = re.findall(r"^\| \[([^]]+)\]\(docs/([^)]+)\)", README.read_text(), re.MULTILINE)
    listed = re.findall(r"^\d+\. \[([^]]+)\]\(([^)]+)\)", INDEX.read_text(), re.MULTILINE)
    assert table == listed
    assert len(listed) == 10
