"""A screen that stalls, ends, or knows no letters but ASCII: nobody waits for it, and nothing fails."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import threading
import time

import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.driver import screen
from heliostat.trainer.driver.display import Display, PlainDisplay
from heliostat.trainer.driver.run_folder import read_events, read_record
from heliostat.trainer.driver.screen import ScreenStream, ScreenThread, make_display
from heliostat.trainer.jobs import Progress

from ...scripts.child import environment
from ..conftest import dense_data
from ..helpers import local_trainer
from ..models import linear

LIMIT_S = 60


@pytest.fixture
def pipe():
    """The two ends of a pipe; the second as standard output has it."""
    reading, writing = os.pipe()
    target = io.TextIOWrapper(open(writing, "wb"), encoding="utf-8")  # noqa: SIM115, closed below
    yield reading, target
    os.set_blocking(writing, False)
    try:
        target.close()
    finally:
        os.close(reading)


def fill(target) -> int:
    """Write to a pipe until it takes nothing more; how many bytes that were."""
    os.set_blocking(target.fileno(), False)
    written = 0
    try:
        while True:
            written += os.write(target.fileno(), bytes(select.PIPE_BUF))
    except BlockingIOError:
        os.set_blocking(target.fileno(), True)
        return written


def read_all(reading) -> bytes:
    """What is in a pipe."""
    os.set_blocking(reading, False)
    found = b""
    try:
        while piece := os.read(reading, 1 << 16):
            found += piece
    except BlockingIOError:
        pass
    return found


def progress(step):
    return Progress(epoch=0, step=step, steps=10, rows=step, num_workers=1, logs={})


def test_a_pipe_that_nobody_reads_makes_nobody_wait(pipe, monkeypatch):
    monkeypatch.setattr(screen, "PATIENCE_S", 0.1)
    reading, target = pipe
    filled = fill(target)
    monkeypatch.setattr(sys, "stdout", target)
    shown = make_display(2)
    for number in range(1000):
        shown.say(f"line {number}")
    shown.close()
    assert read_all(reading) == bytes(filled), "and nothing was torn from it"


def test_a_pipe_that_is_read_late_gets_all_lines_in_order(pipe, monkeypatch):
    reading, target = pipe
    filled = fill(target)
    monkeypatch.setattr(sys, "stdout", target)
    shown = make_display(2)
    print("the user's", end=" ")
    for number in range(3):
        shown.say(f"line {number}")
    shown.say("x" * 100_000)  # more than a pipe holds
    found = b""
    while not found.endswith(b"x\n"):
        assert select.select([reading], [], [], LIMIT_S)[0]
        found += os.read(reading, 1 << 16)
    shown.close()
    assert found[filled:].split() == [*b"the user's line 0 line 1 line 2".split(), b"x" * 100_000]


def test_what_the_user_has_printed_and_nobody_reads_holds_up_no_end(pipe, monkeypatch):
    monkeypatch.setattr(screen, "PATIENCE_S", 0.1)
    reading, target = pipe
    filled = fill(target)
    os.read(reading, select.PIPE_BUF)  # room for a line of ours, but not for all of the user's
    monkeypatch.setattr(sys, "stdout", target)
    print("x" * (2 * select.PIPE_BUF - 10))
    shown = make_display(2)
    shown.say("a line")
    shown.close()
    found = b""
    while not found.endswith(b"a line\n"):  # it waits for that, for as long as the program lives
        assert select.select([reading], [], [], LIMIT_S)[0]
        found += os.read(reading, filled)
    assert found.count(b"x") == 2 * select.PIPE_BUF - 10


def test_a_closed_pipe_is_silence(pipe, monkeypatch):
    reading, target = pipe
    other, _ = os.pipe()
    os.dup2(other, reading)  # nobody has the reading end any more
    monkeypatch.setattr(sys, "stdout", target)
    with pytest.raises(BrokenPipeError):
        os.write(target.fileno(), b"x")
    shown = make_display(2)
    for number in range(10):
        shown.say(f"line {number}")
    shown.close()
    target.flush()  # nothing is left that could fail when Python ends


def test_letters_that_the_screen_lacks_are_replaced(tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="ascii") as target:
        monkeypatch.setattr(sys, "stdout", target)
        shown = make_display(2)
        shown.say("2 workers × 1 replica · batch 32")
        shown.close()
    assert (tmp_path / "out").read_text() == "2 workers ? 1 replica | batch 32\n"


def test_a_target_without_a_descriptor_may_be_closed_or_of_another_encoding(monkeypatch):
    for target in (io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", target)
        shown = make_display(2)
        shown.say("2 × 1 → 2")
        shown.close()
        target.flush()
        written = target.getvalue() if isinstance(target, io.StringIO) else target.buffer.getvalue().decode("latin-1")
        assert written == ("2 × 1 → 2\n" if isinstance(target, io.StringIO) else "2 × 1 ? 2\n")
        shown = make_display(2)
        target.close()
        shown.say("to nobody")
        shown.close()


def test_progress_that_was_not_shown_gives_way_to_what_comes_later(pipe):
    reading, target = pipe
    filled = fill(target)
    stream, steps = ScreenStream(target), []

    class Notes(PlainDisplay):
        def progress(self, progress, epochs):
            steps.append(progress.step)

    shown = ScreenThread(Notes(stream), stream)
    shown.say("stands still at this line")
    for step in range(1, 10):
        shown.progress(progress(step), 1)
    assert os.read(reading, filled) == bytes(filled)
    shown.close()
    assert steps[-1] == 9
    assert len(steps) <= 2


def test_progress_that_comes_while_the_one_before_is_shown_is_not_the_last(pipe):
    """The screen's thread takes what waits in the middle of the call that replaces it."""
    _, target = pipe
    stream, go, calls, steps = ScreenStream(target), threading.Event(), [], []

    class Notes(PlainDisplay):
        def say(self, text):
            assert go.wait(LIMIT_S)

        @property
        def progress(self):
            calls.append("progress")
            if len(calls) == 2:
                go.set()
                until_s = time.monotonic() + LIMIT_S
                while not steps and time.monotonic() < until_s:
                    time.sleep(0.001)
            return lambda progress, epochs: steps.append(progress.step)

    shown = ScreenThread(Notes(stream), stream)
    shown.say("the thread stands at this line")
    for step in range(1, 4):
        shown.progress(progress(step), 1)
    shown.close()
    assert steps[0] == 1, "it was shown in the middle of the second call"
    assert steps[-1] == 3


