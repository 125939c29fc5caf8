"""A new user: a wheel in an environment of its own, outside of the checkout, and getting started by the letter.

What it takes is printed: `pytest -s`. It needs the package index that pip uses.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from . import page as program
from .page import ROOT

PAGE = ROOT / "docs" / "getting-started.md"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "site", "*.egg-info", "__pycache__", "runs")


class Newcomer:
    """A folder with an environment `bin`, and commands as a shell runs them after `source bin/activate`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = folder / "here"
        self.here.mkdir()
        left = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.environ = {
            **left,
            "PATH": f"{folder / 'venv' / 'bin'}:{left['PATH']}",
            "XDG_CACHE_HOME": str(folder / "c"),
        }

    def start(self, *command: str, log: str = "log") -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            return subprocess.Popen(
                command, cwd=self.here, env=self.environ, stdout=out, stderr=out, start_new_session=True
            )

    def run(self, *command: str, status: int = 0) -> str:
        """What a command says, which must end with that status."""
        began_s = time.monotonic()
        process = self.start(*command)
        try:
            assert process.wait(timeout=600) == status, self.said()[-6000:]
        finally:
            end(process)
        print(f"{time.monotonic() - began_s:6.1f} s  {' '.join(command)}")
        return self.said()

    def said(self, log: str = "log") -> str:
        return (self.folder / log).read_text()


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def newcomer(tmp_path):
    """Somebody who has installed a wheel made of this checkout."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=LEFT_OUT)
    made = Newcomer(tmp_path)
    made.run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    made.run("pip", "wheel", str(clone), "--no-deps", "--wheel-dir", str(tmp_path / "wheel"))
    shutil.rmtree(clone)
    (wheel,) = (tmp_path / "wheel").iterdir()
    made.run("pip", "install", str(wheel))
    return made


@pytest.mark.slow
@pytest.mark.ray
def test_a_new_user_gets_a_run_stops_it_and_goes_on(newcomer):
    found = newcomer.run("python", "-c", "import heliostat.trainer; print(heliostat.trainer.__file__)")
    assert found.startswith(str(newcomer.folder / "venv"))
    newcomer.run("python", program.__file__, str(PAGE))
    script = newcomer.here / "train.py"
    script.write_text(script.read_text().replace("epochs=10", "epochs=50"))
    press_ctrl_c(newcomer, "epoch 12/50")
    assert "going on from checkpoint" in newcomer.run("python", "train.py")
    assert len((newcomer.here / "runs" / "first" / "metrics.jsonl").read_text().splitlines()) == 50


def press_ctrl_c(newcomer: Newcomer, line: str) -> None:
    """Start the script, and stop it as a terminal does as soon as it says this."""
    process = newcomer.start("python", "train.py")
    try:
        until_s = time.monotonic() + 300
        while line not in newcomer.said() and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 75, newcomer.said()[-6000:]
    finally:
        end(process)
    assert "run the same command again" in newcomer.said()
