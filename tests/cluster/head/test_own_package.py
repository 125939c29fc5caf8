"""Heliostat as a package: whole, the same bytes each time, and used instead of what else is installed."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from heliostat.cluster.head.own_package import heliostat_package

ROOT = Path(__file__).parents[3]


def test_it_is_what_is_imported_here_without_what_is_no_package():
    package = heliostat_package()
    assert package == heliostat_package()
    with zipfile.ZipFile(io.BytesIO(package)) as opened:
        found = {entry.filename: opened.read(entry) for entry in opened.infolist()}
    parts = {"cluster", "data", "trainer", "scripts"}
    folders = [path.parent for part in parts for path in (ROOT / part).rglob("__init__.py")]
    wanted = {f"heliostat/{path.relative_to(ROOT)}" for folder in folders for path in folder.glob("*.py")}
    wanted |= {f"heliostat/{part}/py.typed" for part in parts} | {"heliostat/trainer/report/report.html.j2"}
    assert set(found) == wanted
    assert found["heliostat/trainer/trainer.py"] == (ROOT / "trainer" / "trainer.py").read_bytes()
    assert len(package) < 5_000_000


def test_it_comes_before_one_that_is_installed(tmp_path):
    with zipfile.ZipFile(io.BytesIO(heliostat_package())) as opened:
        opened.extractall(tmp_path)
    program = "import heliostat.cluster.errors, heliostat.scripts.errors as e; print(e.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(tmp_path / "heliostat" / "scripts" / "errors.py"), done.stderr
