"""A command that runs, and what it prints, line by line with the time of each."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

WAIT_S = 240
FIRST_LINE = "starting "  # the first line that is ours: what comes before is Ray's and Python's


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and the seconds since the command began."""

    seconds: float
    text: str


class Running:
    """A command that was started; its lines are read as they come.

    Args:
        process: with a pipe for what it prints, and a session of its own.
        name: what to call it when it fails.
    """

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process, self._name, self._began_s = process, name, time.monotonic()
        self._lines: list[Line] = []
        self._is_over = False
        self._news = threading.Condition()
        self._reading = threading.Thread(target=self._read, name="reading", daemon=True)
        self._reading.start()

    @property
    def text(self) -> str:
        """All that it has printed."""
        with self._news:
            return "\n".join(line.text for line in self._lines)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        with self._news:
            return self._is_over

    @property
    def seconds(self) -> float:
        """From its beginning to its last line."""
        with self._news:
            return self._lines[-1].seconds if self._lines else 0.0

    @property
    def longest_silence_s(self) -> float:
        """The longest time between two lines, after the first that is ours."""
        with self._news:
            times = [line.seconds for line in self._lines]
            first = next((at for at, line in enumerate(self._lines) if FIRST_LINE in line.text), len(times))
        return max(
            (after - before for before, after in zip(times[first:], times[first + 1 :], strict=False)), default=0
        )

    def wait_for(self, text: str, limit_s: float = WAIT_S) -> None:
        """Wait until it has printed something."""
        self._wait(lambda: self._is_over or any(text in line.text for line in self._lines), limit_s)
        if text not in self.text:
            raise AssertionError(f"{self._name} ended without {text!r}:\n{self.text[-6000:]}")

    def wait(self, limit_s: float = WAIT_S) -> int:
        """Wait until it has ended; its exit status."""
        self._wait(lambda: self._is_over, limit_s)
        return self._process.wait(30)

    def interrupt(self) -> None:
        """Ctrl-C: to the command itself, and not to what has brought it onto its machine."""
        for child in psutil.Process(self._process.pid).children():
            child.send_signal(signal.SIGINT)

    def second_of(self, *texts: str) -> float | None:
        """The seconds at which the first line came that has one of these texts in it; None if there is none."""
        with self._news:
            return next((line.seconds for line in self._lines if any(each in line.text for each in texts)), None)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to it and to what it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _wait(self, done: Callable[[], bool], limit_s: float) -> None:
        with self._news:
            if not self._news.wait_for(done, timeout=limit_s):
                self.end()
                text = "\n".join(f"{line.seconds:6.1f} {line.text}" for line in self._lines)
                raise AssertionError(f"{self._name} has not come to its end:\n{text[-6000:]}")

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._news:
                self._lines.append(Line(time.monotonic() - self._began_s, line.rstrip("\n")))
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()
