"""The screen on real pseudo-terminals: of 80 columns, resized meanwhile, without colours, and such as cannot draw."""

from __future__ import annotations

from ...terminal import terminal

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


def test_a_terminal_that_cannot_draw_gets_plain_lines():
    with terminal(["-c", PLAYER], TERM="dumb") as seen:
        for line in ("say a first line", "doing waiting", "step 10", "epoch", "end"):
            seen.type(line)
        assert [line.split("  ")[0] for line in seen.end()][:2] == ["a first line", "epoch 2/4"]
        assert b"\x1b" not in seen.written


def test_a_terminal_that_knows_ascii_alone():
    with terminal(["-c", PLAYER], PYTHONIOENCODING="ascii") as seen:
        seen.type("step 10")
        shown = seen.wait_for(lambda shown: is_step(10)(shown) and BLOCK[-1] in shown)
        assert "---" in shown[0]
        assert "?" not in "".join(shown)
        seen.type("end")
        seen.end()
        assert seen.written.isascii()
