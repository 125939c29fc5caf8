"""Every benchmark runs, at toy size, and says what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .child import environment

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"
QUICK = [
    ("reader.py", "--part 0.02 --rounds 1 --seconds 0.1 --kinds fixed --sources", "Heliostat, batches"),
    ("allreduce.py", "--workers 2 --sizes 65536 --rounds 1 --block-s 0.01 --ways heliostat,copy"),
]
SLOW = [
    ("reader_limits.py", "--sizes 10000 20000 --rounds 1"),
    ("converting.py", "--rows 5000 --rounds 1"),
    ("foreign.py", "--gb 0.004 --formats parquet --shuffles window full"),
    ("foreign.py", "--gb 0.004 --formats tfrecord --shuffles full"),
    ("reader.py", "--part 0.02 --rounds 1 --seconds 0.1 --kinds fixed tokens --sources", "Heliostat, twelve lines"),
    ("training.py", "--models dense256 --rounds 1 --seconds 0.5"),
    ("start.py", "--model dense256 --rounds 1"),
    ("first_step.py", "--between 0 --rounds 1"),
    ("memory.py", "--models dense256 --workers 1"),
    ("growth.py", "--workers 1 2 3"),
    ("recovery.py", "--kills 1 --stops 0 --workers 2"),
    ("report.py", "--epochs 50 --samples 20 --workers 3 --metrics 6 --rounds 1"),
    ("goodput.py", "--every 4 --seconds 9 --workers 2"),
    ("slow_worker.py", "--epochs 6"),
    ("verdict.py", "--rounds 1 --only callbacks"),
]


def found(script: str, options: str, *more: str, tmp_path: Path) -> dict[str, object]:
    kept = tmp_path / "found.json"
    command = [sys.executable, str(FOLDER / script), *options.split(), *more, "--json", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(kept.read_text()))


@pytest.mark.engine
@pytest.mark.parametrize("arguments", QUICK, ids=lambda each: each[0])
def test_a_quick_benchmark_says_what_it_found(arguments: tuple[str, ...], tmp_path: Path) -> None:
    one = found(*arguments, tmp_path=tmp_path)
    assert one["rows"]
    assert "error" not in json.dumps(one)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("arguments", SLOW, ids=lambda each: each[0])
def test_a_benchmark_says_what_it_found(arguments: tuple[str, ...], tmp_path: Path) -> None:
    one = found(*arguments, tmp_path=tmp_path)
    assert one.get("rows", one.get("heliostat"))
    assert "error" not in json.dumps(one)
