"""A little of everything that a script does with its trainer, for ``heliostat run --quick``.

A fit becomes two of one epoch: the first ends with a checkpoint, and the second goes on from it in the same run folder,
as the same command does after a pause. What is learned of it is in the run folders, which the command reads. Passes
leave nothing there, so each writes a line beside them, with how long it took or what it raised.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoints.values import from_line, to_line
from ..environment import Command
from ..events import Lines
from ..shortened import QuickWanted, a_little
from .display import Display
from .plan import Run
from .result import Result
from .run import fit
from .workers import Workers

PASSES_FILE = "passes.jsonl"  # beside the run folders


@dataclass(frozen=True, slots=True, kw_only=True)
class PassDone(Lines):
    """An `evaluate` or `predict` of a script.

    Attributes:
        what: which of them.
        seconds: how long it took.
        error: what it raised; empty if nothing.
    """

    what: str
    seconds: float
    error: str = ""


def fit_a_little(run: Run, quick: QuickWanted, workers: Workers, screen: Display) -> Result | None:
    """Do an epoch of a few steps, and another one from its checkpoint, where the run makes any; returns the result.

    Args:
        run: what is wanted.
        quick: how little of it.
        workers: of the trainer.
        screen: what the user sees.

    Raises:
        what `run.fit` raises.
    """
    result = fit(replace(run, wanted=a_little(run.wanted, quick, 1)), workers, screen)
    if run.wanted.checkpoint_every is None:
        return result
    return fit(replace(run, wanted=a_little(run.wanted, quick, 2)), workers, screen)


@contextlib.contextmanager
def pass_noted(what: str, command: Command | None) -> Iterator[None]:
    """Note how the pass in the block has gone, if a command wants that.

    Args:
        what: "evaluate" or "predict".
        command: that wants it; None notes nothing.
    """
    if command is None:
        yield
        return
    began_s, error = time.monotonic(), ""
    try:
        yield
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
        raise
    finally:
        done = PassDone(what=what, seconds=round(time.monotonic() - began_s, 3), error=error)
        command.run_dir.parent.mkdir(parents=True, exist_ok=True)
        with (command.run_dir.parent / PASSES_FILE).open("a") as file:
            file.write(to_line(done.to_json()) + "\n")


def read_passes(folder: Path) -> list[PassDone]:
    """The passes that are noted in a folder, in their order."""
    path = folder / PASSES_FILE
    lines = map(from_line, path.read_bytes().splitlines() if path.exists() else [])
    return [PassDone.from_json(line) for line in lines if isinstance(line, dict)]
