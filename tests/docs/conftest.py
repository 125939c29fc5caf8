"""The built site, for the tests of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Built(NamedTuple):
    """The site as Sphinx has made it: its folder; what went wrong, where a warning counts as an error."""

    folder: Path
    errors: str


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """The site, whatever warnings there were."""
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "cache"), "docs"]
    done = subprocess.run([*program, str(folder / "html")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return Built(folder / "html", done.stderr if done.returncode else "")


@pytest.fixture(scope="session")
def site(built) -> Path:
    """The folder of the built site."""
    return built.folder


def names_of(site: Path) -> list[str]:
    """The paths of its pages, but for what the theme brings along."""
    found = [path.relative_to(site) for path in sorted(site.rglob("*.html"))]
    return [path.as_posix() for path in found if path.parts[0] != "_static"]
