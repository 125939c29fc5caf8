"""Single steps, looked at: what workers tell of those that are traced, or computed again.

`heliostat trace` asks every worker for what it did in some steps, and for its clock beside the driver's, so that all
can be drawn in one picture. `heliostat replay` lets one worker compute one step again, microbatch by microbatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat.cluster.instruments import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockAsked:
    """A worker asks for the driver's performance counter, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What a worker's clock showed when the driver's was read.

    Attributes:
        own_s: the worker's performance counter, in seconds.
        offset_s: what must be added to it to get the driver's.
        bound_s: how wrong that may be, either way.
    """

    own_s: float
    offset_s: float
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTrace:
    """What a worker did in the steps asked for.

    Attributes:
        host: name of its machine.
        spans: by this worker's performance counter, in the order in which they ended.
        dropped: how many found no room.
        readings: its clock beside the driver's, before the first of these steps and after the last.
        clock: which clock it is (`clock_identity`).
    """

    host: str
    spans: tuple[Span, ...]
    dropped: int
    readings: tuple[ClockReading, ...]
    clock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MicrobatchReplay:
    """One microbatch, computed again.

    Attributes:
        number: its number in the step.
        row_ids: its rows.
        logs: loss and metrics over these rows alone.
        norms: L2 norm of its contribution to each variable's gradient (or moving average), by the variable's path,
            behind which the phase is named where a step has several.
        nonfinite: the variables for which that is not finite.
    """

    number: int
    row_ids: tuple[int, ...]
    logs: dict[str, Any]
    norms: dict[str, float]
    nonfinite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """One step, computed again.

    Attributes:
        epoch: its epoch; `step` is its number there.
        present: the microbatches of the step that have rows.
        microbatches: those that were computed.
        pass_number: which pass over the data the epoch is: rows that are drawn or changed at random depend on it.
    """

    epoch: int
    step: int
    present: tuple[int, ...]
    microbatches: tuple[MicrobatchReplay, ...]
    pass_number: int
