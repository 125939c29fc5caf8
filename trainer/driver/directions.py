"""What a command of `heliostat` wants of its script: to go on in a folder, to replay or trace steps, to be watched.

Set for the script's own process by the command line; a program that uses the trainer directly never sees it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.data import Dataset

from ..jobs import ReplayReport, ReplayWanted, TraceWanted
from ..timing.tracing import TraceBook
from .run_folder import numbered_run_path

Watch = Callable[[Path, WorkerGroup, TaskLoop], None]


@dataclass(slots=True, kw_only=True)
class Directions:
    """What is wanted of one `fit` of this process, or of all.

    Attributes:
        run_dir: the run folder it is to use. Of all fits: that of the first; the others have ``-2``, ``-3`` ... behind
            it, and their checkpoints are in there, too.
        fit: which `fit` of the process, counted from 1; None for all.
        replay: the step to compute again instead of training.
        report: what the replay found.
        data: the dataset that the replayed step was read from.
        trace: the steps to record, of the first fit that has them; the script ends after that.
        traced: what was recorded.
        watch: told the run folder, the workers and the task when the training of a fit begins.
        reached: whether the script has come to that `fit`.
    """

    run_dir: Path
    fit: int | None = 1
    replay: ReplayWanted | None = None
    report: ReplayReport | None = None
    data: Dataset | None = None
    trace: TraceWanted | None = None
    traced: TraceBook | None = None
    watch: Watch | None = None
    reached: bool = False

    def folder(self, number: int) -> Path:
        """The run folder of the process's `number`-th fit."""
        return self.run_dir if self.fit is not None else numbered_run_path(self.run_dir, number)


class ReplayDone(BaseException):
    """Ends the script after a replay; `Directions.report` has the result."""


class TraceDone(BaseException):
    """Ends the script once the steps are recorded; `Directions.traced` has them."""


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
    if wanted is None or wanted.fit not in (None, _current.num_fits):
        return _current.num_fits, None
    wanted.reached = True
    return _current.num_fits, wanted
