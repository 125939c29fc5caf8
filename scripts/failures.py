"""Errors on the screen: Heliostat's own as a message that says what to do, with the frames of the user's code alone.

What makes the texts is imported only when something has failed, so that commands start fast.
"""

from __future__ import annotations


def is_ours(error: BaseException) -> bool:
    """Whether Heliostat raised it on purpose: its message says what happened and what to do."""
    from heliostat.trainer.driver.error_text import is_ours as is_of_a_package

    from .errors import ScriptError

    return isinstance(error, ScriptError) or is_of_a_package(error)


def is_pause(error: BaseException) -> bool:
    """Whether it says that a run was paused, which is no mistake."""
    from heliostat.trainer.errors import RunPausedError

    return isinstance(error, RunPausedError)


def message_of(error: BaseException) -> str:
    """The error's message, its notes and the log file it knows of, as lines."""
    from heliostat.trainer.driver.error_text import message_of as text

    return text(error)


def short_account(error: BaseException, way_to_all: str) -> str:
    """The frames of the user's code and the error's message; `way_to_all` is what shows all frames."""
    from heliostat.trainer.driver.error_text import short_account as text

    return text(error, way_to_all)


def full_account(error: BaseException, path: str = "") -> str:
    """The traceback, from the first frame of the file `path` on, and the worker's traceback if there is one."""
    from heliostat.trainer.driver.error_text import full_account as text

    return text(error, path)
