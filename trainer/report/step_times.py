"""What a step of a recorded run took, part by part, on each worker: the only thing that verdicts are made from.

A worker tells its sums again and again (`samples`), so a difference of two says what it did in between, and how many
steps that were. Differences are added up over a *stretch*: as long as the same workers have the same microbatches.
Per step, since workers tell at slightly different moments.

Left out is what says nothing of the run's other steps: the first step of a worker, changes of the group, what follows
the last step (the last checkpoint is waited for), and differences in which a step took several times as long as usual,
because a machine stood still. What stays is added up rather than reduced to a median: a checkpoint every hundred steps
is in few differences and costs what it costs.

Runs of earlier versions have no samples. Their epochs have the same parts, of steps alone; what lies between the steps
of two epochs is then known as a whole.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..events import CheckpointCommitted, EpochRecord
from ..samples import Sample, WorkerSample
from .recorded import RecordedRun

OWN = ("input", "compute", "local_sum", "apply", "control", "rest")
"""What a worker does by itself in every step, while others may wait for it."""
STOOD_STILL = 4.0  # a step that takes so many times as long as usual says nothing of the others
_LEFT_OUT = ("first_step", "regroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTimes:
    """What one worker does, per step of the run.

    Attributes:
        host: its machine.
        microbatches: how many of a step are its own; 0 if that is not known.
        parts: seconds by part, "input" for ``input_s``.
        computed: how often it computes one microbatch on each replica; 0 if that is not known.
        hooks: seconds of the user's callbacks by "Class.hook", on the chief.
    """

    host: str = ""
    microbatches: int = 0
    parts: Mapping[str, float]
    computed: float = 0.0
    hooks: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, *parts: str) -> float:
        """Of these parts together."""
        return sum(self.parts.get(part, 0.0) for part in parts)

    @property
    def own_s(self) -> float:
        """What it does by itself in every step."""
        return self.seconds(*OWN)

    @property
    def pace_s(self) -> float:
        """How long it computes one microbatch on each replica."""
        return self.seconds("compute") / (self.computed or max(1, self.microbatches))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Steps that the same workers have made with the same microbatches.

    Attributes:
        num_steps: how many.
        workers: what each does, by its number.
        save_rate: checkpoints for each step of the run.
    """

    num_steps: float
    workers: Mapping[int, WorkerTimes]
    save_rate: float = 0.0

    @property
    def step_s(self) -> float:
        """How long a step takes, with its share of what lies between steps."""
        return statistics.fmean(sum(each.parts.values()) for each in self.workers.values())

    def seconds(self, *parts: str) -> float:
        """What these parts take per step, the mean over workers."""
        return statistics.fmean(each.seconds(*parts) for each in self.workers.values())


def stretches_of(run: RecordedRun) -> list[Stretch]:
    """The stretches of a run, in their order; those of its epochs if it has no samples."""
    found = _of_samples(run) if run.samples else _of_epochs(run)
    made = sum(isinstance(event, CheckpointCommitted) for event in run.events)
    num_steps = sum(each.num_steps for each in found)
    return [replace(each, save_rate=min(1.0, made / num_steps)) for each in found]


# -- from samples -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """What a worker did between two samples: `seconds` by part, `steps` of the run."""

    worker: WorkerSample
    steps: int
    computed: int
    seconds: Mapping[str, float]
    hooks: Mapping[str, float]

    @property
    def busy_s(self) -> float:
        """What the worker did by itself in a step."""
        return sum(self.seconds.get(part, 0.0) for part in OWN) / self.steps


def _of_samples(run: RecordedRun) -> list[Stretch]:
    found: list[Stretch] = []
    last_step = max(sample.step for sample in run.samples)
    last_epoch = run.epochs[-1].time if run.epochs else 0.0
    pairs = [
        (before, after)
        for before, after in itertools.pairwise(run.samples)
        if (before.step < last_step or before.time < last_epoch) and _layout(before) == _layout(after)
    ]
    for _, stretch in itertools.groupby(pairs, lambda pair: _layout(pair[1])):
        differences = defaultdict[int, list[_Difference]](list)
        for before, after in stretch:
            for one, other in zip(_ordered(before), _ordered(after), strict=True):
                if (difference := _difference(one, other)) is not None:
                    differences[other.worker].append(difference)
        found += _stretch(differences)
    return found


