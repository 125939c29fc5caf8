"""Load TensorFlow in the user's own process, where nobody has yet, without what it tells everybody who loads it.

TensorFlow 2.21 writes some lines to standard error while it is loaded and looks for GPUs, whatever
`TF_CPP_MIN_LOG_LEVEL` says: that oneDNN is on, that there is no CUDA, that its log is not initialized. They say nothing
of the program, so they go into the log of the run (`kept`). All else that is written to standard error meanwhile, by
whatever thread, comes through at once and stays where it was; after that nothing is looked at any more.

The lines are told apart by a process of its own at the end of a pipe: it outlives this one, so that the last words of a
process that dies while it loads a library are shown. Who sets `TF_CPP_MIN_LOG_LEVEL=0` wants to see all, and does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from . import environment

# Reads what is written to standard error; TensorFlow's lines go to standard output. A line that may become one of
# those is held until it ends, anything else is passed on as it comes.
_SORT = r"""
import os, re
ours = re.compile(
    rb"([IW]\d{4} \d\d:\d\d|[-\d]{10} [:.\d]{8,}: [IW] )"
    rb"|(E\d{4} \d\d:\d\d|[-\d]{10} [:.\d]{8,}: E ).*(cuInit|register cu\w+ factory|computation.placer)"
    rb"|WARNING: All log messages before absl|To enable the following instructions: "
)
may_be, rest = re.compile(rb"[IWET\d]"), b""
while piece := os.read(0, 65536):
    *lines, rest = (rest + piece).split(b"\n")
    for line in lines:
        os.write(1 if ours.match(line) else 2, line + b"\n")
    if rest and not may_be.match(rest):
        os.write(2, rest)
        rest = b""
if rest:
    os.write(1 if ours.match(rest) else 2, rest)
"""


class _Process:
    """What was kept apart in this process, and has gone to no log yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept = ""


_process = _Process()


def load_tensorflow() -> None:
    """Load TensorFlow, and let it look for GPUs, unless it is loaded already."""
    with _process.lock:
        if "tensorflow" in sys.modules:
            return
        talks = environment.lets_tensorflow_talk()
        with contextlib.nullcontext() if talks else _kept_apart():
            import tensorflow as tf

            tf.config.list_physical_devices()


def kept() -> str:
    """What TensorFlow has said, once: for the log of the first run."""
    with _process.lock:
        found, _process.kept = _process.kept, ""
    return found


@contextlib.contextmanager
def _kept_apart() -> Iterator[None]:
    """Let TensorFlow's lines of the block be kept, and whatever else goes to standard error be shown."""
    with contextlib.ExitStack() as after:
        try:
            shown = os.dup(2)
            after.callback(os.close, shown)
            file = after.enter_context(tempfile.TemporaryFile())
            reading, writing = os.pipe()
            after.callback(os.close, reading)
            pipe = after.enter_context(os.fdopen(writing, "wb"))
            command = [sys.executable, "-I", "-S", "-c", _SORT]
            sorting = subprocess.Popen(command, stdin=reading, stdout=file, stderr=shown)
        except OSError:  # there is no standard error, or no room for a process
            yield
            return
        _flush()
        os.dup2(writing, 2)
        pipe.close()
        try:
            yield
        finally:
            _flush()
            os.dup2(shown, 2)  # nobody has the pipe any more, so it ends
            sorting.wait()
            file.seek(0)
            _process.kept = file.read().decode(errors="replace")


def _flush() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
