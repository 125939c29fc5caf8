"""What single steps of a run have come to, and comparisons of that: to the bit, and with plain Keras.

**To the bit.** After each step every worker tells a hash of each variable, and the numbers so far. Two runs of the
same steps, whoever computed them, must have told the same.

**With plain Keras** a step is compared from the same state: plain Keras is given what the run's variables hold before
the step, and what both have made of it is compared, change against change. So an error of one step is not carried into
the next, which would amplify it, and each step is judged by itself. The tolerance follows from how both add: the sum of
B rows in another order is off by some units in the last place of the largest terms, 2e-16 of them in float64. Allowed
is, for the root of the mean square over a variable,

    relative · (its own change) + floor · (the largest change of a variable of its kind) + 64 units of its value

The second term is for gradients that cancel to zero, as that of a bias in front of a `BatchNormalization`: what is left
of them is rounding of what has cancelled. The third is the rounding of the addition to the weight. `relative` is 1e-9
in float64 for numbers and for what optimizers keep of gradients (momentum, squares), and 1e-7 for weights, since Adam
and its like divide by a root: a gradient near zero leaves with its rounding amplified by up to 1e7 (their epsilon). An
optimizer that keeps nothing (SGD) shows the gradient in the weights alone, and the loss is compared as well.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .events import Lines

Kind = Literal["weight", "state", "optimizer", "number"]
Number = float | Sequence[Any]  # Any: floats, or lists of them, of a metric with several values
_ROUNDINGS = 64.0
_TINY = 1e-12  # by which numbers may differ that are about zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How much two computations of one step may differ.

    Attributes:
        name: of the dtype that both compute in.
        relative: of numbers, and of what optimizers keep of gradients.
        of_weights: of weights whose optimizer divides by what it keeps.
        floor: of the largest change among variables of a kind.
        unit: in the last place.
    """

    name: str
    relative: float
    of_weights: float
    floor: float
    unit: float


