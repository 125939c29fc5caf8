"""Slow machines: `scripts/test.sh --slow 6` gives everything that a test waits for six times as long.

Guards stand as numbers in many tests, and in new ones. So the numbers stay what they are on an idle machine with two
cores, and it is the functions that wait which multiply: those of Python's own that a file of the tests calls with a
limit. What Heliostat itself waits for, in the same process, is left alone.
"""

from __future__ import annotations

import functools
import inspect
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOW = float(os.environ.get("HELIOSTAT_TEST_SLOW", "1"))
WATCH_S = 60.0 * SLOW
_TESTS = str(Path(__file__).parent) + os.sep
_WAITING: tuple[tuple[object, str], ...] = (
    (subprocess, "run"),
    (subprocess.Popen, "wait"),
    (subprocess.Popen, "communicate"),
    (threading.Thread, "join"),
    (threading.Event, "wait"),
    (threading.Condition, "wait"),
    (threading.Condition, "wait_for"),
    (threading.Semaphore, "acquire"),
    (queue.Queue, "get"),
)


def stretch_waits(factor: float = SLOW) -> Callable[[], None]:
    """Multiply the limits of waits in test files; returns a function that ends that."""
    originals = [(owner, name, getattr(owner, name)) for owner, name in _WAITING]
    for owner, name, function in originals if factor != 1 else ():
        setattr(owner, name, _stretched(function, factor))

    def end() -> None:
        for owner, name, function in originals:
            setattr(owner, name, function)

    return end


def _stretched(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    place = list(inspect.signature(function).parameters).index("timeout") if function is not subprocess.run else None

    @functools.wraps(function)
    def waits(*args: Any, **named: Any) -> Any:
        if sys._getframe(1).f_code.co_filename.startswith(_TESTS):
            if named.get("timeout") is not None:
                named["timeout"] *= factor
            elif place is not None and len(args) > place and args[place] is not None:
                args = (*args[:place], args[place] * factor, *args[place + 1 :])
        return function(*args, **named)

    return waits


def watch(name: str, stderr: int, wait_s: float = WATCH_S) -> threading.Timer:
    """Say where a test stands if it has not ended by then; it goes on. Cancel the timer that is returned.

    faulthandler's own watch looks at other threads' frames without Python's lock, which has ended processes.
    """

    def say() -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        lines = [f"\n{name} has run for {wait_s:.0f} s, and goes on. Its threads:\n"]
        for ident, frame in sys._current_frames().items():
            lines += [f"-- {names.get(ident, ident)}\n", *traceback.format_stack(frame)]
        os.write(stderr, "".join(lines).encode())

    timer = threading.Timer(wait_s, say)
    timer.name, timer.daemon = "watch", True
    timer.start()
    return timer