def test_a_terminal_that_is_stopped_by_ctrl_s_makes_nobody_wait_and_shows_the_rest_at_ctrl_q(monkeypatch):
    master, slave = pty.openpty()
    with io.TextIOWrapper(open(slave, "wb"), encoding="utf-8") as target:
        monkeypatch.setattr(sys, "stdout", target)
        shown = make_display("auto")
        shown.say("before")
        assert os.read(master, 100) == b"before\r\n"
        os.write(master, b"\x13")  # Ctrl-S
        stopped = select.poll()
        stopped.register(target.fileno(), select.POLLOUT)
        for _ in range(1000):
            if not stopped.poll(1):
                break
        else:
            pytest.fail("the terminal was not stopped")
        shown.say("meanwhile")
        for step in range(1, 5):
            shown.progress(progress(step), 1)
        assert not select.select([master], [], [], 0)[0]
        os.write(master, b"\x11")  # Ctrl-Q
        found = b""
        while b"4/10" not in found:
            assert select.select([master], [], [], LIMIT_S)[0]
            found += os.read(master, 1 << 16)
        assert b"meanwhile\r\n" in found
        shown.close()
        os.set_blocking(master, False)
    os.close(master)


def test_a_display_that_fails_is_a_warning():
    stream = ScreenStream(io.StringIO())

    class Broken(Display):
        def say(self, text):
            raise KeyError(text)

    shown = ScreenThread(Broken(), stream)
    shown.say("a line")
    with pytest.warns(RuntimeWarning, match="KeyError"):
        shown.close()


def test_what_verbose_takes(monkeypatch):
    with pytest.raises(ConfigurationError, match="verbose=3; it takes"):
        make_display(3)
    assert type(make_display(0)) is Display
    monkeypatch.setattr(sys, "stdout", None)
    assert type(make_display(2)) is Display


ENDS = """
import sys
from heliostat.trainer.driver import screen
screen.PATIENCE_S = 0.1
shown = screen.make_display(2)
for number in range(100):
    shown.say("line × " + str(number))
shown.close()
sys.exit(3)
"""


@pytest.mark.parametrize("reader", ["is gone", "does not read"])
def test_a_program_ends_with_its_own_status_whatever_has_become_of_its_screen(pipe, reader):
    reading, target = pipe
    if reader == "is gone":
        other, _ = os.pipe()
        os.dup2(other, reading)
    else:
        fill(target)
    done = subprocess.run(
        [sys.executable, "-c", ENDS],
        stdout=target.fileno(),
        stderr=subprocess.PIPE,
        env=environment(PYTHONIOENCODING="ascii"),
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.engine
def test_a_screen_that_stands_still_costs_no_worker_and_no_checkpoint(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "PATIENCE_S", 0.1)
    reading, target = pipe
    filled = fill(target)
    monkeypatch.setattr(sys, "stdout", target)
    with local_trainer(linear(), tmp_path, workers=2, deadline_s=5) as trainer:
        trainer.fit(dense_data(), epochs=3, global_batch_size=16, verbose=2)
    assert read_record(tmp_path / "run")["state"] == "finished"
    names = [each.event for each in read_events(tmp_path / "run")]
    assert names.count("checkpoint") == 3
    assert "lost" not in names
    assert read_all(reading) == bytes(filled), "it did stand still"
