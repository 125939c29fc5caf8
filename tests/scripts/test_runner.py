"""What benchmarks share: when a timed run ends, what processes print, and that none of them is left."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The scripts import each other as neighbours, as they do when one is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    return run


def test_the_clock_leaves_out_warm_up_and_probe_and_stops_all_at_the_agreed_step(
    run: ModuleType,
) -> None:
    import clock

    now = [0.0]
    told: list[float] = []
    step_clock = clock.StepClock(2.0, lambda rate: told.append(rate) or 5.0, now=lambda: now[0])
    num_steps = 0
    over = False
    while not over:
        now[0] += 100.0 if num_steps < clock.WARM_UP_STEPS else 0.5
        over = step_clock.step_done()
        num_steps += 1
    assert told == [2.0]
    assert num_steps == clock.WARM_UP_STEPS + clock.PROBE_STEPS + 10
    assert json.loads(step_clock.report(32)) == {"steps_per_s": 2.0, "samples_per_s": 64.0, "steps": 10, "seconds": 5.0}


def test_a_failing_process_ends_the_run_at_once_and_its_peer_with_it(run: ModuleType, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    sleeper = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    # It fails only after its peer is up.
    up = f"os.path.exists({str(pid_file)!r}) and open({str(pid_file)!r}).read()"
    failing = f"import os, sys, time\nwhile not ({up}):\n    time.sleep(.01)\nsys.exit('no such op')"
    commands = [[sys.executable, "-c", sleeper], [sys.executable, "-c", failing]]
    with pytest.raises(run.BenchmarkError, match=r"(?s)Process 1 ended with status 1.*no such op"):
        run.together(commands, "x", "two processes", limit_s=60.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_silent_process_is_killed_at_the_limit(run: ModuleType) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(run.BenchmarkError, match="No result after 0 s; a sleeper"):
        run.together([command], "x", "a sleeper", limit_s=0.0)


def test_a_process_without_a_result_is_an_error(run: ModuleType) -> None:
    with pytest.raises(run.BenchmarkError, match=r'(?s)No JSON with "x".*hello'):
        run.together([[sys.executable, "-c", "print('hello')"]], "x", "a greeting", limit_s=60.0)


def test_a_result_is_found_among_other_words(run: ModuleType) -> None:
    code = "print('(raylet) {no json}'); print('{\"rows\": [1]}'); print('{\"rows\": [2]}'); print('(raylet) bye')"
    assert run.together([[sys.executable, "-c", code]], "rows", "words") == {"rows": [2]}


def test_every_round_has_another_order(run: ModuleType) -> None:
    assert list(run.turns("abc", 4)) == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"], ["c", "b", "a"]]
    assert run.in_turn(["a", "b"], 2, lambda name: {"name": name}) == {
        "a": [{"name": "a"}] * 2,
        "b": [{"name": "b"}] * 2,
    }


def test_every_workload_has_the_data_its_model_takes(run: ModuleType) -> None:
    import models

    assert {name: one.global_batch_size for name, one in models.WORKLOADS.items()} == {
        "chapter": 512,
        "dense256": 512,
        "dense1024": 512,
        "dense2048": 256,
        "deep80": 512,
    }
    for name, workload in models.WORKLOADS.items():
        x, y = models.make_data(name)
        assert x.shape[1:] == ((300,) if name == "chapter" else (784,))
        assert x.dtype == (np.int32 if name == "chapter" else np.uint8)
        assert len(x) == len(y) == workload.num_rows
        assert len(x) % workload.global_batch_size == 0
        assert y.max() == (45 if name == "chapter" else 9)
