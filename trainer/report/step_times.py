"""What a step of a recorded run took, part by part, on each worker: the only thing that verdicts are made from.

A worker tells its sums again and again (`samples`), so a difference of two says what it did in between, and how many
steps that were. Differences are added up over a *stretch*: as long as the same workers have the same microbatches.
Per step, since workers tell at slightly different moments.

Left out is what says nothing of the run's other steps: the first step of a worker, changes of the group, what follows
the last step (the last checkpoint is waited for), and differences in which a step took several times as long as usual,
because a machine stood still. What stays is added up rather than reduced to a median: a checkpoint every hundred steps
is in few differences and costs what it costs.

Runs of earlier versions have no samples. Their epochs have the same parts, of steps alone, so they are read as one
sample each; what lies between the steps of two epochs then counts as the meeting at an epoch's end.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..events import CheckpointCommitted
from ..samples import Sample, WorkerSample
from .recorded import RecordedRun

OWN = ("input", "compute", "local_sum", "apply", "rest")
"""What a worker does by itself in every step, while others may wait for it."""
STOOD_STILL = 4.0  # a step that takes so many times as long as usual says nothing of the others
_LEFT_OUT = ("first_step", "regroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTimes:
    """What one worker does, per step of the run.

    Attributes:
        host: its machine.
        parts: seconds by part, "input" for ``input_s``.
        computed: how often it computes one microbatch on each replica.
        hooks: seconds of the user's callbacks by "Class.hook", on the chief.
    """

    host: str
    parts: Mapping[str, float]
    computed: float
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
        return self.seconds("compute") / self.computed


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

    @property
    def chief(self) -> WorkerTimes:
        """The worker that runs the callbacks, as far as it shows."""
        return max(self.workers.values(), key=lambda each: sum(each.hooks.values()))

    def seconds(self, *parts: str) -> float:
        """What these parts take per step, the mean over workers."""
        return statistics.fmean(each.seconds(*parts) for each in self.workers.values())


def stretches_of(run: RecordedRun) -> list[Stretch]:
    """The stretches of a run, in their order."""
    samples = run.samples or tuple(_samples_of_epochs(run))
    last_step = max((sample.step for sample in samples), default=0)
    last_epoch = run.epochs[-1].time if run.epochs else 0.0
    pairs = [
        (before, after)
        for before, after in itertools.pairwise(samples)
        if (before.step < last_step or before.time < last_epoch) and _layout(before) == _layout(after)
    ]
    grouped = itertools.groupby(pairs, lambda pair: _layout(pair[1]))
    found = [stretch for _, group in grouped if (stretch := _stretch(list(group))) is not None]
    made = sum(isinstance(event, CheckpointCommitted) for event in run.events)
    num_steps = sum(each.num_steps for each in found)
    return [replace(each, save_rate=min(1.0, made / num_steps)) for each in found]


def _layout(sample: Sample) -> dict[int, int]:
    """Microbatches by worker."""
    return {each.worker: each.microbatches for each in sample.workers}


def _stretch(pairs: Sequence[tuple[Sample, Sample]]) -> Stretch | None:
    """What came between the samples of pairs; None if some worker made no step."""
    found = defaultdict[int, list[WorkerSample]](list)
    for before, after in pairs:
        earlier = {each.worker: each for each in before.workers}
        for each in after.workers:
            found[each.worker] += _difference(earlier[each.worker], each)
    kept = {number: _usual(differences) for number, differences in found.items()}
    steps = {number: sum(each.step for each in differences) for number, differences in kept.items()}
    if not steps or not all(steps.values()):
        return None
    workers = {number: _times(differences, steps[number]) for number, differences in kept.items()}
    return Stretch(num_steps=statistics.fmean(steps.values()), workers=workers)


def _difference(before: WorkerSample, after: WorkerSample) -> Iterator[WorkerSample]:
    """What a worker did from one sample to another; nothing if those were no steps as others are, or it began anew."""
    seconds = _minus(after.seconds, before.seconds)
    began_anew = after.step < before.step or min(seconds.values(), default=0.0) < 0.0
    if any(seconds.values()) and not began_anew and not any(seconds.get(part) for part in _LEFT_OUT):
        steps, computed = after.step - before.step, after.computed - before.computed
        yield replace(after, step=steps, computed=computed, seconds=seconds, hooks=_minus(after.hooks, before.hooks))


def _minus(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name.removesuffix("_s"): seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _usual(differences: Sequence[WorkerSample]) -> list[WorkerSample]:
    """Those in which no step took several times as long as usual."""
    own_s = [sum(each.seconds.get(part, 0.0) for part in OWN) / max(1, each.step) for each in differences]
    usual_s = statistics.median([s for s, each in zip(own_s, differences, strict=True) if each.step] or [0.0])
    return [each for s, each in zip(own_s, differences, strict=True) if not each.step or s <= STOOD_STILL * usual_s]


def _times(differences: Sequence[WorkerSample], num_steps: int) -> WorkerTimes:
    """What a worker did in one of its steps."""
    last = differences[-1]
    return WorkerTimes(
        host=last.host,
        parts=_per_step([each.seconds for each in differences], num_steps),
        computed=sum(each.computed for each in differences) / num_steps or max(1, last.microbatches),
        hooks=_per_step([each.hooks for each in differences], num_steps),
    )


def _per_step(seconds: Sequence[Mapping[str, float]], num_steps: int) -> dict[str, float]:
    names = dict.fromkeys(name for each in seconds for name in each)
    return {name: sum(each.get(name, 0.0) for each in seconds) / num_steps for name in names}


def _samples_of_epochs(run: RecordedRun) -> Iterator[Sample]:
    """A sample at the end of each epoch, for runs without."""
    step, sums = 0, defaultdict[int, dict[str, float]](dict)
    hosts = {each["worker"]: each["host"] for each in run.record.get("workers", ())}
    for epoch in run.epochs:
        step += -(-epoch.rows // run.record.get("plan", {}).get("global_batch_size", epoch.rows or 1))
        for number, seconds in epoch.seconds_by_worker.items():
            sums[number] = {name: sums[number].get(name, 0.0) + part_s for name, part_s in seconds.items()}
        workers = tuple(
            WorkerSample(
                worker=number,
                host=hosts.get(number, ""),
                step=step,
                rows=0,
                microbatches=run.record.get("plan", {}).get("num_microbatches", 0) // len(epoch.seconds_by_worker),
                seconds=sums[number] | {"epoch_end_s": epoch.time - sum(sums[number].values())},
            )
            for number in epoch.seconds_by_worker
        )
        yield Sample(epoch=epoch.epoch, step=step, rows=0, logs={}, workers=workers, time=epoch.time)
