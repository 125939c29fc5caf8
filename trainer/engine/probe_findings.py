"""What looks at a step on several sets of rows tell of it: which of its results do not follow from microbatches.

A run cuts the rows of a batch into microbatches, computes each by itself and adds up what they bring, weighted as
`layout.microbatch_weights` says. That is exact for means over rows, for sums that are declared, and for metrics whose
state adds up. Whether a step is like that is asked here in two ways, of every gradient it applies, every number it
returns and all state it assigns:

**Copies.** The same rows twice. A mean over rows stays as it is. What is larger by as much again for three times the
rows as for twice (within a quarter) is a sum over rows, or holds one. The quarter matters: a logarithm of a sum over
all rows, as in `keras.losses.Circle`, grows by ln 2, then by ln 1.5, which is off by 0.42; and a bound that is wider
where numbers are coarser takes it for a sum in bfloat16.

**Parts.** The rows in two halves, put together as a run does, against all of them at once.

A gradient that the step changes before it applies it, by clipping, say, may be within its bound at the start. So where
gradients are not applied as tapes gave them, they are looked at **scaled**, too: what is applied must grow in
proportion.

Sizes are compared with a tolerance that belongs to the coarsest dtype in which the model computes: the largest
distance that was seen of a loss that is a mean, and some room. Where halves cancel, their own size counts, since it is
what their rounding follows. Nothing here needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["gradient", "raw gradient", "number", "state", "count", "global_sum", "global_mean"]
Verdict = Literal["grows", "no sum", "state", "changed gradient", "whole batch", "metric", "nothing to see"]

TOLERANCES: Mapping[str, float] = {"float64": 1e-6, "float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
HALF_PRECISION = TOLERANCES["float16"]
STEADY = 0.25
SCALE = 1e6
REFUSED: tuple[Verdict, ...] = ("grows", "no sum", "state", "changed gradient")


class Place(NamedTuple):
    """Where a value was seen.

    Of the kinds, a raw gradient is what tapes gave for the variables that an apply of the same name updates, a number
    is one that the step returned, a count is integer state, and the last two are arguments of calls.
    """

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a step did with some rows.

    Attributes:
        values: float64 ``[elements]``; of state, how much it has changed.
        noise: the error that rounding may leave in a value, by place; nothing where the tolerance covers it.
        metrics: state of metrics after these rows alone, by position among the model's.
        changed: places of gradients that are not applied as tapes gave them.
    """

    values: Mapping[Place, np.ndarray]
    noise: Mapping[Place, float] = field(default_factory=dict)
    metrics: Sequence[np.ndarray] = ()
    changed: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """By what the run multiplies values before it adds them up.

    Attributes:
        first, second: those of the two parts of the whole.
        copy: that of either of two copies: a half for means, 1 for sums.
    """

    first: float = 0.5
    second: float = 0.5
    copy: float = 0.5

    @property
    def is_sum(self) -> bool:
        """Whether copies are added up, not averaged."""
        return self.copy == 1.0


