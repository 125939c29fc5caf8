"""What a run recorded as curves over one axis: how far it had come, counted in epochs.

Time would be the other axis. But a run that paused over a night, or waited for machines, would be two short curves and
a long hole, and a run that went back to a checkpoint would not show that it did the same steps twice. What is known by
its time alone (events) lies between the samples around it.

What a worker tells are sums since its first step, so what happened between two samples is a difference, and of
thousands of samples some hundred say the same. A worker that joins, or begins again, begins at nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard, TypeVar

import numpy as np

from .recorded import RecordedRun

MAX_POINTS = 160  # of a curve; nobody sees more on a phone
_MAX_EPOCHS = 2000  # are looked at, evenly spaced
_FEW_EPOCHS = 2  # which are no curve
_Item = TypeVar("_Item")
Spent = Mapping[int, Mapping[str, float]]  # seconds by worker and part


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Numbers over the axis: `y` at `x`, float64; `num_lost` of them are NaN or infinite, and NaN here."""

    name: str
    x: np.ndarray
    y: np.ndarray
    num_lost: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Between two samples: where it ends on the axis, how many steps it has, rows trained on, where time went."""

    end: float
    num_steps: float
    rows: int
    spent: Spent

    @property
    def seconds(self) -> float:
        """How long it took, pauses left out: the parts of a worker add up to its time."""
        return max((sum(parts.values()) for parts in self.spent.values()), default=0.0)


def steps_per_epoch(run: RecordedRun) -> int:
    """How many steps an epoch has; 1 where nothing says it."""
    rows = run.record.get("data", {}).get("train", {}).get("rows", 0)
    batch = run.record.get("plan", {}).get("global_batch_size") or 1
    return max(1, run.record.get("identity", {}).get("steps_per_epoch") or -(-rows // batch))


def first_epoch(run: RecordedRun) -> int:
    """Where the axis begins."""
    return int(run.record.get("identity", {}).get("initial_epoch", 0))


def place_of(run: RecordedRun, times: Iterable[float]) -> np.ndarray:
    """Where on the axis the run was at some times (seconds since 1970)."""
    num_steps = steps_per_epoch(run)
    known = [(event.time, float(first_epoch(run))) for event in run.events[:1]]
    known += [(sample.time, sample.step / num_steps) for sample in run.samples]
    known += [(epoch.time, epoch.epoch + 1.0) for epoch in _some(run.epochs, _MAX_EPOCHS)]
    return np.interp(list(times), *np.array(sorted(known) or [(0.0, 0.0)]).T)


def metric_curves(run: RecordedRun) -> dict[str, tuple[Curve, ...]]:
    """By name of a metric its curve in training, in validation, or both; metrics that are no numbers have none.

    A run of one epoch has the metrics of its samples: their means since the epoch began.
    """
    points = [(epoch.epoch + 1.0, epoch.logs) for epoch in _some(run.epochs, _MAX_EPOCHS)]
    if len(points) < _FEW_EPOCHS:
        inside = [(sample.step / steps_per_epoch(run), sample.logs) for sample in run.samples]
        points = sorted([*inside, *points], key=lambda point: point[0])
    found: dict[str, tuple[Curve, ...]] = {}
    for name in dict.fromkeys(name for _, logs in points for name in logs):
        having = [(x, value) for x, logs in points if is_number(value := logs.get(name))]
        base = name.removeprefix("val_")
        if having:
            curve = curve_of("training" if base == name else "validation", having)
            found[base] = (*found.get(base, ()), curve)
    return found


def is_number(value: object) -> TypeGuard[float]:
    """Whether a metric is one that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def stretches(run: RecordedRun) -> list[Stretch]:
    """The run between some of its samples; where there are none, its epochs, as far as those tell.

    Of a worker that is lost, what it did after the last of these samples does not count.
    """
    num_steps, found = steps_per_epoch(run), []
    for before, after in pairwise(_some(run.samples, MAX_POINTS)):
        known = {each.worker: each for each in before.workers}
        spent = {each.worker: each.spent_since(known.get(each.worker)) for each in after.workers}
        if after.rows >= before.rows:  # else the run went back to a checkpoint
            found.append(Stretch(after.step / num_steps, after.step - before.step, after.rows - before.rows, spent))
    epochs = () if found else _some(run.epochs, _MAX_EPOCHS)
    return found + [Stretch(each.epoch + 1, num_steps, each.rows, each.seconds_by_worker) for each in epochs]


def spent_in(found: Iterable[Stretch]) -> dict[int, dict[str, float]]:
    """Seconds by part of every worker, in the order of their numbers."""
    total: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for worker, parts in (item for each in found for item in each.spent.items()):
        for part, seconds in parts.items():
            total[worker][part] += seconds
    return {worker: dict(total[worker]) for worker in sorted(total)}


def curve_of(name: str, points: Sequence[tuple[float, Any]]) -> Curve:  # Any: numbers
    """The curve of (place, number): of as many neighbours as there must be together the lowest and the highest.

    So no spike is lost, and a curve has at most `MAX_POINTS` and two.
    """
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    is_lost, chosen = ~np.isfinite(y), np.arange(len(x))
    if len(x) > MAX_POINTS:
        low, high = np.where(is_lost, np.inf, y), np.where(is_lost, -np.inf, y)
        pieces = np.array_split(chosen, MAX_POINTS // 2)
        kept = [each[[low[each].argmin(), high[each].argmax()]] for each in pieces]
        chosen = np.unique([0, *np.concatenate(kept), len(x) - 1])
    return Curve(name, x[chosen], np.where(is_lost, np.nan, y)[chosen], int(is_lost.sum()))


def _some(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """At most so many of them, the first and the last too, evenly spaced."""
    places = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[round(place)] for place in places]
