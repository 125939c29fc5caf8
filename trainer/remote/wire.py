r"""What a job says to the one who watches it: lines in the job's log, among those that the user's code prints.

**The idea.** A job of Ray's has one way out that works from everywhere: its log, which the job server sends while it
grows. So whatever is to be told goes there, as a line that begins with the record separator (``\x1e``, as in RFC 7464)
and holds one JSON object; no program prints that by chance. All other lines are the user's and stay what they are. The
side that watches parses each line and calls, for what a display shows, the method of its own display (`show`): a run
elsewhere looks as one that runs here, in whatever terminal or notebook there is.

A line is written by one call of the system, so that nothing which another thread or library prints gets into it; what
the user has printed before it without ending his line stands in front of the separator (`split`). Numbers come back as
they were, NaN too, by the codec of checkpoints. A progress that nobody would miss is not written: a log that grows for
a week must stay small enough to be read from its beginning by whoever connects again.

What was not done: an actor that is asked for events (a script would have to find it, and it dies with the job; the log
stays), and a second file beside the log (order would be lost, and there would be two tails that can end).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import TextIOBase
from pathlib import Path
from typing import Any

from heliostat.cluster.group.worker_process import host_name

from ..checkpoints.values import decode, encode, to_words
from ..driver.display import Display, TableDisplay
from ..driver.doing import Doing
from ..driver.screen import ScreenStream, ScreenThread, Verbose, make_display
from ..driver.worker_table import WorkerTable
from ..environment import links_wanted
from ..errors import ValueNotCarriedError
from ..events import EpochRecord, Event, Lines, event_of
from ..jobs import Progress
from .links import FileMark, link

MARK = "\x1e"
_MAX_WORKERS = 8
_PROGRESS_EVERY_S = (1.0, 10.0)  # at first; and after hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Lines):
    """A line of its own for the screen."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(Lines):
    """The epoch that runs; `epochs` is the number of the last one."""

    progress: Progress
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone(Lines):
    """An epoch that ended after so many seconds; `epochs` is the number of the last one."""

    record: EpochRecord
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened(Lines):
    """An event, in its own form."""

    event: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersDid(Lines):
    """How the workers did in the last seconds; of many the slowest."""

    table: WorkerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Does(Lines):
    """What is done from now on: one thing, or nothing that needs a word."""

    doing: tuple[Doing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegan(Lines):
    """Workers train a run; `record` is what ``run.json`` says by now."""

    path: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Lines):
    """A run is finished, paused or failed; `record` is what ``run.json`` says."""

    record: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOpened(Lines):
    """A run begins, or goes on, in a folder of the machine `host`; `link` is as in `Files`, empty if there is none."""

    path: str
    host: str
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files(Lines):
    """What a run folder holds at the end. A large one is told in several messages: those of one link add up.

    Attributes:
        path: the folder.
        node_id: of Ray, the machine it is on.
        link: under which name it can be read below the log folder of that machine's session; empty if it is gone.
        files: by path in it, with slashes.
    """

    path: str
    node_id: str
    link: str
    files: dict[str, FileMark]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBegun(Lines):
    """What the job does from now on, in a few words."""

    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Lines):
    """What the job was to do has failed, or was paused.

    Attributes:
        stage: in which it happened: "start", "data", "script", "unpickle", "train" ...
        kind: the class of the error, with its module if it is none of Python's own.
        message: what it says, with its notes.
        frames: of the traceback those in the user's code, each as Python shows it.
        exit_status: of the job: 75 for a pause.
        traceback: all of it as text, from the first frame in the user's code on, with a worker's.
        details: the attributes of the error that are plain values; paths are text.
        is_ours: whether Heliostat raised it on purpose: then its message says what to do.
    """

    stage: str
    kind: str
    message: str
    frames: tuple[str, ...] = ()
    exit_status: int = 1
    traceback: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Lines):
    """The job has done what it was to do; `value` is what came of it, as JSON has it."""

    value: Any = None


Shown = Said | Progressed | EpochDone | Happened | WorkersDid | Does | RunBegan | RunEnded
Message = Shown | FolderOpened | Files | StageBegun | Failed | Done
MESSAGES: Mapping[str, type[Message]] = {
    "said": Said,
    "progress": Progressed,
    "epoch": EpochDone,
    "event": Happened,
    "workers": WorkersDid,
    "doing": Does,
    "began": RunBegan,
    "ended": RunEnded,
    "folder": FolderOpened,
    "files": Files,
    "stage": StageBegun,
    "failed": Failed,
    "done": Done,
}
_NAMES = {kind: name for name, kind in MESSAGES.items()}


def to_line(message: Message) -> str:
    """The message as a line, with its end; values that JSON and the codec lack become text."""
    fields = {"is": _NAMES[type(message)], **message.to_json()}
    try:
        found = encode(fields, None, "a message")
    except ValueNotCarriedError:
        found = encode(to_words(fields), None, "a message")
    return f"{MARK}{json.dumps(found, allow_nan=False)}\n"