SUM = Shares(first=1.0, second=1.0, copy=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The same step on all of some rows, on their two parts, and on the first part twice and three times.

    Attributes:
        whole, first, second, twice: see above.
        thrice: None as long as nobody has asked for it.
        in_twice, in_thrice: the first part as one of its copies, where a step asks for sums over the whole batch, which
            others are for other batches; None where that makes no difference.
        scaled: the first part with gradients of tapes `SCALE` and twice `SCALE` times as large; None where they are
            applied as they are, or depend on the whole batch.
        shares: by kind; a place that adds up where its kind does not is in `sums`.
        sums: see `shares`.
    """

    whole: Look
    first: Look
    second: Look
    twice: Look
    thrice: Look | None = None
    in_twice: Look | None = None
    in_thrice: Look | None = None
    scaled: tuple[Look, Look] | None = None
    shares: Mapping[Kind, Shares] = field(default_factory=dict)
    sums: frozenset[Place] = frozenset()

    def shares_of(self, place: Place) -> Shares:
        """By what the run multiplies the value at a place."""
        if place.kind == "global_sum" or place in self.sums:
            return SUM
        return self.shares.get(place.kind, Shares())

    @property
    def places(self) -> list[Place]:
        """What was seen every time."""
        others = (self.first.values, self.second.values, self.twice.values)
        return [place for place in self.whole.values if all(place in values for values in others)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A result of a step that does not follow from microbatches.

    Attributes:
        verdict: why not.
        place: of the value.
        ratio: of its size for twice the rows to that for the rows.
        together: its value (its size, for several numbers) for all rows at once.
        apart: the same of what the run makes of the two parts.
        distance: of these two, relative to their size.
    """

    verdict: Verdict
    place: Place
    ratio: float = 1.0
    together: float = 0.0
    apart: float = 0.0
    distance: float = 0.0


def must_look_thrice(looks: Looks, tolerance: float) -> bool:
    """Whether something changes with copies of its rows, so that three of them must be looked at."""
    return any(
        place.kind != "count" and _is_to_be_seen(looks, place) and _changes_with_copies(looks, place, tolerance)
        for place in looks.places
    )


def find(looks: Looks, results: Mapping[str, tuple[np.ndarray, np.ndarray]], tolerance: float) -> list[Finding]:
    """What does not follow from microbatches, or could not be seen.

    Args:
        looks: at the step.
        results: of metrics, by name: that of all rows at once, and that of the added states of the two parts.
        tolerance: one of `TOLERANCES`.
    """
    by_place = {place: finding for place in looks.places if (finding := _judged(looks, place, tolerance))}
    metrics = [*_differing_results(results, tolerance)]
    told = metrics or [f for p, f in by_place.items() if p.kind == "number" and f.verdict != "nothing to see"]
    found = []
    for place, finding in by_place.items():
        raw = Place("raw gradient", place.name)
        if place.kind == "raw gradient" or (finding.verdict == "nothing to see" and place.kind != "gradient"):
            continue
        if place.kind == "gradient" and finding.verdict == "whole batch" and not told and raw not in by_place:
            # What tapes gave is a mean over rows, or unknown where no loss differs either: the step has changed it.
            finding = replace(finding, verdict="changed gradient")
        found.append(finding)
    told_of = {finding.place for finding in found if finding.verdict in REFUSED}
    bounded = [place for place in looks.whole.changed if _is_bounded(looks, place, tolerance)]
    found += [Finding(verdict="changed gradient", place=place) for place in bounded if place not in told_of]
    return [*found, *metrics]


def _judged(looks: Looks, place: Place, tolerance: float) -> Finding | None:
    if not _is_to_be_seen(looks, place):
        return Finding(verdict="nothing to see", place=place)
    whole, first, second = (look.values[place] for look in (looks.whole, looks.first, looks.second))
    shares = looks.shares_of(place)
    apart = shares.first * first + shares.second * second
    # Halves that cancel are rounded by their own size.
    scale = max(_size(whole), _size(apart), shares.first * _size(first) + shares.second * _size(second))
    seen = Finding(
        verdict="state" if place.kind in ("state", "count") else "whole batch",
        place=place,
        ratio=_ratio(looks, place),
        together=_value(whole),
        apart=_value(apart),
        distance=_size(apart - whole) / max(scale, 1e-300),
    )
    if place.kind == "count":
        return None if _counts_agree(looks, place) else seen
    grows = _grows(looks, place, tolerance)
    if grows and place.kind != "state":
        return replace(seen, verdict="grows")
    if (
        shares.is_sum
        and place.kind == "gradient"
        and _distance(looks.twice.values[place], _in_twice(looks, place)) <= tolerance
    ):
        return replace(seen, verdict="no sum")
    rounding = tolerance * scale + looks.whole.noise.get(place, 0.0)
    if tolerance >= HALF_PRECISION and place.kind in ("gradient", "raw gradient"):
        # Long sums lose more of it than the tolerance has room for, and copies show how much.
        rounding += 2 * _size(_excess(looks, place, 2))
    is_off = _size(apart - whole) > rounding
    return seen if is_off or grows else None


def _is_to_be_seen(looks: Looks, place: Place) -> bool:
    """Whether values are finite, and larger than rounding."""
    seen = [look.values[place] for look in (looks.whole, looks.first, looks.second, looks.twice)]
    if place.kind == "count":
        return True
    is_finite = all(np.isfinite(each).all() for each in seen)
    return is_finite and max(map(_size, seen)) > max(looks.whole.noise.get(place, 0.0), 1e-30)


def _in_twice(looks: Looks, place: Place) -> np.ndarray:
    """The value for the first part, as half of a batch that has it twice."""
    return (looks.in_twice or looks.first).values[place]


def _excess(looks: Looks, place: Place, copies: Literal[2, 3]) -> np.ndarray:
    """How much more copies of the first part give than a run makes of so many microbatches of it."""
    together = looks.twice if copies == 2 else looks.thrice or looks.twice
    alone = (looks.in_twice if copies == 2 else looks.in_thrice) or looks.first
    return together.values[place] / (copies if looks.shares_of(place).is_sum else 1) - alone.values[place]


def _changes_with_copies(looks: Looks, place: Place, tolerance: float) -> bool:
    size = max(_size(_in_twice(looks, place)), _size(looks.twice.values[place]))
    return _size(_excess(looks, place, 2)) > tolerance * size + looks.first.noise.get(place, 0.0)


def _grows(looks: Looks, place: Place, tolerance: float) -> bool:
    """Whether a value is larger by as much again for every copy of its rows."""
    if looks.thrice is None or place not in looks.thrice.values or not _changes_with_copies(looks, place, tolerance):
        return False
    second = _excess(looks, place, 2)
    return _distance(_excess(looks, place, 3) - second, second) < STEADY


def _is_bounded(looks: Looks, place: Place, tolerance: float) -> bool:
    """Whether what is applied does not grow in proportion to what tapes give; a constant may be added to it."""
    if looks.scaled is None or not all(place in look.values for look in (looks.first, *looks.scaled)):
        return False
    one, scaled, twice = (look.values[place] for look in (looks.first, *looks.scaled))
    return _size(scaled - one) > 0 and _distance(twice - scaled, (scaled - one) * SCALE / (SCALE - 1)) > tolerance


def _counts_agree(looks: Looks, place: Place) -> bool:
    whole, first, second = (look.values[place] for look in (looks.whole, looks.first, looks.second))
    if looks.shares_of(place).is_sum:
        return bool(np.array_equal(first + second, whole))
    return all(np.array_equal(each, whole) for each in (first, second, looks.twice.values[place]))


def _differing_results(results: Mapping[str, tuple[np.ndarray, np.ndarray]], tolerance: float) -> Iterator[Finding]:
    for name, (together, apart) in results.items():
        distance = _distance(apart, together)
        if np.isfinite(together).all() and np.isfinite(apart).all() and distance > tolerance:
            yield Finding(
                verdict="metric",
                place=Place("number", name),
                together=_value(together),
                apart=_value(apart),
                distance=distance,
            )


def _ratio(looks: Looks, place: Place) -> float:
    once, twice = _in_twice(looks, place), looks.twice.values[place]
    return float(np.dot(once, twice) / max(np.dot(once, once), 1e-300))


def _value(array: np.ndarray) -> float:
    return float(array[0]) if array.size == 1 else _size(array)


def _size(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))


def _distance(left: np.ndarray, right: np.ndarray) -> float:
    """The size of a difference, relative to the larger of the two."""
    return _size(left - right) / max(_size(left), _size(right), 1e-300)
