"""Errors on the screen: Heliostat's own as a message that says what to do, others as a traceback of the user's code."""

from __future__ import annotations

import traceback
from types import TracebackType


def is_ours(error: BaseException) -> bool:
    """Whether Heliostat raised it on purpose: its message says what happened and what to do."""
    from heliostat.cluster.errors import ClusterError  # only when something failed, so that commands start fast
    from heliostat.data.errors import DatasetError
    from heliostat.trainer.errors import TrainerError

    from .errors import ScriptError

    return isinstance(error, (ClusterError, DatasetError, ScriptError, TrainerError))


def is_pause(error: BaseException) -> bool:
    """Whether it says that a run was paused, which is no mistake."""
    from heliostat.trainer.errors import RunPausedError

    return isinstance(error, RunPausedError)


def message_of(error: BaseException) -> str:
    """Return the error's message, its notes and the log file it knows of, as lines."""
    lines = [str(error) or type(error).__name__, *getattr(error, "__notes__", ())]
    log_path = getattr(error, "log_path", "")
    if log_path and log_path not in lines[0]:
        lines.append(f"The worker's log, with its traceback: {log_path}")
    return _printable("\n".join(lines))


def full_account(error: BaseException, path: str = "") -> str:
    """Return the traceback, from the first frame of the file `path` on, and the worker's traceback if there is one."""
    text = "".join(traceback.format_exception(type(error), error, _from_file(error, path)))
    of_worker = getattr(error, "worker_traceback", "")
    if not of_worker:
        return _printable(text)
    return _printable(f"{text}\nTraceback of worker {getattr(error, 'worker', '?')}:\n{of_worker.rstrip()}\n")


def _printable(text: str) -> str:
    from heliostat.trainer.driver.shown_text import printable  # as above

    return printable(text)


def _from_file(error: BaseException, path: str) -> TracebackType | None:
    """The part of the error's traceback that begins in `path`; all of it where `path` does not occur."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return None  # the file did not run, and the error itself shows the line
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename != path:
        part = part.tb_next
    return part or error.__traceback__
