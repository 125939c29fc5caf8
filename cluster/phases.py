"""Named points of a worker's life, for tests that must fail at exactly one of them.

    phases.listen(lambda phase, step: os.kill(os.getpid(), signal.SIGKILL) if phase == "apply" else None)

Without a listener a point costs one test of a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Point = Literal[
    "compute",
    "reduce",
    "sending",
    "receiving",
    "carrying",
    "summed",
    "applied",
    "checkpoint",
    "regroup",
    "join",
    "validation",
    "end",
]
Listener = Callable[[Point, int | None], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Call `listener(point, step)` at every point that this process reaches; returns a function that ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def reached(point: Point, step: int | None = None) -> None:
    """This process is at a point."""
    for listener in tuple(_listeners):
        listener(point, step)
