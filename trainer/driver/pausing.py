"""Signals and the clock: the first wish to stop pauses a run with a checkpoint, the second stops it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from heliostat.cluster.group.driver_loop import TaskLoop

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextlib.contextmanager
def pausing(loop: TaskLoop, max_time_s: float | None) -> Iterator[None]:
    """While the block runs, pause its task at Ctrl-C or SIGTERM (on the main thread) and after `max_time_s`.

    Raises:
        KeyboardInterrupt: at a second signal.
    """
    asked: list[int] = []

    def on_signal(number: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        loop.pause(f"it was asked to by {_SIGNALS[signal.Signals(number)]}")

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, on_signal) for each in _SIGNALS}
    timer = None
    if max_time_s is not None:
        timer = threading.Timer(max_time_s, loop.pause, [f"max_time_s={max_time_s:g} is over"])
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
