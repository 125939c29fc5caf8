"""An error as text for people: Heliostat's own say what to do, of others the frames of the user's code tell."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from heliostat.cluster.errors import ClusterError
from heliostat.cluster.group.user_frames import user_frames
from heliostat.data.errors import DatasetError

from ..errors import CallDetachedError, RunPausedError, TrainerError
from .shown_text import printable

OURS = (ClusterError, DatasetError, TrainerError)
_FIRST, _LAST = 2, 8  # frames of a long way that are shown


def is_ours(error: BaseException) -> bool:
    """Whether Heliostat raised it on purpose: its message says what happened and what to do."""
    return isinstance(error, OURS)


def message_of(error: BaseException) -> str:
    """The error's message, its notes and the log file it knows of, as lines."""
    try:
        text = str(error)
    except Exception as another:  # the user's own class, whose text cannot be made
        text = f"{type(error).__name__}, whose text cannot be shown: {type(another).__name__}"
    lines = [text or type(error).__name__, *map(str, getattr(error, "__notes__", ()))]
    log_path = getattr(error, "log_path", "")
    if log_path and log_path not in lines[0]:
        lines.append(f"The worker's log, with its traceback: {log_path}")
    return printable("\n".join(lines))


def is_no_mistake(error: BaseException) -> bool:
    """Whether it only ends a program early: a run was paused, or the watching of one was ended."""
    return isinstance(error, (RunPausedError, CallDetachedError))


def short_account(error: BaseException, way_to_all: str) -> str:
    """An error of ours for who has not caught it: the frames of the user's code, then the message.

    Args:
        error: it; of what is no mistake the message is all.
        way_to_all: what shows all frames, as the subject of a sentence.
    """
    message = message_of(error)
    if is_no_mistake(error):
        return message
    frames = user_frames(error)
    frames += tuple(each for each in getattr(error, "worker_frames", ()) if each not in frames)
    if not frames:
        return f"{type(error).__name__}: {message}\n({way_to_all} shows the traceback.)"
    if len(frames) > _FIRST + _LAST:
        frames = (*frames[:_FIRST], f"  ... ({len(frames) - _FIRST - _LAST} frames)", *frames[-_LAST:])
    shown = {f"In your code: {each.splitlines()[0].strip()}." for each in frames}
    lines = [each for each in message.splitlines() if each not in shown]
    if message != (name := type(error).__name__):
        lines[0] = f"{name}: {lines[0]}"
    return printable(
        "\n".join(
            [
                "Traceback (most recent call last), of your code alone:",
                *frames,
                *lines,
                f"({way_to_all} shows all of it.)",
            ]
        )
    )


def full_account(error: BaseException, path: str = "") -> str:
    """The traceback, from the first frame of the file `path` on, and the worker's traceback if there is one."""
    text = "".join(traceback.format_exception(type(error), error, _from_file(error, path)))
    of_worker = getattr(error, "worker_traceback", "")
    if not of_worker:
        return printable(text)
    return printable(f"{text}\nTraceback of worker {getattr(error, 'worker', '?')}:\n{of_worker.rstrip()}\n")


def frames_of(error: BaseException, folder: Path) -> tuple[str, ...]:
    """The frames of the traceback that are in files of a folder, as Python shows them, by paths in that folder."""
    found = []
    for frame in traceback.extract_tb(error.__traceback__):
        if is_below(frame.filename, folder):
            frame.filename = str(Path(folder, frame.filename).relative_to(folder))
            found += traceback.format_list([frame])
    return tuple(printable(each.rstrip("\n")) for each in found)


def is_below(filename: str, folder: Path) -> bool:
    """Whether what a frame calls its file is one in a folder, which is the current one of names without a path."""
    return not filename.startswith("<") and Path(folder, filename).is_relative_to(folder)


def _from_file(error: BaseException, path: str) -> TracebackType | None:
    """The part of the error's traceback that begins in `path`; all of it where `path` does not occur."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return None  # the file did not run, and the error itself shows the line
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename != path:
        part = part.tb_next
    return part or error.__traceback__
