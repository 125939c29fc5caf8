"""An error of ours that a script does not catch: what is shown of it under plain ``python``, and in a notebook.

Forty frames of Ray's and of our driver's say nothing to a user, and push what does off the screen. So the frames of his
own code are shown, those on a worker among them, and below them the message; ``HELIOSTAT_TRACEBACK=1`` shows
everything. A pause is no mistake, and it is still an `Exception` for whoever catches exceptions: uncaught it is its
message and its exit status.

Only what shows uncaught errors is changed, only for classes of ours and for Ctrl-C in a call of ours, and only Python's
own way of it, or Ray's, which every process that loads Ray has: where somebody else has changed it (a debugger, a
service that collects errors), it is his. Notebooks ask the error itself, by a method of that name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from traceback import walk_tb
from types import TracebackType
from typing import ParamSpec, TypeVar

from ..environment import TRACEBACK, wants_tracebacks
from ..errors import CallDetachedError
from .error_text import OURS, full_account, is_no_mistake, is_ours, short_account

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def shows_errors_shortly(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """From the first call of the function on, uncaught errors of ours are shown shortly."""

    @functools.wraps(function)
    def called(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        show_errors_shortly()
        return function(*args, **kwargs)

    return called


def show_errors_shortly() -> None:
    """Let uncaught errors of ours be shown shortly in this process, unless somebody else shows what is uncaught.

    It may be called again: what was loaded meanwhile, such as Ray, may have taken its place.
    """
    usual = sys.excepthook
    if usual is sys.__excepthook__ or getattr(usual, "__module__", "").partition(".")[0] == "ray":
        sys.excepthook = functools.partial(_show, usual)
    for kind in (*OURS, CallDetachedError):
        kind._render_traceback_ = _lines_in_notebook  # type: ignore[union-attr]  # what IPython looks for


def _show(usual: _Hook, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    is_interrupt = kind is KeyboardInterrupt and _is_through_ours(traceback) and not wants_tracebacks()
    if not is_ours(error) and not is_no_mistake(error) and not is_interrupt:
        usual(kind, error, traceback)
        return
    if sys.stderr is not None:
        print("\n".join(_lines_of(error)), file=sys.stderr)
    if is_no_mistake(error):
        sys.exit(error.exit_status)  # type: ignore[attr-defined]  # both have one


def _is_through_ours(traceback: TracebackType | None) -> bool:
    """Whether a call of ours was on its way: Ctrl-C while Ray starts, say, or a second one."""
    frames = (frame for frame, _ in walk_tb(traceback))
    return any(frame.f_globals.get("__name__", "").startswith("heliostat.") for frame in frames)


def _lines_in_notebook(error: BaseException) -> list[str]:
    return _lines_of(error, f"%env {TRACEBACK}=1")


def _lines_of(error: BaseException, way_to_all: str = f"{TRACEBACK}=1") -> list[str]:
    if wants_tracebacks() and not is_no_mistake(error):
        return full_account(error).splitlines()
    return short_account(error, way_to_all).splitlines()
