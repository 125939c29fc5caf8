"""How far the workers are, and where their time has gone: what they tell of it while they train, as values.

A sum over an epoch says that somebody waited; it does not say since when, nor who was waited for. So every worker tells
its sums as they stand now, about once a second, and the differences of two of them say what happened in between. The
driver puts what the workers have told into one `Sample`; screens and trackers get it, and ``samples.jsonl`` keeps some.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .events import Lines


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSample(Lines):
    """What one worker tells of itself.

    Attributes:
        worker: its number.
        host: its machine.
        step: steps of the run that are done.
        rows: rows that it has computed itself in this run.
        microbatches: how many of a step are its own now.
        seconds: since it began its first step in this run, by part; they add up to the time that went by.
        computed: how often it has computed one microbatch on each of its replicas; 0 if it does not say.
        hooks: seconds that the user's callbacks took, by ``Class.hook``; on the chief alone.
        memory: bytes, by "host" (of its process) and "device" (of all its GPUs).
    """

    worker: int
    host: str
    step: int
    rows: int
    microbatches: int
    seconds: dict[str, float]
    computed: int = 0
    hooks: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def spent_since(self, before: WorkerSample | None) -> dict[str, float]:
        """Seconds by part since an earlier sample.

        Args:
            before: that sample; None, or one of the worker before it began anew, counts from its beginning.
        """
        if before is None or sum(before.seconds.values()) > sum(self.seconds.values()):
            return dict(self.seconds)
        return {part: max(0.0, seconds - before.seconds.get(part, 0.0)) for part, seconds in self.seconds.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Lines):
    """What all workers have told last.

    Attributes:
        epoch: the epoch that runs, from 0.
        step: steps of the run that are done.
        rows: rows that the run has trained on, over all workers and epochs.
        logs: metrics of the epoch until now.
        workers: those of the group.
        time: when the driver put it together, seconds since 1970.
    """

    epoch: int
    step: int
    rows: int
    logs: dict[str, Any]  # whatever metrics give
    workers: tuple[WorkerSample, ...]
    time: float = field(default_factory=time.time)


def of_steps_that_count(samples: Iterable[Sample]) -> list[Sample]:
    """The samples without those of steps that were computed again, where all workers were lost or a run was resumed.

    Args:
        samples: in the order in which they were written: after a return to a checkpoint the step is smaller.
    """
    found: list[Sample] = []
    for sample in samples:
        while found and found[-1].step > sample.step:
            found.pop()
        found.append(sample)
    return found
