"""A real pseudo-terminal with a program in it, and what a person would see on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence

import pyte

from .scripts.child import environment
from .slow import SLOW

LIMIT_S = 60.0


class Terminal:
    """Shows what a program writes.

    Args:
        master: the descriptor of this end.
        process: the program, whose terminal it is.
        columns, lines: its size.
    """

    def __init__(self, master: int, process: subprocess.Popen[bytes], columns: int, lines: int) -> None:
        self.process, self.written = process, b""
        self._master, self._screen = master, pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def shown(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def wait_for(self, is_so: Callable[[list[str]], object], limit_s: float = LIMIT_S) -> list[str]:
        """Read until what is shown is so, or the program ends; fails if it never is."""
        until_s = time.monotonic() + limit_s * SLOW
        while not is_so(self.shown):
            assert time.monotonic() < until_s, "\n".join(["it never came to that:", *self.shown])
            if not self._read():
                break
        assert is_so(self.shown), "\n".join(["it ended with", *self.shown])
        return self.shown

    def type(self, text: str) -> None:
        """Send a line to the program."""
        os.write(self._master, f"{text}\n".encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make it wider or narrower, as a person does."""
        self._screen.resize(lines, columns)
        set_size(self._master, columns, lines)

    def end(self) -> list[str]:
        """What is shown when the program has ended."""
        while self._read():
            pass
        assert self.process.wait(LIMIT_S) == 0, "\n".join(self.shown)
        return self.shown

    def _read(self) -> bool:
        """Take what has come; False at the end."""
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                piece = os.read(self._master, 1 << 16)
            except OSError:  # the program has ended
                return False
            self.written += piece
            self._stream.feed(piece)
            return bool(piece)
        return True


def set_size(descriptor: int, columns: int, lines: int) -> None:
    """Say how large a terminal is."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.contextmanager
def terminal(arguments: Sequence[str], *, columns: int = 80, lines: int = 40, **variables: str) -> Iterator[Terminal]:
    """A terminal in which Python runs with these arguments; what still runs at the end is killed.

    Args:
        arguments: of Python.
        columns, lines: its size.
        variables: of the program's environment.
    """
    master, slave = pty.openpty()
    set_size(slave, columns, lines)
    quiet = termios.tcgetattr(slave)
    quiet[3] &= ~termios.ECHO  # what is typed is not shown
    termios.tcsetattr(slave, termios.TCSANOW, quiet)
    known = environment(**{"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **variables})
    for size in ("COLUMNS", "LINES"):  # whoever runs the tests in parallel sets them, and they win over the terminal's
        known.pop(size, None)
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=slave, stdout=slave, stderr=slave, env=known, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master, process, columns, lines)
    finally:
        process.kill()
        process.wait()
        os.close(master)
