"""The things that can limit a run, one function each: what it cost, what shows that, what to change.

Each gets the run and its stretches, and says how long all steps would take without the cause and how long with what it
proposes, by `what_if`. What it proposes is a setting or a call that exists; what it promises is what that one brings,
which may be less than taking the cause away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors.texts import duration_text, size_text
from ..events import CheckpointCommitted
from . import what_if
from .recorded import RecordedRun
from .step_times import Stretch

Stretches = Sequence[Stretch]
LEAST_STEPS = 8  # of an epoch, after its batches were made larger
NEAR_BEST = 0.8  # of what the largest batch would bring: a smaller one that brings so much is proposed
SMALL_SHARE = 0.05  # of the time: what checkpoints or validation may take
EVEN = 0.7  # workers whose times differ by less are named together
MANY_BYTES = 1 << 18  # a gradient of fewer travels in the time of a round trip, whatever its dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one thing cost a run.

    Attributes:
        cause: one of `verdict.HEADLINES`.
        evidence: what shows it, with numbers.
        remedy: what to change.
        settings: the same as arguments, where it is some.
        without_s: how long all measured steps would take without the cause.
        remedied_s: how long with the remedy.
    """

    cause: str
    evidence: str
    remedy: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # JSON
    without_s: float
    remedied_s: float


def input_(run: RecordedRun, stretches: Stretches) -> Finding:
    """Workers wait for rows."""
    longest = _longest(stretches)
    number = max(longest.workers, key=lambda each: longest.workers[each].seconds("input"))
    input_s = longest.workers[number].seconds("input")
    even = min(each.seconds("input") for each in longest.workers.values()) >= EVEN * input_s
    seconds = what_if.total_s(stretches, lambda each: what_if.without(each, "input"))
    return Finding(
        cause="input",
        evidence=f"{_share(input_s, longest)} of a step waits for rows on {_who(longest, None if even else number)}",
        remedy="dataset.cache(path), which computes rows once, on a disk of the machine,",
        without_s=seconds,
        remedied_s=seconds,
    )


def slow_worker(run: RecordedRun, stretches: Stretches) -> Finding:
    """One worker computes slower than the others."""
    longest, plan = _longest(stretches), run.record.get("plan", {})
    number = what_if.slowest(longest)
    slow_s, usual_s = longest.workers[number].pace_s, what_if.usual_pace_s(longest, number)
    seconds = what_if.total_s(stretches, what_if.without_slow_worker)
    times = f"{slow_s / usual_s:.1f}" if usual_s else "?"
    microbatches, replicas = plan.get("num_microbatches", 0), plan.get("replicas_per_worker", 1)
    remedy, settings, remedied_s = f"other work away from {_host(longest, number)}", dict[str, Any](), seconds
    if not plan.get("balance", True) and microbatches:
        balanced_s = what_if.total_s(stretches, lambda each: what_if.balanced(each, microbatches, replicas))
        if balanced_s < _all_s(stretches):
            remedy, settings, remedied_s = "balance=True", {"balance": True}, balanced_s
    return Finding(
        cause="slow worker",
        evidence=f"{_who(longest, number)} computes a microbatch in {duration_text(slow_s)}, {times} × as long as "
        f"others ({duration_text(usual_s)})",
        remedy=remedy,
        settings=settings,
        without_s=seconds,
        remedied_s=remedied_s,
    )


def network(run: RecordedRun, stretches: Stretches) -> Finding:
    """Gradients take long from worker to worker."""
    longest = _longest(stretches)
    network_s, num_bytes = what_if.network_s(longest), _gradient_bytes(run)
    choices = [_more_rows(run, stretches), _alone(stretches), _half_the_bytes(run, stretches)]
    remedy, settings, remedied_s = min(filter(None, choices), key=lambda each: each[2], default=("", {}, math.inf))
    seconds = what_if.total_s(stretches, lambda each: each.step_s - what_if.network_s(each))
    moved = f", {size_text(num_bytes)} in {duration_text(network_s)}" if num_bytes else ""
    return Finding(
        cause="network",
        evidence=f"moving and adding gradients takes {_share(network_s, longest)} of a step{moved}",
        remedy=remedy,
        settings=settings,
        without_s=seconds,
        remedied_s=remedied_s if remedy else seconds,
    )


def small_batches(run: RecordedRun, stretches: Stretches) -> Finding | None:
    """What a step costs however few rows it has."""
    longest, larger = _longest(stretches), _more_rows(run, stretches)
    if larger is None:
        return None
    remedy, settings, remedied_s = larger
    rows = _batch(run)
    fixed_s = max(what_if.fixed_s(each) for each in longest.workers.values())
    times = settings["global_batch_size"] // rows
    return Finding(
        cause="small batches",
        evidence=f"of a step of {rows} rows, about {_share(fixed_s, longest)} ({duration_text(fixed_s)}) would be the "
        "same with fewer or more",
        remedy=remedy,
        settings=settings,
        without_s=what_if.total_s(stretches, lambda each: what_if.larger_batch(each, times, with_network=False)),
        remedied_s=remedied_s,
    )


def callbacks(run: RecordedRun, stretches: Stretches) -> Finding | None:
    """The user's callbacks hold up all workers."""
    longest = _longest(stretches)
    hooks = {name: s for each in longest.workers.values() for name, s in each.hooks.items()}
    seconds = what_if.total_s(stretches, lambda each: what_if.without_together(each, "hooks"))
    if not hooks:
        return None
    name = max(hooks, key=lambda each: hooks[each])
    share = hooks[name] / sum(hooks.values()) if hooks[name] else 0.0
    rarely = "in on_epoch_end" if "_batch_" in name else "in fewer epochs"
    return Finding(
        cause="callbacks",
        evidence=f"{name} holds up all workers for {_share(hooks[name], longest)} of the time "
        f"({duration_text(hooks[name])} for each step)",
        remedy=f"what {name} does, done {rarely} or not at all,",
        without_s=seconds,
        remedied_s=_all_s(stretches) - share * (_all_s(stretches) - seconds),
    )


