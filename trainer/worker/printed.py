"""What the chief's callbacks print appears where the run was started, too, and not in the worker's log alone.

Only what goes through Python's standard output while a hook runs is taken: native code, and threads between hooks,
print into the log alone. It travels with the end of the hook as an event of the run, so a line that a lost chief has
told and its successor prints again can be left out (`PrintedOnce` on the driver's side, by the hook and where in the
run it is).
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from ..jobs import Printed

LETTERS_PER_S = 20_000  # of what is sent: who prints more reads the log


class ChiefsWords:
    """Takes what hooks print on this worker, and sends it.

    Args:
        worker: its number.
        send: takes what is to be sent.
    """

    def __init__(self, worker: int, send: Callable[[Printed], None]) -> None:
        self._worker, self._send = worker, send
        self._until_s, self._left = 0.0, 0

    @contextlib.contextmanager
    def heard(self, hook: str, step: int, epoch: int) -> Iterator[None]:
        """Send what the block prints, at its end, also if that is an error.

        Args:
            hook: what runs.
            step: of the run.
            epoch: its number.
        """
        log, tee = sys.stdout, _Tee(sys.stdout)
        sys.stdout = tee
        try:
            yield
        finally:
            if sys.stdout is tee:  # else the user has put something of his own there
                sys.stdout = log
            if text := self._shortened(tee.taken()):
                self._send(Printed(worker=self._worker, hook=hook, step=step, epoch=epoch, text=text))

    def _shortened(self, text: str) -> str:
        """As much of a text as this second still takes; that there is more is said once."""
        now_s = time.monotonic()
        if now_s > self._until_s:
            self._until_s, self._left = now_s + 1.0, LETTERS_PER_S
        left, self._left = self._left, self._left - len(text)
        if left < 0:
            return ""
        return text if len(text) <= left else f"{text[:left]}\n(more than is shown; all of it is in the chief's log)"


class _Tee(io.TextIOBase):
    """A text stream that hands on what is written, and keeps the first of it."""

    def __init__(self, target: TextIO) -> None:
        self._target, self._kept, self._num_kept = target, list[str](), 0

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only there, too
        return self._target.encoding

    def write(self, text: str) -> int:
        if self._num_kept <= LETTERS_PER_S:
            self._kept.append(text)
            self._num_kept += len(text)
        return self._target.write(text)

    def flush(self) -> None:
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return self._target.isatty()

    def writable(self) -> bool:
        return True

    def taken(self) -> str:
        return "".join(self._kept).strip("\n")
