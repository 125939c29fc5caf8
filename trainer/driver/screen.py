"""Standard output, which may stall, end, or know no letters but ASCII, while nobody waits for it and nothing fails.

A terminal stops at Ctrl-S, a pipe when nobody reads it, both end when their reader does. So a run's lines go through a
thread of their own (`ScreenThread`: not the storage's, checkpoints must go on counting), which looks whether the
screen takes a piece before it gives it one (`ScreenStream`). Nobody is ever inside a write that does not return, so a
program can end while its screen stands still: what was not shown then is in the run folder. Where nothing comes for a
moment, the thread lets the display say how long it has been (`Display.tick`): no clock is needed elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TextIO, cast

from rich.console import Console

from .. import jobs
from ..environment import is_plan_wanted
from ..errors import ConfigurationError
from ..events import EpochRecord, Event
from ..samples import Sample
from ..storage_thread import Newest, StorageThread
from .display import Display, PlainDisplay
from .doing import Doing
from .json_lines import JsonDisplay
from .live import TerminalDisplay
from .notebook import NotebookDisplay, in_notebook
from .worker_table import WorkerTable

Verbose = Literal["auto", "json", 0, 1, 2]
PATIENCE_S = 10.0  # after the end of a run: how long a screen that stands still is waited for
_LOOK_EVERY_S = 0.2
_TICK_S = 0.5
_PIECE_BYTES = select.PIPE_BUF  # a pipe that takes anything takes so many


class ScreenStream(io.TextIOBase):
    """A text stream that never fails: what its target does not take is left out.

    Args:
        target: standard output. Of a real one the file descriptor is used, so that what a closed pipe has not taken is
            in no buffer that Python tries to write when it ends.
    """

    def __init__(self, target: TextIO) -> None:
        self._target, self._descriptor = target, _descriptor_of(target)
        self._encoding = getattr(target, "encoding", None) or "utf-8"
        self._until_s: float | None = None
        self._piece_bytes = _PIECE_BYTES
        if self._descriptor is not None and stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self._piece_bytes = sys.maxsize  # a file takes all, and what others write to it gets into no line

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only there, too
        """That of the target."""
        return self._encoding

    def isatty(self) -> bool:
        """Whether the target is a terminal."""
        return self._target.isatty()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Write as much as the target takes; letters that its encoding lacks become "?", but for the dot, a "|"."""
        try:
            content = text.encode(self._encoding)
        except UnicodeEncodeError:
            content = text.replace("·", "|").encode(self._encoding, "replace")
        with contextlib.suppress(OSError, ValueError):  # ValueError: the target was closed
            if self._descriptor is None:
                self._target.write(content.decode(self._encoding))
                self._target.flush()
            elif self._is_ready(self._descriptor):
                self._target.flush()  # what the user has printed comes first
                while content and self._is_ready(self._descriptor):
                    with contextlib.suppress(BlockingIOError):  # somebody else has filled it meanwhile
                        content = content[os.write(self._descriptor, content[: self._piece_bytes]) :]
        return len(text)

    def hurry(self, within_s: float) -> None:
        """From now on wait at most so many seconds, in all, for a target that stands still."""
        self._until_s = time.monotonic() + within_s

    def _is_ready(self, descriptor: int) -> bool:
        """Wait until a piece can be written; False when that is not waited for any more."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while True:
            until_s = self._until_s
            left_s = _LOOK_EVERY_S if until_s is None else max(0.0, until_s - time.monotonic())
            if poll.poll(1000 * min(left_s, _LOOK_EVERY_S)):
                return True
            if not left_s:
                return False


class ScreenThread(Display):
    """Has everything shown on another display by a thread; its methods never wait, but for `close`.

    Args:
        shown: the other display; it writes to `stream`.
        stream: see `shown`; None for one that writes elsewhere, and never has to wait.
    """

    def __init__(self, shown: Display, stream: ScreenStream | None) -> None:
        self._shown, self._stream = shown, stream
        self._lock, self._started = threading.Lock(), False
        self._thread: StorageThread[Callable[[], None]] = StorageThread(
            lambda show, _: show(), "heliostat-screen", idle=shown.tick, idle_s=_TICK_S
        )
        self._newest: dict[str, Newest[Callable[[], None]]] = {
            name: Newest() for name in ("progress", "sample", "workers", "doing")
        }

    def say(self, text: str) -> None:
        """Have the line shown."""
        self._put(partial(self._shown.say, text))

    def progress(self, progress: jobs.Progress, epochs: int) -> None:
        """Have the epoch that runs shown; what was not shown yet of it is not shown any more."""
        self._put_newest("progress", partial(self._shown.progress, progress, epochs))

    def workers(self, table: WorkerTable) -> None:
        """Have the workers shown; likewise."""
        self._put_newest("workers", partial(self._shown.workers, table))

    def doing(self, doing: Doing | None) -> None:
        """Have it shown what is done; likewise."""
        self._put_newest("doing", partial(self._shown.doing, doing))

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Have the epoch shown."""
        self._put(partial(self._shown.epoch, record, epochs, seconds))

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Have the beginning told."""
        self._put(partial(self._shown.begin, path, record))

    def event(self, event: Event) -> None:
        """Have the event told."""
        self._put(partial(self._shown.event, event))

    def sample(self, sample: Sample) -> None:
        """Have it told how far the workers are; likewise."""
        self._put_newest("sample", partial(self._shown.sample, sample))

    def end(self, record: Mapping[str, Any]) -> None:
        """Have the end told."""
        self._put(partial(self._shown.end, record))

    def run_folder(self, path: Path) -> None:
        """Have the folder told."""
        self._put(partial(self._shown.run_folder, path))

    def close(self) -> None:
        """Wait until all is shown; if the screen stands still, for at most `PATIENCE_S`."""
        if not self._started:
            return
        if self._stream is not None:
            self._stream.hurry(PATIENCE_S)
        self._thread.put(self._shown.close)
        self._thread.end(2 * PATIENCE_S)  # what the user has printed before may be more than the screen takes
        if self._thread.defect is not None:  # no reason for a run to fail
            warnings.warn(f"Not all of the run was shown: {self._thread.defect!r}", RuntimeWarning, stacklevel=2)

    def _put_newest(self, name: str, show: Callable[[], None]) -> None:
        newest = self._newest[name]
        if newest.put(show):
            self._put(partial(_show_newest, newest))

    def _put(self, show: Callable[[], None]) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                self._thread.start()
        self._thread.put(show)


def make_display(verbose: Verbose, *, stderr: bool = False) -> Display:
    """The display for ``verbose``, on standard output, or on standard error.

    "auto" looks what there is: a notebook, a terminal, or anything else, which gets lines of text. 0 shows nothing but
    a plan, 1 the live block if that is possible, 2 lines, "json" lines for programs.

    Raises:
        ConfigurationError: another value.
    """
    if verbose not in ("auto", "json", 0, 1, 2):
        raise ConfigurationError(
            f"verbose={verbose!r}; it takes 'auto', 0 (nothing), 1 (a live block), 2 (lines) or 'json' (lines for "
            "programs)."
        )
    target = sys.stderr if stderr else sys.stdout
    if (verbose == 0 and not is_plan_wanted()) or target is None:  # a program without a terminal may have none
        return Display()
    if verbose in ("auto", 1) and not stderr and in_notebook():
        return ScreenThread(NotebookDisplay(), None)
    stream = ScreenStream(target)
    return ScreenThread(_shown_on(stream, verbose), stream)


def _shown_on(stream: ScreenStream, verbose: Verbose) -> Display:
    if verbose == "json":
        return JsonDisplay(stream)
    return TerminalDisplay(stream) if verbose in ("auto", 1) and can_draw(stream) else PlainDisplay(stream)


def can_draw(stream: ScreenStream) -> bool:
    """Whether it is a terminal whose cursor can be moved: TERM=dumb is none."""
    console = Console(file=cast(IO[str], stream))
    return console.is_terminal and not console.is_dumb_terminal


def _show_newest(newest: Newest[Callable[[], None]]) -> None:
    if (show := newest.take()) is not None:
        show()


def _descriptor_of(target: TextIO) -> int | None:
    """The file descriptor that the target writes to; None for a notebook's cell, a test's buffer and the like."""
    if not isinstance(target, io.TextIOWrapper):  # others may have a descriptor that leads elsewhere
        return None
    try:
        return target.fileno()
    except (OSError, ValueError):
        return None
