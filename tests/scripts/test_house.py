"""The figures of the house, of a small tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "house.py"
ONE = '''"""A module."""

from typing import Any

from .inner import two  # a comment


class A:
    """A class,

    of three lines."""

    def f(self, x: Any, *rest: Any | None, y: list[Any] = ()) -> Any:
        if x:
            return y
'''


def figures(root: Path) -> tuple[int, list[list[str]]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "cluster", "--root", root], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, [line.split() for line in done.stdout.splitlines()]


def test_figures_and_circles_of_a_small_tree(tmp_path):
    (tmp_path / "cluster" / "inner").mkdir(parents=True)
    (tmp_path / "cluster" / "one.py").write_text(ONE)
    two = tmp_path / "cluster" / "inner" / "two.py"
    two.write_text("import os\n")
    status, lines = figures(tmp_path)
    # files, lines, statements, those without docstrings, words, statements a line, classes, Any, the longest file
    both = ["2", "16", "9", "7", "31%", "0.56", "1", "3", "one.py", "15"]
    assert (status, lines[1:]) == (
        0,
        [["cluster/", *both], ["inner/", "1", "1", "1", "1", "0%", "1.00", "0", "0", "two.py", "1"], ["all", *both]],
    )
    two.write_text("def late():\n    from heliostat.cluster.one import A\n")
    status, lines = figures(tmp_path)
    assert status == 1
    assert lines[-1] == ["circle", "of", "2", "files:", "cluster/inner/two.py,", "cluster/one.py"]
