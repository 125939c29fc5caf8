"""The page of promises: each names test files, which are there, hold tests, and run when the page says they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "promises.md"
LINK = re.compile(r"\[(\w+\.py)\]\((\.\./\.\./tests/[\w/]+\.py)\)( \(all\))?")
TESTS = re.compile(r"^(def test_|Test\w+ = )", re.MULTILINE)  # the second are machines of Hypothesis
ONLY_ALL = re.compile(r"^pytestmark = .*\bslow\b", re.MULTILINE)


def promises(page: str) -> list[str]:
    """The rows of the page's tables."""
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if not re.fullmatch(r"\|(---\|)+", row) and row != "| promise | held by |"]


def faults(row: str) -> list[str]:
    """What is wrong with what a promise says of its tests."""
    held_by = row.rstrip(" |").rpartition(" | ")[2]
    found = [] if LINK.search(held_by) else ["names no test"]
    if len(LINK.findall(held_by)) != held_by.count("]("):
        found.append("links to what is no test file")
    for name, target, is_all in LINK.findall(held_by):
        file = PAGE.parent / target
        text = file.read_text() if file.is_file() else ""
        if not TESTS.search(text) or file.name != name:
            found.append(f"{target} is no file of tests called {name}")
        elif bool(ONLY_ALL.search(text)) != bool(is_all):
            found.append(f"{name} {'runs' if is_all else 'does not run'} without --all")
    return found


def test_every_promise_is_held_by_tests_that_are_there():
    rows = promises(PAGE.read_text())
    assert len(rows) >= 25
    assert [(row, found) for row in rows if (found := faults(row))] == []


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ("nobody", "names no test"),
        ("[test_soak.py](../../tests/trainer/test_soak.py)", "test_soak.py does not run without --all"),
        ("[test_ray.py](../../tests/trainer/test_ray.py) (all)", "test_ray.py runs without --all"),
        (
            "[test_no.py](../../tests/trainer/test_no.py)",
            "../../tests/trainer/test_no.py is no file of tests called test_no.py",
        ),
        (
            "[faults.py](../../tests/trainer/faults.py)",
            "../../tests/trainer/faults.py is no file of tests called faults.py",
        ),
        (
            "[test_ray.py](../../tests/trainer/test_ray.py), [a page](cost.md)",
            "links to what is no test file",
        ),
    ],
)
def test_a_promise_that_nothing_holds_is_found(held_by, said):
    assert faults(f"| It is so | {held_by} |") == [said]
