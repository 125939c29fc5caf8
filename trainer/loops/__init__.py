"""The three ways to train, one file each; `run_loop` picks one by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..session import Session
from . import custom, fit, train_on_batch

Loop = Callable[[Session, Sequence[Any]], None]
LOOPS: dict[str, Loop] = {"fit": fit.run, "train_on_batch": train_on_batch.run, "custom": custom.run}


def run_loop(name: str, session: Session, callbacks: Sequence[Any]) -> None:
    """Train to the end; `callbacks` are the user's, on the chief alone."""
    LOOPS[name](session, callbacks)
