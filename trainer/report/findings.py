"""The things that can limit a run, one function each: what shows it, how fast steps were without it, what to change.

What is proposed is a setting or a call that exists. What is promised is what that one brings, by `what_if`, which may
be less than taking the cause away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from ..errors.texts import duration_text, size_text
from ..events import CheckpointCommitted
from . import what_if
from .recorded import RecordedRun
from .step_times import Stretch

TIMES_AS_LARGE, LEAST_STEPS = (2, 4, 8, 16), 8  # batches that are proposed; an epoch keeps so many steps
NEAR_BEST = 0.8  # of what the largest batch would bring: a smaller one that brings so much is proposed
SMALL_SHARE = 0.05  # of the time: what checkpoints or validation may take
EVEN = 0.7  # workers whose times differ by less are named together
_UNKNOWN = {"global_batch_size": 1, "num_microbatches": 1, "replicas_per_worker": 1, "balance": None}
MANY_BYTES = 1 << 18  # a gradient of fewer travels in the time of a round trip, whatever its dtype


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run, and its stretches, of which there is at least one."""

    run: RecordedRun
    stretches: Sequence[Stretch]

    def total_s(self, step_s: what_if.WhatIf = lambda stretch: stretch.step_s) -> float:
        """Seconds of all steps, if one takes `step_s`; as they were without it."""
        return sum(each.num_steps * step_s(each) for each in self.stretches)

    @cached_property
    def longest(self) -> Stretch:
        """The stretch that evidence is taken from."""
        return max(self.stretches, key=lambda each: each.num_steps * each.step_s)

    @cached_property
    def plan(self) -> Mapping[str, Any]:
        """The settings of the run that times depend on: its plan and its identity."""
        return {**_UNKNOWN, **self.run.record.get("identity", {}), **self.run.record.get("plan", {})}

    @property
    def gradient_bytes(self) -> int:
        """Of the trainable numbers as they travel; 0 if that is not known."""
        return int(self.run.record.get("num_weights", 0)) * (2 if self.plan.get("gradient_dtype") == "bfloat16" else 4)

    def share(self, seconds: float) -> str:
        """Of a step."""
        return f"{seconds / self.longest.step_s:.0%}"

    def name(self, number: int) -> str:
        """A worker and its machine."""
        return f"worker {number} ({self.longest.workers[number].host})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What can be changed: in words, as arguments where it is some, and how long all steps would take with it."""

    remedy: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # JSON
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one thing cost: its name, what shows it, how long all steps would take without it, what to change."""

    cause: str
    evidence: str
    without_s: float
    change: Change


def waiting_for_rows(run: Measured) -> Finding:
    """Workers wait for rows."""
    waits_s = {number: each.seconds("input") for number, each in run.longest.workers.items()}
    number = max(waits_s, key=lambda each: waits_s[each])
    where = "all workers" if min(waits_s.values()) >= EVEN * waits_s[number] else run.name(number)
    seconds = run.total_s(partial(what_if.without, part="input"))
    return Finding(
        cause="input",
        evidence=f"{run.share(waits_s[number])} of a step waits for rows on {where}",
        without_s=seconds,
        change=Change(remedy="dataset.cache(path), which computes rows once,", seconds=seconds),
    )


def slow_worker(run: Measured) -> Finding:
    """One worker computes slower than the others."""
    number = max(run.longest.workers, key=lambda each: run.longest.workers[each].pace_s)
    slow_s, usual_s = run.longest.workers[number].pace_s, what_if.usual_pace_s(run.longest, number)
    seconds = run.total_s(what_if.without_slow_worker)
    counts = {"num_microbatches": run.plan["num_microbatches"], "num_replicas": run.plan["replicas_per_worker"]}
    dealt_s = run.total_s(partial(what_if.balanced, **counts))
    change = Change(remedy=f"keeping other work away from {run.longest.workers[number].host}", seconds=seconds)
    if run.plan["balance"] is False and dealt_s < run.total_s():
        change = Change(remedy="balance=True", settings={"balance": True}, seconds=dealt_s)
    return Finding(
        cause="slow worker",
        evidence=f"{run.name(number)} computes a microbatch in {duration_text(slow_s)}, others in "
        f"{duration_text(usual_s)}",
        without_s=seconds,
        change=change,
    )


def network(run: Measured) -> Finding:
    """Gradients take long from worker to worker."""
    network_s, num_bytes = what_if.network_s(run.longest), run.gradient_bytes
    moved = f", {size_text(num_bytes)} in {duration_text(network_s)}" if num_bytes else ""
    return Finding(
        cause="network",
        evidence=f"moving and adding gradients takes {run.share(network_s)} of a step{moved}",
        without_s=run.total_s(lambda each: each.step_s - what_if.network_s(each)),
        change=min(
            [_nothing(run), _alone(run), *_half_the_bytes(run), *_more_rows(run)], key=lambda each: each.seconds
        ),
    )


def small_batches(run: Measured) -> Finding:
    """What a step costs however few rows it has."""
    fixed_s = max(what_if.fixed_s(run.longest, each) for each in run.longest.workers.values())
    rows = run.plan["global_batch_size"]
    larger = next(iter(_more_rows(run)), _nothing(run))
    times = larger.settings.get("global_batch_size", rows) / rows
    return Finding(
        cause="small batches",
        evidence=f"of a step of {rows} rows, about {run.share(fixed_s)} ({duration_text(fixed_s)}) would be the same "
        "with fewer or more",
        without_s=run.total_s(partial(what_if.larger_batch, times=times, with_network=False)),
        change=larger,
    )


def callbacks(run: Measured) -> Finding:
    """The user's callbacks hold up all workers."""
    all_s, seconds, hooks = run.total_s(), run.total_s(what_if.without_callbacks), run.longest.chief.hooks
    name = max(hooks, key=lambda each: hooks[each], default="callbacks")
    share = hooks.get(name, 0.0) / (sum(hooks.values()) or 1.0)
    rarely = "in on_epoch_end" if "_batch_" in name else "in fewer epochs"
    return Finding(
        cause="callbacks",
        evidence=f"all workers wait for callbacks for {1 - seconds / all_s:.0%} of the time, most of it for {name}: "
        f"{duration_text(hooks.get(name, 0.0))} for each step",
        without_s=seconds,
        change=Change(
            remedy=f"what {name} does, done {rarely} or not at all,", seconds=all_s - share * (all_s - seconds)
        ),
    )


