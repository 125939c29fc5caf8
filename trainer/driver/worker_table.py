"""How each worker did in the last seconds: the difference of two samples, as what a screen says of it.

A worker's sums grow for as long as a run lasts, so what they say after an hour is what was true on the average. A
screen is to show what is true now: who has become slow, who waits, and for what. So the sample of some seconds ago is
kept beside the newest. A worker that joined meanwhile has no difference yet, and says so.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..events import Lines
from ..samples import Sample, WorkerSample

SLOW, MUCH = 0.8, 0.3  # below which speed, above which share of its time a worker is told to be off
_WINDOW_S = 10.0
_MAX_REMARKS = 2
_WAITS = ("wait_s", "epoch_end_s")  # in a step, and at the end of an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow(Lines):
    """What a screen says of one worker.

    Attributes:
        worker: its number.
        host: its machine.
        microbatches: how many of a step it computes.
        speed: how fast it computes one, where 1.0 is the median of all workers; None while that is not known.
        input_share: of the time that went by, what it waited for data; likewise.
        wait_share: and what it waited for other workers.
        memory_bytes: of its devices where they tell it, else of its process; 0 if it does not say.
    """

    worker: int
    host: str
    microbatches: int
    speed: float | None = None
    input_share: float | None = None
    wait_share: float | None = None
    memory_bytes: int = 0

    def remark(self) -> str:
        """What is not as it should be, in a few words; empty if all is well. Who waits for others does well."""
        what = []
        if self.speed is not None and self.speed < SLOW:
            what.append(f"{self.speed:.0%} of the speed of most")
        if self.input_share is not None and self.input_share > MUCH:
            what.append(f"{self.input_share:.0%} of its time waits for data")
        return f"worker {self.worker} on {self.host}: {', '.join(what)}" if what else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTable(Lines):
    """All workers, or of many the slowest.

    Attributes:
        rows: of workers, by their numbers.
        device: what each computes on: "CPU", "4 GPUs".
        num_workers: how many there are.
        others: of the workers that are in no row, the slowest and the fastest speed; empty where that is not known.
    """

    rows: tuple[WorkerRow, ...]
    device: str = ""
    num_workers: int = 0
    others: tuple[float, ...] = ()

    def remarks(self) -> list[str]:
        """What is not as it should be, a few words for each of the worst workers."""
        return [remark for row in self.rows if (remark := row.remark())][:_MAX_REMARKS]

    def shortened(self, most: int) -> WorkerTable:
        """The same with at most so many rows: those of the slowest workers."""
        if len(self.rows) <= most:
            return self
        by_speed = sorted(self.rows, key=lambda row: (row.speed is None, row.speed or 0.0, row.worker))
        shown, left = by_speed[:most], by_speed[most:]
        speeds = [*self.others, *(row.speed for row in left if row.speed is not None)]
        return WorkerTable(
            rows=tuple(sorted(shown, key=lambda row: row.worker)),
            device=self.device,
            num_workers=self.num_workers,
            others=(min(speeds), max(speeds)) if speeds else (),
        )


class RecentSamples:
    """The samples of the last seconds.

    Args:
        device: what each worker computes on.
    """

    def __init__(self, device: str = "") -> None:
        self._device = device
        self._kept: deque[Sample] = deque()

    def table_at(self, sample: Sample) -> WorkerTable:
        """How the workers did until this sample."""
        self._kept.append(sample)
        while len(self._kept) > 2 and sample.time - self._kept[1].time >= _WINDOW_S:
            self._kept.popleft()
        return table_of(self._kept[0].workers, sample.workers, self._device)


def device_of(record: Mapping[str, Any]) -> str:
    """What each worker of a run computes on, by what ``run.json`` says; empty if it does not say."""
    kind = str(record.get("platform", {}).get("device_type", "")).upper()
    replicas = record.get("plan", {}).get("replicas_per_worker", 1)
    return kind if not kind or replicas == 1 else f"{replicas} {kind}s"


def table_of(before: Iterable[WorkerSample], now: Iterable[WorkerSample], device: str = "") -> WorkerTable:
    """How workers did between two samples.

    Args:
        before: what was told by the workers that there were then.
        now: what was told last, by those that there are.
        device: what each computes on.
    """
    known, told = {each.worker: each for each in before}, list(now)
    pace_s = {each.worker: _pace_s(known.get(each.worker), each) for each in told}
    measured = [pace for pace in pace_s.values() if pace]
    median_s = statistics.median(measured) if measured else 0.0
    rows = (_row(known.get(each.worker), each, pace_s[each.worker], median_s) for each in told)
    return WorkerTable(rows=tuple(sorted(rows, key=lambda row: row.worker)), device=device, num_workers=len(told))


def _row(before: WorkerSample | None, now: WorkerSample, pace_s: float, median_s: float) -> WorkerRow:
    spent = {} if before is None else now.spent_since(before)
    elapsed_s = sum(spent.values())
    return WorkerRow(
        worker=now.worker,
        host=now.host,
        microbatches=now.microbatches,
        speed=median_s / pace_s if pace_s else None,
        input_share=spent.get("input_s", 0.0) / elapsed_s if elapsed_s > 0 else None,
        wait_share=sum(spent.get(name, 0.0) for name in _WAITS) / elapsed_s if elapsed_s > 0 else None,
        memory_bytes=now.memory.get("device") or now.memory.get("host", 0),
    )


def _pace_s(before: WorkerSample | None, now: WorkerSample) -> float:
    """How long it computes one microbatch on each of its replicas; 0.0 while that is not known."""
    if before is None or now.computed <= before.computed:
        return 0.0
    return now.spent_since(before).get("compute_s", 0.0) / (now.computed - before.computed)
