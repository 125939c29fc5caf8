"""What a worker shows of itself: points where a test may let it fail, and spans of its time for traces.

Below everything, importing nothing of ours: the step's own code stays free of both. A **fault point** names a moment of
a worker's life, for tests that must fail at exactly that one:

    instruments.listen(lambda point, step: os.kill(os.getpid(), signal.SIGKILL) if point == "applied" else None)

A **span** is what a worker did from when to when, by this process's performance counter. A recorder belongs to the
thread that computes, since several workers may be threads of one process:

    began_s = time.perf_counter()
    ...
    instruments.note("apply", began_s)

Without a listener a fault point costs one test of a list; without a recorder, or while it is off, a note costs the look
at a thread-local variable.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

FaultPoint = Literal[
    "compute",
    "microbatch",
    "reduce",
    "sending",
    "receiving",
    "summed",
    "applied",
    "checkpoint",
    "shipped",
    "regroup",
    "join",
    "validation",
    "end",
]
Listener = Callable[[FaultPoint, int | None], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Call `listener(point, step)` at every point that this process reaches; returns a function that ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def fault_point(point: FaultPoint, step: int | None = None) -> None:
    """This process is at a fault point; `step` is the step of the run where it is known."""
    for listener in tuple(_listeners):
        listener(point, step)


STEPS, CHECKPOINTS = 0, 1  # lanes: what happens in the thread that computes, and beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What one span was.

    Attributes:
        name: what was done.
        lane: `STEPS` or `CHECKPOINTS`.
        step: of the run; -1 outside of steps.
        number: the microbatch; -1 where there is none.
        began_s: seconds of the performance counter; `ended_s` likewise.
    """

    name: str
    lane: int
    step: int
    number: int
    began_s: float
    ended_s: float


class Recorder:
    """Keeps spans in arrays of fixed size; what finds no room is counted.

    Args:
        capacity: how many spans there is room for; one takes 35 bytes.
    """

    def __init__(self, capacity: int) -> None:
        self._names: dict[str, int] = {}
        self._codes, self._lanes = array("H", bytes(2 * capacity)), array("B", bytes(capacity))
        self._steps, self._numbers = array("q", bytes(8 * capacity)), array("q", bytes(8 * capacity))
        self._began_s, self._ended_s = array("d", bytes(8 * capacity)), array("d", bytes(8 * capacity))
        self._capacity, self._count = capacity, 0
        self._lock = threading.Lock()
        self.dropped = 0
        self.on = False
        self.step = -1

    def add(self, name: str, began_s: float, ended_s: float, *, number: int = -1, lane: int = STEPS) -> None:
        """Keep a span, if the recorder is on; from any thread."""
        if not self.on:
            return
        with self._lock:
            at = self._count
            if at == self._capacity:
                self.dropped += 1
                return
            self._codes[at] = self._names.setdefault(name, len(self._names))
            self._lanes[at], self._steps[at], self._numbers[at] = lane, self.step, number
            self._began_s[at], self._ended_s[at] = began_s, ended_s
            self._count = at + 1

    def spans(self) -> list[Span]:
        """What was recorded so far, in the order in which it ended."""
        with self._lock:
            names = list(self._names)
            return [
                Span(
                    name=names[self._codes[at]],
                    lane=self._lanes[at],
                    step=self._steps[at],
                    number=self._numbers[at],
                    began_s=self._began_s[at],
                    ended_s=self._ended_s[at],
                )
                for at in range(self._count)
            ]


class _Current(threading.local):
    recorder: Recorder | None = None


_current = _Current()


def current() -> Recorder | None:
    """The recorder of this thread."""
    return _current.recorder


@contextlib.contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Let `recorder` keep what this thread notes in the block."""
    before, _current.recorder = _current.recorder, recorder
    try:
        yield
    finally:
        _current.recorder = before


def note(name: str, began_s: float, number: int = -1) -> None:
    """Something ends now that began at `began_s`."""
    recorder = _current.recorder
    if recorder is not None and recorder.on:
        recorder.add(name, began_s, time.perf_counter(), number=number)
