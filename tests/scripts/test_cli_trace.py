"""`heliostat trace`: real workers under a real script, and what the file says of them."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from heliostat.cluster.instruments import Span
from heliostat.scripts.cli import main
from heliostat.scripts.commands.tracing import summary, wanted_steps
from heliostat.scripts.errors import ScriptError
from heliostat.trainer.driver.trace_file import chrome_trace
from heliostat.trainer.environment import TraceWanted
from heliostat.trainer.events import CheckpointCommitted, EpochRecord, GroupFormed, WorkerLost
from heliostat.trainer.single_steps import ClockReading, WorkerTrace
from heliostat.trainer.worker.tracer import clock_identity

from .child import heliostat

SCRIPT = """
import json, sys
import keras, numpy as np
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model

class Quiet(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        pass

if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    with Trainer(build, num_microbatches=4, threads_per_worker=1, run_dir="own", **json.loads(sys.argv[1])) as trainer:
        for epochs in (1, 3):
            trainer.fit((x, 2 * x[:, :1]), validation_data=(x, x[:, :1]), epochs=epochs, global_batch_size=8, verbose=0,
                        callbacks=[Quiet()])
    print("the script went on")
"""
LOSES_A_WORKER = """
import threading
import keras, numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled
from heliostat.trainer import Trainer

def build():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

def die(point, step):
    if (point, step) == ("applied", 6) and threading.current_thread().name == "heliostat-worker-1":
        raise WorkerKilled("on purpose")

instruments.listen(die)
x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
with Trainer(build, workers=3, in_process=True, num_microbatches=4) as trainer:
    try:
        trainer.fit((x, x[:, :1]), epochs=10, global_batch_size=8, verbose=0)
    finally:
        print("finally")
print("the script went on")
"""
PARTS = {"control", "input", "compute", "local sum", "all-reduce", "apply"}
EPSILON_US = 0.01  # times are rounded to a thousandth of a microsecond


def run_trace(folder: Path, *options: str, script: str = SCRIPT, **given: object) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(script)
    return heliostat("trace", "train.py", json.dumps(given), *options, cwd=folder)


def spans_of(written: dict) -> dict[int, list[dict]]:
    """Complete events by process, checked for form."""
    assert set(written) == {"traceEvents", "displayTimeUnit", "otherData"}
    found = defaultdict(list)
    for event in written["traceEvents"]:
        assert event["ph"] in ("M", "X")
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            found[event["pid"]].append(event | {"end": event["ts"] + event["dur"]})
    return found


def named(events: list[dict], name: str) -> dict[int, dict]:
    """The events of a name by step; there is one in each."""
    found = [event for event in events if event["name"] == name]
    by_step = {event["args"]["step"]: event for event in found}
    assert len(by_step) == len(found)
    return by_step


def check_steps(events: list[dict], steps: range) -> None:
    """All parts of all these steps are there, inside their step and one after the other.

    A worker that lacks the sum when the group changes gets it from one that has it: its own all-reduce was interrupted.
    """
    whole = named(events, "step")
    assert list(whole) == list(steps)
    handed = {event["args"].get("step") for event in events if event["name"] == "all-reduce (interrupted)"}
    for step, around in whole.items():
        of_step = [event for event in events if event["args"].get("step") == step and event["name"] in PARTS]
        inside = [event for event in of_step if event["ts"] <= around["end"] - EPSILON_US]  # no validation
        assert {event["name"] for event in inside} | ({"all-reduce"} if step in handed else set()) == PARTS
        for event in inside:
            assert event["ts"] >= around["ts"] - EPSILON_US
            assert event["end"] <= around["end"] + EPSILON_US
        ordered = sorted(inside, key=lambda event: event["ts"])
        assert all(one["end"] <= other["ts"] + EPSILON_US for one, other in itertools.pairwise(ordered))


def check_one_clock(one: list[dict], other: list[dict]) -> None:
    """Nobody has a sum before everybody has brought a part to it; nobody is a step ahead."""
    sums, others = named(one, "all-reduce"), named(other, "all-reduce")
    interrupted = {e["args"]["step"] for e in (*one, *other) if e["name"] == "all-reduce (interrupted)"}
    assert sums.keys() - interrupted == others.keys() - interrupted
    for step in sorted(sums.keys() - interrupted):
        assert sums[step]["end"] >= others[step]["ts"]
        assert others[step]["end"] >= sums[step]["ts"]
        if step + 1 in sums and step + 1 in others:
            assert sums[step]["end"] <= others[step + 1]["end"]
            assert others[step]["end"] <= sums[step + 1]["end"]


@pytest.mark.ray
def test_two_ray_workers_on_one_clock(tmp_path):
    result = run_trace(tmp_path, "--steps", "9:22", "--output", "here.json", workers=2)
    assert result.returncode == 0, result.stderr
    assert "here.json: steps 9 to 21 of 2 worker(s)" in result.stdout
    assert "the script went on" not in result.stdout
    assert not (tmp_path / "own").exists(), "it wrote the script's own run folder"
    written = json.loads((tmp_path / "here.json").read_text())
    found = spans_of(written)
    assert set(found) == {0, 1, 2}
    for worker in (1, 2):
        check_steps(found[worker], range(9, 22))
        assert {"validation", "waiting for the others at the end of the epoch"} <= {e["name"] for e in found[worker]}
    check_one_clock(found[1], found[2])
    assert {"on_epoch_end", "checkpoint copy", "checkpoint write"} <= {e["name"] for e in found[1]}
    computed = {event["args"]["microbatch"] for each in (1, 2) for event in found[each] if event["name"] == "compute"}
    assert computed == {0, 1, 2, 3}
    assert "epoch 2" in {event["name"] for event in found[0]}
    for clock in written["otherData"]["workers"].values():
        # Both processes run under one kernel, so the truth is known: the offset is 0.
        assert clock["same_clock_as_driver"]
        offsets, bounds = clock["measured_offsets_s"], clock["measured_bounds_s"]
        assert len(offsets) == 2
        assert all(abs(offset) <= bound for offset, bound in zip(offsets, bounds, strict=True))


@pytest.mark.engine
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_first_fit_that_has_the_steps_is_traced_in_this_process_too(tmp_path, workers):
    result = run_trace(tmp_path, "--steps", "20:24", workers=workers, in_process=workers > 0)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "trace.json").read_text())
    found = spans_of(written)
    assert set(found) == {0, *range(1, max(workers, 1) + 1)}
    for worker in range(1, max(workers, 1) + 1):
        check_steps(found[worker], range(20, 24))


@pytest.mark.engine
@pytest.mark.slow
def test_a_script_without_such_steps_is_told(tmp_path):
    result = run_trace(tmp_path, "--steps", "100:120", workers=0)
    assert result.returncode == 1
    assert "no fit of it has steps 100 to 119" in result.stderr
    assert not (tmp_path / "trace.json").exists()


def test_mistakes_are_found_before_the_script_runs(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("raise RuntimeError('it ran')")
    for options, says in (
        (("--steps", "7:7"), "names no steps"),
        (("--output", str(tmp_path / "missing/trace.json")), "There is no folder"),
    ):
        result = CliRunner().invoke(main, ["trace", *options, str(script)])
        assert result.exit_code == 1
        assert says in result.output


def test_steps_are_read():
    assert wanted_steps("100:120") == TraceWanted(first=100, last=120)
    assert wanted_steps("3") == TraceWanted(first=3, last=4)
    for text in ("", "a:b", "5:", "-1:4", "9:2"):
        with pytest.raises(ScriptError, match="names no steps"):
            wanted_steps(text)


@pytest.mark.engine
def test_a_lost_worker_shows_as_a_change_of_the_group(tmp_path):
    result = run_trace(tmp_path, "--steps", "4:30", script=LOSES_A_WORKER)
    assert result.returncode == 0, result.stderr
    assert "Workers lost with what they had recorded: 1." in result.stdout
    assert "finally" in result.stdout
    assert "the script went on" not in result.stdout
    written = json.loads((tmp_path / "trace.json").read_text())
    assert written["otherData"]["lost_workers"] == [1]
    found = spans_of(written)
    check_steps(found[1], range(4, 30))
    check_one_clock(found[1], found[3])
    for survivor in (1, 3):
        assert "regrouping" in {event["name"] for event in found[survivor]}
    assert {"generation 1", "epoch 3", "epoch 4 (to be continued)"} <= {event["name"] for event in found[0]}


def written_of(*workers: WorkerTrace) -> dict:
    return chrome_trace(TraceWanted(first=0, last=1), dict(enumerate(workers)), [], [], None)


def traced_at(
    began_s: float, ended_s: float, *, offset_s: float = 0.0, bound_s: float = 0.0, clock: str = ""
) -> WorkerTrace:
    span = Span(name="all-reduce", lane=0, step=0, number=-1, began_s=began_s, ended_s=ended_s)
    readings = (ClockReading(own_s=began_s, offset_s=offset_s, bound_s=bound_s),)
    return WorkerTrace(host="a", spans=(span,), dropped=0, readings=readings, clock=clock)


def test_a_clock_of_another_machine_is_moved_to_the_drivers():
    here, there = traced_at(100.0, 101.0, clock=clock_identity()), traced_at(7.0, 8.5, offset_s=93.25, bound_s=0.002)
    written = written_of(here, there)
    found = spans_of(written)
    assert [(e["ts"], e["end"]) for e in found[1]] == [(0.0, 1e6)]
    assert [(e["ts"], e["end"]) for e in found[2]] == [(0.25e6, 1.75e6)]
    clocks = written["otherData"]["workers"]
    assert clocks["1"]["clock_error_s"] == 0.002
    assert not clocks["1"]["same_clock_as_driver"]
    assert clocks["0"]["clock_error_s"] == 0.0


def test_spans_without_room_are_told():
    written = written_of(replace(traced_at(0, 1, bound_s=0.003), dropped=12))
    said = summary(written, Path("trace.json"))
    assert "12 spans found no room" in said
    assert "clocks within 3 ms" in said


def test_what_the_run_folder_tells_is_on_the_drivers_lanes():
    now_s, wall_s = time.perf_counter(), time.time()
    events = [
        GroupFormed(time=wall_s - 9, generation=0, workers=(0, 1), joined=(0, 1), restarted=False),
        WorkerLost(time=wall_s - 3, worker=1, host="a", step=0, reason="killed", left=1),
        GroupFormed(time=wall_s - 1, generation=1, workers=(0,), joined=(), restarted=False),
        CheckpointCommitted(time=wall_s - 1, name="c", epoch=1, step=0, seconds=0, write_s=0, commit_s=0.5),
    ]
    epochs = [
        EpochRecord(time=wall_s - ago_s, epoch=number, logs={}, rows=1, rows_by_worker={}, seconds_by_worker={})
        for number, ago_s in enumerate([900, 4])
    ]
    traces = {0: traced_at(now_s - 5, now_s, clock=clock_identity())}
    written = chrome_trace(TraceWanted(first=0, last=1), traces, events, epochs, 2)
    found = {each["name"]: (round(each["ts"] / 1e6, 2), round(each["end"] / 1e6, 2)) for each in spans_of(written)[0]}
    assert found == {
        "epoch 2": (0.0, 1.0),
        "epoch 3 (to be continued)": (1.0, 5.0),
        "generation 1": (2.0, 4.0),
        "commit c": (3.5, 4.0),
    }
    assert written["otherData"]["lost_workers"] == [1]
