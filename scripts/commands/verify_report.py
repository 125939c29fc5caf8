"""What ``heliostat verify-run`` finds, as values and as sentences: a function of what steps have told.

Two questions, and what is equal to answer yes. Are the same steps the same bits on other numbers of workers, and with
one of them killed? And is each step what plain Keras computes on one device? Of what is not, the first step tells most:
a loss that differs takes all gradients with it, so it is named, and they are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.trainer.step_states import Compared, Difference, StepSeen, bit_differences, first_differences

MAX_NAMED = 5
SAID = "computed by microbatches"  # how the probe begins what it says of losses and metrics of a whole batch
_PAGE = "docs/how-to/prove-it.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The first steps of a script on some workers.

    Attributes:
        title: how they were computed, such as "2 workers".
        seen: each step, as each worker has told it.
        sha256: hashes of the state in which they have ended.
        epochs: numbers of the epochs, with those of validation.
        num_lost: how many workers were lost meanwhile.
    """

    title: str
    seen: Sequence[StepSeen]
    sha256: Mapping[str, str]
    epochs: Sequence[Mapping[str, Any]]
    num_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found of a script.

    Attributes:
        first: its first steps, undisturbed; the others are held against them.
        others: on another number of workers, and with one killed, which is the last.
        compared: each step beside plain Keras.
        notes: what the start has said of the step.
    """

    first: Steps
    others: Sequence[Steps]
    compared: Compared
    notes: Sequence[str] = ()

    @property
    def was_killed(self) -> bool:
        """Whether a worker was lost where one was to be."""
        return self.others[-1].num_lost > 0

    @property
    def bits(self) -> list[tuple[Steps, list[Difference]]]:
        """The others, each with what has other bits than in the first, where it has them first."""
        return [(other, _of_runs(other, self.first)) for other in self.others]

    @property
    def unlike_plain(self) -> list[Difference]:
        """What is not as plain Keras has it, where it is so first; without what the start has said."""
        return [each for each in _plain(self.compared) if not is_said(each, self.notes)]

    @property
    def as_said(self) -> list[Difference]:
        """What is not as plain Keras has it, as the start has said."""
        return [each for each in _plain(self.compared) if is_said(each, self.notes)]

    @property
    def is_proved(self) -> bool:
        """Whether all is equal that must be, and was looked at."""
        looked_at = bool(self.first.seen) and bool(self.compared.steps) and self.was_killed
        return looked_at and not self.unlike_plain and not any(found for _, found in self.bits)


def is_said(found: Difference, notes: Sequence[str]) -> bool:
    """Whether the start has said that something is not as plain Keras has it: a loss, with all that follows from it."""
    text = " ".join(note for note in notes if note.startswith(SAID))
    if found.kind == "number":
        return f"'{found.name}'" in text or (found.name == "loss" and "the loss" in text)
    return found.kind != "state" and ("the loss" in text or "the gradient" in text)


def lines(found: Verified) -> list[str]:
    """What was found, a sentence a line."""
    said = [_bit_line(found)]
    said += [line for other, differing in found.bits if differing for line in _bits_of(other, differing)]
    if not found.was_killed:
        said.append("No worker was lost where one was to be killed: that a loss changes nothing was not shown.")
    return [*said, *_plain_lines(found), verdict(found)]


def verdict(found: Verified) -> str:
    """All of it in a sentence."""
    if found.is_proved:
        besides = ", but for what the start says" if found.as_said else ""
        return f"Proved for these steps: the same bits on any workers, and what plain Keras computes{besides}."
    if not found.first.seen or not found.compared.steps:
        return "NOT PROVED: no step was computed."
    reasons = []
    if any(differing for _, differing in found.bits):
        reasons.append("the bits depend on who computes")
    if found.unlike_plain:
        what = cause(found.unlike_plain, found.compared.steps[0].num_weights)
        reasons.append(f"plain Keras computes otherwise: {what}")
    return f"NOT PROVED: {'; '.join(reasons) or 'no worker was lost'}. What to do: {_PAGE}"


def cause(found: Sequence[Difference], num_weights: int = 0) -> str:
    """What a difference from plain Keras comes from, told by all that differs in the first step that has one.

    Args:
        found: what differs.
        num_weights: how many weights are trained: where the gradients of some alone differ, they are named.
    """
    step = min(each.step for each in found)
    here = [each for each in found if each.step == step]
    numbers = [each.name for each in here if each.kind == "number"]
    states = [each.name for each in here if each.kind == "state"]
    weights = list(dict.fromkeys(each.weight for each in here if each.kind in ("weight", "optimizer")))
    gradients = f"the gradients of {_listed(weights)}" if len(weights) < num_weights else "all gradients"
    if states:
        besides = ", and with it the loss" if "loss" in numbers else ""
        what = f"what the step assigns to {_listed(states)}{besides}"
    elif "loss" in numbers or (numbers and weights):
        name = "the loss" if "loss" in numbers else f"what the step returns ({_listed(numbers)})"
        what = f"{name}, and with it {gradients}" if weights else name
    elif weights:
        what = f"{gradients}, or their update, and not the loss"
    else:
        what = f"the metric {_listed(numbers)}"
    return f"{what}, from step {step} on"


def _plain(compared: Compared) -> list[Difference]:
    return first_differences(each for step in compared.steps for each in step.differences)


def _of_runs(ours: Steps, theirs: Steps) -> list[Difference]:
    """What has other bits, where it has them first; at the end, too, with numbers of the validation."""
    found = first_differences(bit_differences(ours.seen, theirs.seen))
    last = max((seen.step for seen in theirs.seen), default=0)
    for name in dict.fromkeys([*theirs.sha256, *ours.sha256]):
        if ours.sha256.get(name) != theirs.sha256.get(name):
            found.append(Difference(step=last, kind="end", name=name))
    one, other = (
        [StepSeen(step=number, digests={}, numbers=dict(logs)) for number, logs in enumerate(each.epochs)]
        for each in (ours, theirs)
    )
    return [*found, *(_at_end(each, last) for each in bit_differences(one, other))]


def _at_end(found: Difference, step: int) -> Difference:
    return Difference(step=step, kind="end", name=found.name, ours=found.ours, theirs=found.theirs)


def _bit_line(found: Verified) -> str:
    equal = [other.title for other, differing in found.bits if not differing]
    if not found.first.seen or not equal:
        return "Equal to the bit: nothing."
    seen = found.first.seen[0]
    ends = ", and the end with its validation" if any("val_loss" in logs for logs in found.first.epochs) else ""
    num_steps = len({seen.step for seen in found.first.seen})
    return (
        f"Equal to the bit: {' = '.join([found.first.title, *equal])}, after each of {num_steps} steps: "
        f"{len(seen.digests)} variables of the weights and the optimizer, {len(seen.numbers)} numbers{ends}."
    )


def _bits_of(other: Steps, differing: Sequence[Difference]) -> list[str]:
    step = min(each.step for each in differing)
    names = [each.name for each in differing if each.step == step]
    return [f"NOT EQUAL to the bit: {other.title}, first at step {step}: {_listed(names)}."]


def _plain_lines(found: Verified) -> list[str]:
    compared = found.compared
    if not compared.steps:
        return []
    first = compared.steps[0]
    lines = []
    if compared.why_not_exact:
        lines.append(f"Not in float64, which would show more: {compared.why_not_exact}")
    if first.without_float64:
        lines.append(f"Layers that do not compute in float64: {_listed(first.without_float64)}.")
    what = f"plain Keras on one device, in {first.precision}, {len(compared.steps)} steps, each from the same state"
    as_computed = f"{first.num_variables} variables, {_listed(first.numbers)}"
    if not found.unlike_plain and not found.as_said:
        lines.append(f"Equal but for rounding: {what}: {as_computed}.")
    else:
        lines.append(f"Compared with {what}: {as_computed}.")
    lines += [f"As the start says: {_differing(each)}." for each in _numbers_first(found.as_said)]
    lines += [f"NOT EQUAL: {_differing(each)}." for each in _numbers_first(found.unlike_plain)]
    if first.by_design:
        lines.append(
            f"By design: {_listed(first.by_design)} takes the mean and variance of a microbatch in training, as in any "
            "data parallelism (docs/explanation/exactness.md); here both sides took the moving averages."
        )
    return lines


def _numbers_first(found: Sequence[Difference]) -> list[Difference]:
    """Numbers, state, weights, and then what optimizers keep; the first of many."""
    order = ("number", "state", "weight", "optimizer")
    by_kind = sorted(found, key=lambda each: (each.step, order.index(each.kind)))
    return by_kind[:MAX_NAMED]


def _differing(found: Difference) -> str:
    where = f"from step {found.step} on"
    if found.kind == "number":
        return f"{found.name} is {_number(found.ours)}, and {_number(found.theirs)} by plain Keras, {where}"
    kinds = {"weight": "the weight", "state": "the state", "optimizer": "the optimizer's"}
    return f"the change of {kinds[found.kind]} {found.name} is off by {found.size:.2g} of its size, {where}"


def _number(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names[:MAX_NAMED])
    return text if len(names) <= MAX_NAMED else f"{text} and {len(names) - MAX_NAMED} more"
