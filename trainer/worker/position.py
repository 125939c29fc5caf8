"""Where a worker is in the run, and what of that travels to a worker that goes on from there.

Every worker of a group is at the same place whenever it looks. A worker that joins, or a run that is resumed, is put
there by a snapshot: perhaps in the middle of an epoch, whose first steps and begin hooks were somebody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..caller_words import Place

RowIds = tuple[tuple[int, ...], ...]  # of one step: the ids of the rows that each worker computed, in order of rank


@dataclass(slots=True, kw_only=True)
class Position:
    """The place in the run.

    Attributes:
        steps_per_epoch: steps of a pass over the data.
        epoch: number of the epoch, counted from 0 over the whole run; between two epochs the next one.
        step: how many steps of it are done.
        begun: the epoch has begun; False between two epochs.
        is_new: no epoch of the run has begun yet.
        first_step: the first step that is done here; those before it were done elsewhere, and the epoch's begin hooks
            ran there if `begun_elsewhere`.
        begun_elsewhere: see `first_step`.
        steps_over: no step follows in this epoch although it is not complete: callbacks have ended it.
        heard_chief: what the chief says before a step has been heard, for the step that comes next.
        row_ids: rows of the epoch's steps, if they are recorded.
        validates: whether the epoch is validated, if the run has data for that.
        told: the place at which it was heard last what a session's caller wants; None without.
    """

    steps_per_epoch: int
    epoch: int
    step: int = 0
    begun: bool = True
    is_new: bool = True
    first_step: int = 0
    begun_elsewhere: bool = False
    steps_over: bool = False
    heard_chief: bool = False
    row_ids: list[RowIds] = field(default_factory=list)
    validates: bool = True
    told: Place | None = None

    @property
    def of_run(self) -> int:
        """The step of the run that is being computed or comes next, counted from 0 over all epochs."""
        return self.epoch * self.steps_per_epoch + self.step

    def computes(self, step: int) -> bool:
        """Whether a step of the epoch is computed here."""
        return step >= self.first_step and not self.steps_over

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins here."""
        self.epoch, self.step, self.first_step = epoch, 0, 0
        self.begun, self.is_new = True, False
        self.begun_elsewhere = self.steps_over = False
        self.validates = True
        self.row_ids = []

    def end_epoch(self) -> None:
        """The epoch is over on all workers, its callbacks included."""
        self.epoch, self.step, self.begun, self.row_ids = self.epoch + 1, 0, False, []

    def for_snapshot(self, *, is_stopped: bool) -> dict[str, Any]:
        """What a snapshot holds of it beside epoch and step, as JSON values.

        Args:
            is_stopped: callbacks have asked to stop the run.
        """
        return {
            "new": self.is_new,
            "row_ids": [[list(ids) for ids in step] for step in self.row_ids],
            "framed": self.heard_chief,
            "stopping": is_stopped and self.begun,
            "told": None if self.told is None else list(self.told),
        }

    def go_on(self, step: int, extra: Mapping[str, Any]) -> None:
        """Go on in an epoch that was begun elsewhere, after `begin_epoch`.

        Args:
            step: how many steps of it are done.
            extra: what `for_snapshot` gave there. Where callbacks have stopped the run, no step follows.
        """
        self.begun_elsewhere = True
        self.steps_over = extra["stopping"]
        self.step = step
        self.first_step = self.steps_per_epoch if self.steps_over else step
        self.row_ids = [tuple(tuple(ids) for ids in each) for each in extra["row_ids"]]
        self.heard_chief = extra["framed"]
