"""The live block at every width and height, with and without colours, for few workers and many."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from heliostat.trainer.driver.block import Block
from heliostat.trainer.driver.doing import Doing
from heliostat.trainer.driver.rhythm import Rest
from heliostat.trainer.driver.worker_table import WorkerRow, WorkerTable
from heliostat.trainer.jobs import Progress
from rich.cells import cell_len
from rich.console import Console

LOGS = {"loss": 0.41234, "accuracy": 0.8712}
PROGRESS = Progress(epoch=2, step=412, steps=1250, rows=4120, num_workers=2, logs=LOGS)
FAST = WorkerRow(
    worker=0, host="node-a", microbatches=5, speed=1.02, input_share=0.02, wait_share=0.35, memory_bytes=3_100_000_000
)
SLOW = WorkerRow(worker=11, host="node-b", microbatches=3, speed=0.61, input_share=0.4, wait_share=0.01)
NEW = WorkerRow(worker=12, host="node-c", microbatches=3)
TABLE = WorkerTable(rows=(FAST, SLOW, NEW), device="4 GPUs", num_workers=3)
BLOCK = Block(
    progress=PROGRESS,
    epochs=10,
    step_s=0.032,
    rows_per_s=15197.3,
    rest=Rest(epoch_s=130.0, run_s=3700.0),
    table=TABLE,
    doing=Doing(what="validation", done=3000, total=10_000, unit="rows"),
    doing_s=3.0,
    checkpoint_s=8.2,
)


class Target(io.StringIO):
    """A terminal of an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding


def lines_of(block: Block, width: int = 80, height: int = 30, encoding: str = "utf-8", **options) -> list[str]:
    console = Console(file=Target(encoding), width=width, height=height, **options)
    console.print(block)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert (lines[0] == "") == (block.progress is not None and height >= 12), "there is space above it"
    return lines if lines[0] else lines[1:]


def test_at_80_columns_it_is_this():
    *lines, validation = lines_of(BLOCK)
    assert lines == [
        "epoch 3/10  ━━━━━━━━━━━━━                             412/1,250  2 min 10 s left",
        "loss 0.4123  accuracy 0.8712",
        "15,197 samples/s · 32 ms a step · all 10 epochs: 1 h 2 min left",
        "",
        "worker  host    device  microbatches  speed  data  others  memory",
        "     0  node-a  4 GPUs             5   102%    2%     35%  3.1 GB",
        "    11  node-b  4 GPUs             3    61%   40%      1%       -",
        "    12  node-c  4 GPUs             3      -     -       -       -",
    ]
    head, line = validation.split("  ", 1)
    bar, *texts = line.rsplit("  ", 3)
    assert [head, *texts] == ["validation", "3,000 of 10,000 rows", "1,000 rows/s", "7 s left"]
    assert bar.strip("━╸ ") == ""
    assert bar.count("━") / len(bar) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("width", range(1, 200, 3))
def test_no_line_is_wider_than_the_terminal_or_80_columns(width):
    long = replace(FAST, host="a-machine-with-a-very-long-name.cluster.example")
    table = WorkerTable(rows=(long, replace(SLOW, host="機械七号機械七号機械七号")), device="CPU", num_workers=2)
    logs = {f"metric_number_{number}": 1.5 for number in range(12)}
    for block in (BLOCK, replace(BLOCK, table=table, progress=replace(PROGRESS, logs=logs)), Block(doing=BLOCK.doing)):
        lines = lines_of(block, width)
        assert len(lines) <= 11
        assert max(map(cell_len, lines)) <= min(width, 80)


def test_narrow_terminals_leave_out_what_is_least():
    def headings(width: int) -> list[str]:
        return lines_of(BLOCK, width)[4].split()

    assert "worker" in headings(30)
    assert "speed" in headings(30)
    for narrow, wide in ((30, 40), (40, 60), (60, 80)):
        assert set(headings(narrow)) < set(headings(wide)) | {"-"}
    assert "left" not in lines_of(BLOCK, 30)[0]
    assert lines_of(BLOCK, 30)[0].startswith("epoch 3/10  ")


def test_more_metrics_than_two_lines_hold_are_counted():
    logs = {f"metric_{number:02}": number / 7 for number in range(30)}
    first, second = lines_of(replace(BLOCK, progress=replace(PROGRESS, logs=logs)))[1:3]
    shown = first.count("metric_") + second.count("metric_")
    assert second.endswith(f"  and {30 - shown} more")
    assert shown >= 6


def test_of_many_workers_the_slowest_are_shown_and_how_fast_the_others_are():
    speeds = {number: 0.5 if number in (17, 40) else 1 + number / 1000 for number in range(64)}
    rows = tuple(WorkerRow(worker=each, host="h", microbatches=1, speed=speed) for each, speed in speeds.items())
    lines = lines_of(replace(BLOCK, table=WorkerTable(rows=rows, num_workers=64), doing=None))
    shown = [int(line.split()[0]) for line in lines[5:13]]
    assert shown == [0, 1, 2, 3, 4, 5, 17, 40]
    assert lines[13] == "and 56 faster workers, at 101% to 106% of the speed"
    assert len(lines) == 14


def test_in_a_terminal_of_few_lines_there_are_no_rows_of_workers():
    assert len(lines_of(BLOCK, height=8)) == 4
    assert len(lines_of(BLOCK, height=12)) == 9
    many = WorkerTable(rows=tuple(replace(FAST, worker=each) for each in range(20)), num_workers=20)
    for height in range(12, 30):
        assert 1 + len(lines_of(replace(BLOCK, table=many), height=height)) <= height


def test_without_letters_but_ascii():
    text = "\n".join(lines_of(BLOCK, encoding="ascii"))
    assert text.isascii()
    assert "15,197 samples/s | 32 ms a step" in text
    assert "-----" in text


def test_colours_say_only_what_the_numbers_say(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    plain = lines_of(BLOCK, force_terminal=True)
    assert not any("\x1b[3" in line for line in plain)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = lines_of(BLOCK, force_terminal=True)
    assert "\x1b[33m  61%\x1b[0m" in coloured[6]
    assert "\x1b[33m 40%\x1b[0m" in coloured[6]
    assert "\x1b[33m" not in coloured[5]


def test_what_is_done_is_a_line_of_its_own_before_anything_trains():
    waiting = Block(doing=Doing(what="waiting for 2 workers to start"), doing_s=12.4)
    assert lines_of(waiting) == ["waiting for 2 workers to start  12 s"]
    assert Block().is_empty
    assert not waiting.is_empty


def test_what_others_write_moves_no_cursor():
    logs = {"\x1b[2Jloss": "\x1b]0;title\x07"}
    row = replace(FAST, host="a\x1b[2J\nb")
    block = replace(BLOCK, progress=replace(PROGRESS, logs=logs), table=WorkerTable(rows=(row,), num_workers=1))
    assert "\x1b" not in "\n".join(lines_of(block))
    assert len(lines_of(block)) == 7