# In float32 a division by the root of a square of about zero may turn the sign of an update of any size, so weights of
# Adam's family say little there, and what it keeps of gradients says it.
PRECISIONS: Mapping[str, Precision] = {
    "float64": Precision(name="float64", relative=1e-9, of_weights=1e-7, floor=1e-12, unit=2.0**-52),
    "float32": Precision(name="float32", relative=1e-4, of_weights=0.1, floor=1e-5, unit=2.0**-23),
    "float16": Precision(name="float16", relative=2e-2, of_weights=0.5, floor=5e-3, unit=2.0**-10),
    "bfloat16": Precision(name="bfloat16", relative=5e-2, of_weights=0.5, floor=2e-2, unit=2.0**-7),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeen(Lines):
    """What a step has come to, as a worker tells it.

    Attributes:
        step: of the run.
        digests: xxh3_128 of every variable after it, by name, hexadecimal.
        numbers: loss and metrics of the epoch so far, by name.
    """

    step: int
    digests: dict[str, str]
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Lines):
    """Something of a step that is not what it must be.

    Attributes:
        step: of the run.
        kind: what it is: "weight", "state" (that rows change: moving averages), "optimizer", "number".
        name: of the variable or number.
        weight: path of the weight that it is, or that an optimizer keeps it of; empty for others.
        size: how large it is beside the change that the step makes (of a number: beside the number); infinite where one
            side is not finite, or to the bit.
        ours: a number as the run has it; None of a variable.
        theirs: the same as it must be.
    """

    step: int
    kind: str
    name: str
    weight: str = ""
    size: float = np.inf
    ours: Any = None
    theirs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompared(Lines):
    """What has come of a step beside plain Keras.

    Attributes:
        step: of the run.
        precision: the dtype in which both computed, the coarsest of the model.
        num_variables: how many were compared; `num_weights` of them are trained.
        numbers: names of the loss and metrics that were.
        differences: what differs by more than rounding.
        without_float64: layers that compute in another float type than the others, since they say so.
        by_design: layers that take statistics of a microbatch, and were compared with their moving averages.
    """

    step: int
    precision: str
    num_variables: int
    num_weights: int
    numbers: tuple[str, ...]
    differences: tuple[Difference, ...]
    without_float64: tuple[str, ...] = ()
    by_design: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Lines):
    """The first steps of a run beside plain Keras.

    Attributes:
        steps: each of them.
        why_not_exact: why they were not computed in float64; empty if they were.
    """

    steps: tuple[StepCompared, ...]
    why_not_exact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A variable of a model's state.

    Attributes:
        kind: of which it is.
        name: its path.
        weight: path of the weight that it is, or that an optimizer keeps it of; empty for others.
        divided: a weight whose optimizer keeps squares, or other things, of its gradient.
    """

    kind: Kind
    name: str
    weight: str = ""
    divided: bool = False

    @property
    def group(self) -> str:
        """Variables whose changes are of about one size: weights, all first moments, all second moments."""
        return f"optimizer {self.name.rsplit('_', 1)[-1]}" if self.kind == "optimizer" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """State before a step, and what two computations of the step have made of it: an array for every part."""

    before: Sequence[np.ndarray]
    ours: Sequence[np.ndarray]
    theirs: Sequence[np.ndarray] = field(default_factory=tuple)


def state_differences(
    step: int, parts: Sequence[Part], change: StateChange, precision: Precision
) -> Iterator[Difference]:
    """Where two computations of a step from the same state differ by more than their rounding.

    Args:
        step: of the run.
        parts: what the arrays of `change` are.
        change: the state.
        precision: in which both compute.
    """
    before, ours, theirs = (list(map(_floats, each)) for each in (change.before, change.ours, change.theirs))
    changes = [_size(after - start) for after, start in zip(theirs, before, strict=True)]
    largest: dict[str, float] = {}
    for part, size in zip(parts, changes, strict=True):
        largest[part.group] = max(largest.get(part.group, 0.0), size)
    for part, own, wanted, size in zip(parts, ours, theirs, changes, strict=True):
        distance = _distance(own, wanted)
        relative = precision.of_weights if part.divided else precision.relative
        rounding = _ROUNDINGS * precision.unit * _size(wanted)
        if distance > relative * size + precision.floor * largest[part.group] + rounding:
            size = _ratio(distance, size)
            yield Difference(step=step, kind=part.kind, name=part.name, weight=part.weight, size=size)


def number_differences(
    step: int, ours: Mapping[str, Number], theirs: Mapping[str, Number], precision: Precision
) -> Iterator[Difference]:
    """Where loss and metrics differ by more than their rounding; a name that one side lacks differs."""
    for name in dict.fromkeys([*theirs, *ours]):
        one, other = (_floats(np.asarray(each.get(name, np.nan))) for each in (ours, theirs))
        distance = _distance(one, other)
        if distance > precision.relative * _size(other) + _TINY:
            yield Difference(
                step=step,
                kind="number",
                name=name,
                size=_ratio(distance, _size(other)),
                ours=ours.get(name),
                theirs=theirs.get(name),
            )


def bit_differences(ours: Sequence[StepSeen], theirs: Sequence[StepSeen]) -> list[Difference]:
    """Where two runs of the same steps have not the same bits; of a step that one has not told nothing is equal.

    Args:
        ours: each step, by as many workers as have told it, which must agree as well.
        theirs: likewise.
    """
    found = []
    expected = {seen.step: seen for seen in theirs}
    told = {seen.step for seen in ours}
    for seen in [*ours, *theirs]:
        if seen.step not in expected or seen.step not in told:
            found.append(Difference(step=seen.step, kind="step", name=f"step {seen.step}"))
        else:
            found += _bits_of_step(seen, expected[seen.step])
    return found


def _bits_of_step(seen: StepSeen, other: StepSeen) -> Iterator[Difference]:
    for name in dict.fromkeys([*other.digests, *seen.digests]):
        if seen.digests.get(name) != other.digests.get(name):
            yield Difference(step=seen.step, kind="weight", name=name)
    for name in dict.fromkeys([*other.numbers, *seen.numbers]):
        one, two = seen.numbers.get(name), other.numbers.get(name)
        if not _same(one, two):
            yield Difference(step=seen.step, kind="number", name=name, ours=one, theirs=two)


def first_differences(found: Iterable[Difference]) -> list[Difference]:
    """Of everything that differs the first time, in the order of steps."""
    first: dict[tuple[str, str], Difference] = {}
    for each in sorted(found, key=lambda each: each.step):
        first.setdefault((each.kind, each.name), each)
    return list(first.values())


def _same(one: object, other: object) -> bool:
    """Whether two numbers have the same bits; what is not a number is equal to itself."""
    if one is None or other is None:
        return one is other
    return np.array_equal(np.asarray(one, float), np.asarray(other, float), equal_nan=True)


def _floats(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def _size(array: np.ndarray) -> float:
    """The root of the mean square; what is not finite is left out."""
    finite = array[np.isfinite(array)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The same of a difference; infinite where one is not finite and the other is, or another infinity."""
    if one.shape != other.shape:
        return np.inf
    odd = ~(np.isfinite(one) & np.isfinite(other))
    if not np.array_equal(one[odd], other[odd], equal_nan=True):
        return np.inf
    return _size(np.where(odd, 0.0, one) - np.where(odd, 0.0, other))


def _ratio(distance: float, size: float) -> float:
    return distance / size if size else np.inf