def lines_of(log: str) -> list[str]:
    """The lines of a log, without their ends; `str.splitlines` would end one at each mark, too."""
    return log.removesuffix("\n").split("\n") if log else []


def split(line: str) -> tuple[str, Message | None]:
    """What somebody has printed, and the message behind it; None without one, or if it is none of ours."""
    printed, mark, rest = line.partition(MARK)
    if not mark:
        return line, None
    try:
        found = decode(json.loads(rest), {})
        return printed, MESSAGES[found["is"]].from_json(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # cut short, or printed by somebody else
        return line, None


def parse(line: str) -> Message | None:
    """The message in a line of the log; None for what somebody has printed."""
    return split(line)[1]


def show(message: Message, display: Display) -> None:
    """Call the method of a local display that the display in the job was called with, if there is one."""
    match message:
        case Said(text=text):
            display.say(text)
        case Progressed(progress=progress, epochs=epochs):
            display.progress(progress, epochs)
        case EpochDone(record=record, epochs=epochs, seconds=seconds):
            display.epoch(record, epochs, seconds)
        case Happened(event=fields):
            with contextlib.suppress(ValueError):  # of a later version
                display.event(event_of(fields))
        case WorkersDid(table=table):
            display.workers(table)
        case Does(doing=doing):
            display.doing(doing[0] if doing else None)
        case RunBegan(path=path, record=fields):
            display.begin(Path(path), fields)
        case RunEnded(record=fields):
            display.end(fields)
        case FolderOpened(path=path):
            display.run_folder(Path(path))


def tell(message: Message) -> None:
    """Write a message into the log of the job that this process belongs to."""
    if sys.stdout is not None:
        ScreenStream(sys.stdout).write(to_line(message))


class LinesDisplay(TableDisplay):
    """Writes a message for each of its calls, and makes a link to each run folder.

    Args:
        stream: where they go.
        links: the path that links begin with (see `links`).
        is_quiet: tell of run folders alone: ``verbose=0``.
    """

    def __init__(self, stream: TextIOBase, links: Path, *, is_quiet: bool = False) -> None:
        super().__init__()
        self._stream, self._links, self._is_quiet = stream, links, is_quiet
        self._began_s = time.monotonic()
        self._next_s: dict[str, float] = {}
        self._doing: Doing | None = None

    def say(self, text: str) -> None:
        """Tell the line."""
        self._tell(Said(text=text))

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Tell that workers train."""
        super().begin(path, record)
        self._tell(RunBegan(path=os.fspath(path), record=dict(record)))

    def end(self, record: Mapping[str, Any]) -> None:
        """Tell the end of the run."""
        self._tell(RunEnded(record=dict(record)))

    def event(self, event: Event) -> None:
        """Tell the event."""
        self._tell(Happened(event=event.to_json()))

    def progress(self, progress: Progress, epochs: int) -> None:
        """Now and then, tell of the epoch that runs."""
        if self._is_due("progress"):
            self._tell(Progressed(progress=progress, epochs=epochs))

    def workers(self, table: WorkerTable) -> None:
        """Now and then, tell how the workers do; of many the slowest."""
        if self._is_due("workers"):
            self._tell(WorkersDid(table=table.shortened(_MAX_WORKERS)))

    def doing(self, doing: Doing | None) -> None:
        """Tell what is done, when that is something else, and now and then how far it is."""
        before, self._doing = self._doing, doing
        is_new = (doing and doing.what) != (before and before.what)
        if is_new or (doing != before and self._is_due("doing")):
            self._tell(Does(doing=() if doing is None else (doing,)))

    def _is_due(self, name: str) -> bool:
        """Whether what only its newest value counts of is told again: less often after hours."""
        now_s = time.monotonic()
        if now_s < self._next_s.get(name, 0.0):
            return False
        least_s, most_s = _PROGRESS_EVERY_S
        self._next_s[name] = now_s + min(most_s, max(least_s, (now_s - self._began_s) / 1000))
        return True

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Tell of the epoch, but for its row ids, which are in checkpoints."""
        self._tell(EpochDone(record=replace(record, row_ids=()), epochs=epochs, seconds=seconds))

    def run_folder(self, path: Path) -> None:
        """Tell of the folder, whatever else is to be told."""
        try:
            name = link(self._links, path)
        except OSError as error:
            self.say(f"warning: {path} cannot be fetched from elsewhere: {error}")
            name = ""
        self._stream.write(to_line(FolderOpened(path=os.fspath(path), host=host_name(), link=name)))

    def _tell(self, message: Message) -> None:
        if not self._is_quiet:
            self._stream.write(to_line(message))


def display_for(verbose: Verbose) -> Display:
    """The display of this process: messages where a job is watched from elsewhere, else `make_display`.

    Raises:
        ConfigurationError: `verbose` has another value than these take.
    """
    found, links = make_display(verbose), links_wanted()
    if links is None or sys.stdout is None:
        return found
    stream = ScreenStream(sys.stdout)
    return ScreenThread(LinesDisplay(stream, links, is_quiet=verbose == 0), stream)