def checkpoints(run: RecordedRun, stretches: Stretches) -> Finding | None:
    """Steps wait while the state is copied."""
    made = [each.seconds for each in run.events if isinstance(each, CheckpointCommitted)]
    if not made:
        return None
    seconds = what_if.total_s(stretches, what_if.without_saving)
    lost_s, each_s = _all_s(stretches) - seconds, max(made)
    every_s = math.ceil(each_s / SMALL_SHARE)
    return Finding(
        cause="checkpoints",
        evidence=f"steps stand still for {lost_s / _all_s(stretches):.0%} of the time, up to {duration_text(each_s)} "
        "for each checkpoint",
        remedy=f"checkpoint_every=EverySeconds({every_s})",
        settings={"checkpoint_every": {"EverySeconds": every_s}},
        without_s=seconds,
        remedied_s=min(_all_s(stretches), seconds * (1 + SMALL_SHARE)),
    )


def validation(run: RecordedRun, stretches: Stretches) -> Finding:
    """Validating takes long beside training."""
    freq = run.record.get("identity", {}).get("validation_freq", 1)
    all_s = _all_s(stretches)
    seconds = what_if.total_s(stretches, lambda each: what_if.without_together(each, "validate"))
    often = freq if isinstance(freq, int) else 1
    rarer = max(2 * often, math.ceil(often * (all_s - seconds) / (SMALL_SHARE * seconds)))
    rarer = min(rarer, max(2 * often, run.record.get("epochs", rarer)))
    return Finding(
        cause="validation",
        evidence=f"validation takes {1 - seconds / all_s:.0%} of the time",
        remedy=f"validation_freq={rarer}",
        settings={"validation_freq": rarer},
        without_s=seconds,
        remedied_s=seconds + (all_s - seconds) * often / rarer,
    )


FINDINGS: Sequence[Callable[[RecordedRun, Stretches], Finding | None]] = (
    input_,
    slow_worker,
    network,
    small_batches,
    callbacks,
    checkpoints,
    validation,
)

# -- what can be changed: a remedy, the same as settings, and the seconds of all steps with it -------------------------

Change = tuple[str, dict[str, Any], float]


def _more_rows(run: RecordedRun, stretches: Stretches) -> Change | None:
    """A larger global batch: the smallest that brings most of what the largest would; None where rows are too few."""
    rows = run.record.get("data", {}).get("train", {}).get("rows", 0)
    batch, times = _batch(run), 2
    possible: list[tuple[int, float]] = []
    while times <= what_if.MOST_ROWS_MORE and rows >= LEAST_STEPS * times * batch:
        larger = partial(what_if.larger_batch, times=times, with_network=True)
        possible.append((times * batch, what_if.total_s(stretches, larger)))
        times *= 2
    if not possible:
        return None
    least_s = min(seconds for _, seconds in possible)
    rows, seconds = next(each for each in possible if least_s >= NEAR_BEST * each[1])
    return f"global_batch_size={rows}", {"global_batch_size": rows}, seconds


def _alone(stretches: Stretches) -> Change:
    """One worker that has all of the work."""
    return "workers=1", {"workers": 1}, what_if.total_s(stretches, what_if.alone)


def _half_the_bytes(run: RecordedRun, stretches: Stretches) -> Change | None:
    """Gradients in two bytes; None where they are so already, or go through the memory of one machine."""
    hosts = {each.host for each in _longest(stretches).workers.values()}
    is_half = run.record.get("identity", {}).get("gradient_dtype") == "bfloat16"
    if is_half or len(hosts) == 1 or _gradient_bytes(run) < MANY_BYTES:
        return None
    seconds = what_if.total_s(stretches, lambda each: each.step_s - what_if.network_s(each) / 2)
    return 'gradient_dtype="bfloat16"', {"gradient_dtype": "bfloat16"}, seconds


# -- words ------------------------------------------------------------------------------------------------------------


def _all_s(stretches: Stretches) -> float:
    return what_if.total_s(stretches, lambda each: each.step_s)


def _longest(stretches: Stretches) -> Stretch:
    """The stretch that evidence is taken from."""
    return max(stretches, key=lambda each: each.num_steps * each.step_s)


def _share(seconds: float, stretch: Stretch) -> str:
    return f"{seconds / stretch.step_s:.0%}"


def _who(stretch: Stretch, number: int | None) -> str:
    """A worker and its machine; all of them for None."""
    if number is None or len(stretch.workers) == 1:
        return "all workers" if len(stretch.workers) > 1 else "the worker"
    return f"worker {number} ({_host(stretch, number)})"


def _host(stretch: Stretch, number: int) -> str:
    return stretch.workers[number].host or "its machine"


def _batch(run: RecordedRun) -> int:
    size: int = run.record.get("plan", {}).get("global_batch_size", 1)
    return size


def _gradient_bytes(run: RecordedRun) -> int:
    """Bytes of the trainable numbers as they travel; 0 if that is not known."""
    is_half = run.record.get("identity", {}).get("gradient_dtype") == "bfloat16"
    num: int = run.record.get("num_weights", 0)
    return num * (2 if is_half else 4)
