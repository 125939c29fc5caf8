"""Scripts of the repository in processes of their own, in an empty folder, as a reader runs his copy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..scripts.child import environment
from ..slow import SLOW

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples"
LIMIT_S = 240.0


def start(script: Path, folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a script in a folder; its output is in `said.txt` there."""
    folder.mkdir(parents=True, exist_ok=True)
    env = environment(**{"CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1", **variables})
    for name in {"HELIOSTAT_WORKERS", "HELIOSTAT_ADDRESS", "RAY_ADDRESS"} - set(variables):
        env.pop(name, None)
    with (folder / "said.txt").open("a") as out:
        command = [sys.executable, str(script), *arguments]
        return subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, text=True)


def ended(process: subprocess.Popen[str], folder: Path) -> tuple[int, list[str]]:
    """(its exit status, the lines of all that was said in the folder)"""
    try:
        status = process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
    return status, (folder / "said.txt").read_text().splitlines()


def run(script: Path, folder: Path, *arguments: str, **variables: str) -> list[str]:
    """Run a script to its end, which must be a good one; returns the lines that it said."""
    status, said = ended(start(script, folder, *arguments, **variables), folder)
    assert status == 0, "\n".join(said[-40:])
    return said


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait while a process lives."""
    until_s = time.monotonic() + LIMIT_S * SLOW
    while not is_so():
        assert process.poll() is None, "the script has ended"
        assert time.monotonic() < until_s, "nothing has happened"
        time.sleep(0.05)


def record(run_dir: Path) -> dict[str, Any]:
    """What the run folder's `run.json` holds."""
    return json.loads((run_dir / "run.json").read_text())


def epochs(run_dir: Path) -> int:
    """How many epochs the run folder has."""
    file = run_dir / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0
