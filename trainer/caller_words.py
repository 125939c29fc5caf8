"""What workers ask the caller of a session, whose own loop says what comes next, and what it answers: plain values.

All of it is about *places* of a run, where its workers stand between two steps and wait. A place is the number of an
epoch and how many of its steps are done, or `NOT_BEGUN` between two epochs; so places are in the order of the run. What
is wanted at a place is the same for every worker, whenever it asks, and for one that comes there again: from a
checkpoint, say, after all workers were lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Place = tuple[int, int]
NOT_BEGUN = -1  # in place of the number of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerAsked:
    """A worker is at a place, and waits for what the caller wants there.

    Attributes:
        epoch: number of the epoch; between two, of the next one.
        step: how many of its steps are done, or `NOT_BEGUN`.
        num_steps: steps that it has; where all are done, it is asked whether to validate.
        num_validation_steps: steps of a validation pass after it; 0 without.
        logs: metrics of the epoch until now; between two, of the one that is over. Empty where the worker knows none.
        learning_rate: of the compiled model's optimizer; None if it has none.
        is_scheduled: whether a schedule decides it, or a function of the user's.
        told: what the caller wanted here is in the worker's state already: it goes on from a checkpoint.
    """

    epoch: int
    step: int
    num_steps: int
    num_validation_steps: int
    logs: dict[str, Any] = field(default_factory=dict)  # whatever metrics give
    learning_rate: float | None = None
    is_scheduled: bool = False
    told: bool = False

    @property
    def place(self) -> Place:
        """Where the worker is."""
        return self.epoch, self.step

    @property
    def is_between_epochs(self) -> bool:
        """Whether the epoch has not begun."""
        return self.step == NOT_BEGUN

    @property
    def is_trained(self) -> bool:
        """Whether all steps of the epoch are done."""
        return self.step >= self.num_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerWants:
    """What the caller wants at a place: to go on, if it says nothing else.

    Attributes:
        place: where.
        learning_rate: that the optimizer has from here on; None leaves it.
        validates: validate, after all steps of the epoch.
        ends: the run ends here, before this epoch.
    """

    place: Place
    learning_rate: float | None = None
    validates: bool = False
    ends: bool = False
