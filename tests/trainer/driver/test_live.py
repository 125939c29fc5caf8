"""The screen on real pseudo-terminals: of 80 columns, resized meanwhile, without colours, and such as cannot draw."""

from __future__ import annotations

import os
import re
import signal

import pytest
from heliostat.trainer.driver.run_folder import read_events, read_record

from ...terminal import LIMIT_S, terminal

# Does what it is told, line by line; it says "ready" where that is done.
PLAYER = """
import sys
from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.driver.screen import make_display
from heliostat.trainer.driver.worker_table import WorkerRow, WorkerTable
from heliostat.trainer.events import EpochRecord
from heliostat.trainer.jobs import Progress

rows = tuple(
    WorkerRow(worker=number, host="host-" + "abc"[number], microbatches=4, speed=1 - number / 4, input_share=0.0,
              wait_share=0.1, memory_bytes=10**9)
    for number in range(3)
)
shown = make_display("auto")
for line in sys.stdin:
    what, _, rest = line.strip().partition(" ")
    if what == "say":
        shown.say(rest)
    elif what == "print":
        print(rest)
    elif what == "doing":
        shown.doing(Doing(what=rest) if rest else None)
    elif what == "step":
        logs = {"loss": 0.5, "accuracy": 0.25}
        shown.progress(Progress(epoch=1, step=int(rest), steps=100, rows=32 * int(rest), num_workers=3, logs=logs), 4)
        shown.workers(WorkerTable(rows=rows, device="CPU", num_workers=3))
    elif what == "epoch":
        record = EpochRecord(epoch=1, logs={"loss": 0.5, "val_loss": 0.75, "accuracy": 0.25, "val_accuracy": 0.125},
                             rows=3200, rows_by_worker={}, seconds_by_worker={})
        shown.epoch(record, 4, 2.0)
    else:
        break
shown.close()
"""
BLOCK = (
    "epoch 2/4",
    "loss 0.5  accuracy 0.25",
    "worker  host    device  microbatches  speed  data  others  memory",
    "     0  host-a  CPU                4   100%    0%     10%  1.0 GB",
    "     1  host-b  CPU                4    75%    0%     10%  1.0 GB",
    "     2  host-c  CPU                4    50%    0%     10%  1.0 GB",
)


def is_step(number: int):
    """Whether the bar of a step is shown."""
    return lambda shown: any(line.startswith("epoch 2/4  ") and f" {number}/100" in line for line in shown)


def test_a_block_below_lasting_lines_that_is_gone_in_the_end():
    with terminal(["-c", PLAYER]) as seen:
        seen.type("doing waiting for 3 workers to start")
        seen.wait_for(lambda shown: shown == ["waiting for 3 workers to start"])
        seen.wait_for(lambda shown: shown == ["waiting for 3 workers to start  2 s"])  # it lives, and is never silent
        seen.type("say a first line")
        seen.type("doing")
        seen.type("step 10")
        shown = seen.wait_for(lambda shown: is_step(10)(shown) and BLOCK[-1] in shown)
        assert shown[0] == "a first line"
        assert shown[1].startswith("epoch 2/4  ━━━")
        assert [line for line in shown[2:] if " a step" not in line] == list(BLOCK[1:])
        seen.type("print from the user's own code")
        seen.type("say lost worker 2 on host-c at step 110: killed; 2 left")
        seen.type("step 50")
        shown = seen.wait_for(is_step(50))
        assert shown[:3] == [
            "a first line",
            "from the user's own code",
            "lost worker 2 on host-c at step 110: killed; 2 left",
        ]
        assert sum(line.startswith("epoch 2/4") for line in shown) == 1
        seen.type("epoch")
        seen.wait_for(lambda shown: any("val_accuracy" in line for line in shown))
        seen.type("end")
        assert b"\x1b[33m" in seen.written, "there are colours, where NO_COLOR is not set"
        assert seen.end() == [
            "a first line",
            "from the user's own code",
            "lost worker 2 on host-c at step 110: killed; 2 left",
            "epoch 2/4  loss 0.5  val_loss 0.75  accuracy 0.25  val_accuracy 0.125  (2.0 s,",
            "  1,600 samples/s)",
        ]


def test_a_terminal_that_is_made_narrower_and_wider_while_it_runs():
    with terminal(["-c", PLAYER], columns=100) as seen:
        seen.type("say a first line")
        for step, columns in ((10, 80), (20, 50), (30, 30), (40, 120), (50, 80)):
            seen.resize(columns, 40)
            seen.type(f"step {step}")
            shown = seen.wait_for(lambda shown, step=step: len(shown) > 6 and f" {step}/100" in shown[1])
            assert shown[0] == "a first line"
            assert sum(line.startswith("epoch 2/4") for line in shown) == 1, "of the block before nothing is left"
            assert sum(line.startswith("worker") for line in shown) == 1
            assert max(map(len, shown)) <= min(80, columns)
        seen.type("end")
        assert seen.end() == ["a first line"]


