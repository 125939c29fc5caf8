"""What a command of `heliostat` wants of the script it runs: to go on in a given folder, or to replay a step.

Set for the script's own process by the command line; a program that uses the trainer directly never sees it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .jobs import ReplayReport, ReplayWanted


@dataclass(slots=True, kw_only=True)
class Directions:
    """What is wanted of one `fit` of this process.

    Attributes:
        run_dir: the run folder it is to use.
        fit: which `fit` of the process, counted from 1.
        replay: the step to compute again instead of training.
        report: what the replay found.
    """

    run_dir: Path
    fit: int = 1
    replay: ReplayWanted | None = None
    report: ReplayReport | None = None


class ReplayDone(BaseException):
    """Ends the script after a replay; `Directions.report` has the result."""


class _Current:
    """The directions of this process, and how many fits it has begun."""

    def __init__(self) -> None:
        self.directions: Directions | None = None
        self.num_fits = 0


_current = _Current()


@contextlib.contextmanager
def directed(directions: Directions) -> Iterator[Directions]:
    """Run the block with directions."""
    _current.directions, _current.num_fits = directions, 0
    try:
        yield directions
    finally:
        _current.directions = None


def next_fit() -> tuple[int, Directions | None]:
    """Count a `fit` that begins: its number in this process, and the directions if they are for it."""
    _current.num_fits += 1
    wanted = _current.directions
    return _current.num_fits, wanted if wanted is not None and wanted.fit == _current.num_fits else None
