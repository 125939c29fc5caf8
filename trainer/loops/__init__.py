"""The three ways to train, one file each, picked by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..session import callbacks
from ..session.session import Session
from . import custom, fit, train_on_batch

Loop = Callable[[Session, callbacks.Gate], None]
LOOPS: dict[str, Loop] = {"fit": fit.run, "train_on_batch": train_on_batch.run, "custom": custom.run}


def make_gate(name: str, session: Session, user: Sequence[Any]) -> callbacks.Gate:
    """The gate of a loop, with the user's callbacks behind it; Keras's own `fit` leaves validation to its gate."""
    return callbacks.make_gate(session, user, meets=name == "fit")


def run_loop(name: str, session: Session, gate: callbacks.Gate) -> None:
    """Train to the end."""
    LOOPS[name](session, gate)