def checkpoints(run: Measured) -> Finding:
    """Steps wait while the state is copied."""
    each_s = max((each.seconds for each in run.run.events if isinstance(each, CheckpointCommitted)), default=0.0)
    all_s, seconds, every_s = run.total_s(), run.total_s(what_if.without_saving), math.ceil(each_s / SMALL_SHARE)
    return Finding(
        cause="checkpoints",
        evidence=f"steps stand still for {1 - seconds / all_s:.0%} of the time, up to {duration_text(each_s)} for each "
        "checkpoint",
        without_s=seconds,
        change=Change(
            remedy=f"checkpoint_every=EverySeconds({every_s})",
            settings={"checkpoint_every": {"EverySeconds": every_s}},
            seconds=min(all_s, seconds * (1 + SMALL_SHARE)),
        ),
    )


def validation(run: Measured) -> Finding:
    """Validating takes long beside training."""
    all_s, seconds, wanted = run.total_s(), run.total_s(what_if.without_validation), run.plan.get("validation_freq", 1)
    often = wanted if isinstance(wanted, int) else 1
    enough = math.ceil(often * (all_s - seconds) / (SMALL_SHARE * seconds))
    rarer = max(2 * often, min(enough, run.run.record.get("epochs", enough)))
    return Finding(
        cause="validation",
        evidence=f"validation takes {1 - seconds / all_s:.0%} of the time",
        without_s=seconds,
        change=Change(
            remedy=f"validation_freq={rarer}",
            settings={"validation_freq": rarer},
            seconds=seconds + (all_s - seconds) * often / rarer,
        ),
    )


FINDINGS: Sequence[Callable[[Measured], Finding]] = (
    waiting_for_rows,
    slow_worker,
    network,
    small_batches,
    callbacks,
    checkpoints,
    validation,
)

# -- changes of more than one cause -----------------------------------------------------------------------------------


def _more_rows(run: Measured) -> list[Change]:
    """A larger global batch: the smallest that brings most of what the largest would; none where rows are too few."""
    rows, batch = run.run.record.get("data", {}).get("train", {}).get("rows", 0), run.plan["global_batch_size"]
    possible = [
        Change(
            remedy=f"global_batch_size={times * batch}",
            settings={"global_batch_size": times * batch},
            seconds=run.total_s(partial(what_if.larger_batch, times=times, with_network=True)),
        )
        for times in TIMES_AS_LARGE
        if rows >= LEAST_STEPS * times * batch
    ]
    return [each for each in possible if possible[-1].seconds >= NEAR_BEST * each.seconds][:1]


def _nothing(run: Measured) -> Change:
    """No setting helps."""
    return Change(remedy="", seconds=run.total_s())


def _alone(run: Measured) -> Change:
    """One worker that has all of the work."""
    return Change(remedy="workers=1", settings={"workers": 1}, seconds=run.total_s(what_if.alone))


def _half_the_bytes(run: Measured) -> list[Change]:
    """Gradients in two bytes; none where they are so already, or go through the memory of one machine."""
    hosts = {each.host for each in run.longest.workers.values()}
    if run.plan.get("gradient_dtype") or len(hosts) == 1 or run.gradient_bytes < MANY_BYTES:
        return []
    seconds = run.total_s(lambda each: each.step_s - what_if.network_s(each) / 2)
    return [Change(remedy='gradient_dtype="bfloat16"', settings={"gradient_dtype": "bfloat16"}, seconds=seconds)]