def _layout(sample: Sample) -> tuple[tuple[int, int], ...]:
    return tuple((each.worker, each.microbatches) for each in _ordered(sample))


def _ordered(sample: Sample) -> list[WorkerSample]:
    return sorted(sample.workers, key=lambda each: each.worker)


def _difference(before: WorkerSample, after: WorkerSample) -> _Difference | None:
    """What came between; None if that is nothing or no steps as others are, or the worker began anew."""
    seconds = _minus(after.seconds, before.seconds)
    if after.step < before.step or min(seconds.values(), default=0.0) < 0.0 or not any(seconds.values()):
        return None
    if any(seconds.get(part) for part in _LEFT_OUT):
        return None
    return _Difference(
        worker=after,
        steps=after.step - before.step,
        computed=after.computed - before.computed,
        seconds=seconds,
        hooks=_minus(after.hooks, before.hooks),
    )


def _minus(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name.removesuffix("_s"): seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _stretch(found: Mapping[int, Sequence[_Difference]]) -> Iterator[Stretch]:
    """The stretch of these differences by worker, if every worker made a step in it."""
    workers, steps = {}, []
    for number, differences in found.items():
        usual_s = statistics.median([each.busy_s for each in differences if each.steps] or [0.0])
        kept = [each for each in differences if not each.steps or each.busy_s <= STOOD_STILL * usual_s]
        num_steps = sum(each.steps for each in kept)
        if not num_steps:
            return
        steps.append(num_steps)
        workers[number] = WorkerTimes(
            host=kept[-1].worker.host,
            microbatches=kept[-1].worker.microbatches,
            parts=_per_step([each.seconds for each in kept], num_steps),
            computed=sum(each.computed for each in kept) / num_steps,
            hooks=_per_step([each.hooks for each in kept], num_steps),
        )
    if workers:
        yield Stretch(num_steps=statistics.fmean(steps), workers=workers)


def _per_step(seconds: Iterable[Mapping[str, float]], num_steps: float) -> dict[str, float]:
    total = defaultdict[str, float](float)
    for each in seconds:
        for part, part_s in each.items():
            total[part] += part_s
    return {part: part_s / num_steps for part, part_s in total.items()}


# -- from epochs, of runs without samples -----------------------------------------------------------------------------


def _of_epochs(run: RecordedRun) -> list[Stretch]:
    found = [_epoch(run, before, after) for before, after in itertools.pairwise(run.epochs)]
    return [each for each in found if each is not None]


def _epoch(run: RecordedRun, before: EpochRecord, epoch: EpochRecord) -> Stretch | None:
    """An epoch that follows another one; what lies between their steps counts as the meeting at an epoch's end."""
    plan = run.record.get("plan", {})
    num_steps = -(-epoch.rows // plan.get("global_batch_size", epoch.rows or 1))
    in_steps_s = statistics.fmean([sum(each.values()) for each in epoch.seconds_by_worker.values()] or [0.0])
    if not num_steps or not in_steps_s or not before.time < epoch.time:
        return None
    hosts = {each.get("worker"): each.get("host", "") for each in run.record.get("workers", ())}
    between_s = max(0.0, epoch.time - before.time - in_steps_s)
    share = plan.get("num_microbatches", 0) // len(epoch.seconds_by_worker)
    workers = {
        number: WorkerTimes(
            host=hosts.get(number, ""),
            microbatches=share,
            parts=_per_step([_minus(seconds, {}), {"epoch_end": between_s}], num_steps),
        )
        for number, seconds in epoch.seconds_by_worker.items()
    }
    return Stretch(num_steps=num_steps, workers=workers)
