"""Which phase of which step the threads of this process are in."""

from __future__ import annotations

import threading


class PhaseOfStep:
    """By thread its step, None before the first, and its phase: counted from 0 by the sums that it has of this step."""

    def __init__(self) -> None:
        self._at: dict[str, tuple[int | None, int]] = {}

    def reached(self, point: str, step: int | None) -> tuple[int | None, int]:
        """Where this thread is, which has come to a point; points of exchanges know no step."""
        name = threading.current_thread().name
        at, phase = self._at.get(name, (None, 0))
        if step is not None and step != at:
            at, phase = step, 0
        self._at[name] = at, phase + (point == "summed")
        return at, phase