@pytest.mark.slow
def test_a_terminal_of_few_lines_keeps_the_block_whole():
    with terminal(["-c", PLAYER], lines=6) as seen:
        for number in range(20):
            seen.type(f"say line {number}")
        seen.type("step 10")
        shown = seen.wait_for(is_step(10))
        assert not any("host-a" in line for line in shown)
        seen.type("end")
        assert "line 19" in seen.end()


def test_without_colours_there_is_no_colour():
    with terminal(["-c", PLAYER], NO_COLOR="1") as seen:
        seen.type("step 10")
        seen.wait_for(lambda shown: is_step(10)(shown) and BLOCK[-1] in shown)
        seen.type("end")
        seen.end()
        assert not any(b"\x1b[%dm" % colour in seen.written for colour in (*range(30, 38), *range(90, 98)))


@pytest.mark.slow
def test_a_terminal_that_cannot_draw_gets_plain_lines():
    with terminal(["-c", PLAYER], TERM="dumb") as seen:
        for line in ("say a first line", "doing waiting", "step 10", "epoch", "end"):
            seen.type(line)
        assert [line.split("  ")[0] for line in seen.end()][:2] == ["a first line", "epoch 2/4"]
        assert b"\x1b" not in seen.written


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_alone():
    with terminal(["-c", PLAYER], PYTHONIOENCODING="ascii") as seen:
        seen.type("step 10")
        shown = seen.wait_for(lambda shown: is_step(10)(shown) and BLOCK[-1] in shown)
        assert "---" in shown[0]
        assert "?" not in "".join(shown)
        seen.type("end")
        seen.end()
        assert seen.written.isascii()


TRAINS = """
import sys, time
import numpy as np
from heliostat.trainer import Trainer

def build_model():
    import keras
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def slow():
    import keras
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.05)
        def on_epoch_end(self, epoch, logs=None):
            print("the callback's own line", epoch)
            time.sleep(3)
    return Slow()

if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(640, 20)).astype("float32")
    with Trainer(build_model, workers=2, num_microbatches=2, run_dir=sys.argv[1], **{arguments}) as trainer:
        trainer.fit(x, x[:, :1], batch_size=10, epochs=3, validation_split=0.25, callbacks=[slow()], probe=False)
"""


@pytest.mark.slow
@pytest.mark.engine
def test_a_run_on_two_workers_in_a_terminal_that_is_resized(tmp_path):
    script = TRAINS.replace("{arguments}", "{'in_process': True}")
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with terminal(["-c", script, str(tmp_path / "run")], lines=60, **quiet) as seen:
        seen.wait_for(lambda shown: any("; compiling its step" in line for line in shown), 4 * LIMIT_S)
        seen.wait_for(lambda shown: rows_of_workers(shown) == [0, 1], 4 * LIMIT_S)
        seen.wait_for(lambda shown: any(line.startswith("callbacks, on worker 0") for line in shown))
        seen.resize(60, 60)
        seen.wait_for(lambda shown: any(line.startswith("epoch 2/3  ━") for line in shown))
        seen.wait_for(lambda shown: rows_of_workers(shown) == [0, 1])
        shown = seen.end()
    assert [line.split("  ")[0] for line in shown if line.startswith("epoch ")] == [f"epoch {n}/3" for n in (1, 2, 3)]
    assert [line for line in shown if "own line" in line] == [f"the callback's own line {n}" for n in range(3)]
    assert not any("━" in line or line.startswith("worker ") for line in shown)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_killed_worker_is_told_above_the_block_and_how_soon_the_others_went_on(tmp_path):
    script = TRAINS.replace("{arguments}", "{}")
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with terminal(["-c", script, str(tmp_path / "run")], lines=60, **quiet) as seen:
        seen.wait_for(lambda shown: rows_of_workers(shown) == [0, 1], 4 * LIMIT_S)
        (victim,) = (each for each in read_record(tmp_path / "run")["workers"] if each["worker"] == 1)
        os.kill(victim["pid"], signal.SIGKILL)
        seen.wait_for(lambda shown: any(line.startswith("lost worker 1 on ") for line in shown), 2 * LIMIT_S)
        seen.wait_for(lambda shown: any(re.match(r"going on after [0-9.]+ s with 1 worker$", x) for x in shown))
        shown = seen.end()
    assert "lost" in [event.event for event in read_events(tmp_path / "run")]
    assert [line.split("  ")[0] for line in shown if line.startswith("epoch ")] == [f"epoch {n}/3" for n in (1, 2, 3)]


def rows_of_workers(shown: list[str]) -> list[int]:
    """The numbers of the workers that have a row below the headings."""
    heads = [number for number, line in enumerate(shown) if line.startswith("worker  ")]
    rows = shown[heads[-1] + 1 :] if heads else []
    return [int(found[1]) for line in rows if (found := re.match(r" +(\d+)  .*%", line))]
