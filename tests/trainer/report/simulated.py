"""Runs that never were: workers step by step on clocks of their own, and what they would have told.

It knows when each worker waits, since it lets them: nothing of the verdict's arithmetic is used. So what a cause costs
is known by simulating the same world, with the same random numbers, without it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from heliostat.trainer.events import CheckpointCommitted, EpochRecord, Event
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.samples import Sample, WorkerSample

SAMPLE_EVERY_S = 1.0
STEP_PARTS = ("input", "compute", "local_sum", "wait", "all_reduce", "apply", "control", "rest", "first_step")
PARTS = (*STEP_PARTS, "hooks", "save", "validate", "epoch_end")


@dataclass(frozen=True, kw_only=True)
class World:
    """What a run is made of; seconds, and by worker where that can differ.

    A microbatch takes `call_s` and `row_s` for each of its rows, times the worker's `slowness`.
    """

    workers: int = 2
    epochs: int = 3
    steps: int = 100
    microbatches: int = 8
    batch: int = 256
    call_s: float = 0.001
    row_s: float = 0.0002
    slowness: tuple[float, ...] = (1.0,) * 8
    input_s: tuple[float, ...] = (0.0005,) * 8
    apply_s: float = 0.0005
    rest_s: float = 0.0005
    network_s: float = 0.0005
    hook_s: float = 0.0
    save_s: float = 0.0
    save_every: int = 1
    validate_s: float = 0.0
    epoch_end_s: float = 0.01
    first_step_s: float = 1.0
    jitter: float = 0.02
    seed: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    def without(self, cause: str) -> World:
        """The same world without a cause."""
        usual = World()
        fields = {
            "input": ("input_s",),
            "slow worker": ("slowness",),
            "network": ("network_s",),
            "callbacks": ("hook_s",),
            "checkpoints": ("save_s",),
            "validation": ("validate_s",),
        }[cause]
        return replace(self, **{name: getattr(usual, name) for name in fields})


class Simulation:
    """The clocks of all workers while `world` runs; `run` is what they leave, `seconds` what it took."""

    def __init__(self, world: World) -> None:
        self.world, self._random = world, random.Random(world.seed)
        self._numbers = range(world.workers)
        self._clock = [100.0] * world.workers
        self._sums = [dict.fromkeys(PARTS, 0.0) for _ in self._numbers]
        self._computed = [0] * world.workers
        self._hooks, self._step, self._told_s = 0.0, 0, 0.0
        self._samples: list[Sample] = []
        self._events: list[Event] = []
        self._epochs: list[EpochRecord] = []
        for epoch in range(world.epochs):
            self._epoch(epoch)
        self.seconds = max(self._clock) - 100.0 - world.first_step_s

    @property
    def run(self) -> RecordedRun:
        world = self.world
        plan = {
            "workers": world.workers,
            "replicas_per_worker": 1,
            "num_microbatches": world.microbatches,
            "global_batch_size": world.batch,
            "balance": True,
            **world.plan,
        }
        record = {
            "state": "finished",
            "plan": plan,
            "epochs": world.epochs,
            "identity": {},
            "data": {"train": {"rows": world.batch * world.steps}},
            "num_weights": 1_000_000,
            "start_s": {"first_step": 3.0},
        }
        return RecordedRun(
            record=record, epochs=tuple(self._epochs), events=tuple(self._events), samples=tuple(self._samples)
        )

    def _epoch(self, epoch: int) -> None:
        world = self.world
        began = [dict(sums) for sums in self._sums]
        for _ in range(world.steps):
            if self._step:
                self._one_step(epoch)
            else:
                self._all("first_step", world.first_step_s)
                self._step = 1
                self._tell(epoch)
        in_steps = {
            number: {f"{part}_s": sums[part] - began[number][part] for part in STEP_PARTS}
            for number, sums in enumerate(self._sums)
        }
        self._all("validate", world.validate_s)
        self._all("epoch_end", world.epoch_end_s)
        self._epochs.append(
            EpochRecord(
                epoch=epoch,
                logs={"loss": 1.0},
                rows=world.batch * world.steps,
                rows_by_worker=dict.fromkeys(self._numbers, world.batch * world.steps // world.workers),
                seconds_by_worker=in_steps,
                time=max(self._clock),
            )
        )
        self._tell(epoch)

    def _one_step(self, epoch: int) -> None:
        world = self.world
        if world.hook_s:
            began = list(self._clock)
            over = self._clock[0] + world.hook_s
            self._hooks += world.hook_s
            for number in self._numbers:
                self._spend(number, "hooks", max(0.0, over - began[number]))
        if world.save_s and self._step % world.save_every == 0:
            self._spend(0, "save", world.save_s)
            self._events.append(
                CheckpointCommitted(
                    name=f"at {self._step}", epoch=epoch, step=self._step, seconds=world.save_s, write_s=0.1
                )
            )
        mine = world.microbatches // world.workers
        for number in self._numbers:
            one_s = (world.call_s + world.row_s * world.batch / world.microbatches) * world.slowness[number]
            self._spend(number, "input", world.input_s[number] * self._varied())
            self._spend(number, "compute", mine * one_s * self._varied())
            self._computed[number] += mine
        there = max(self._clock)
        for number in self._numbers:
            self._spend(number, "wait", there - self._clock[number])
            self._spend(number, "all_reduce", world.network_s)
            self._spend(number, "apply", world.apply_s * self._varied())
            self._spend(number, "rest", world.rest_s * self._varied())
        self._step += 1
        if self._clock[0] >= self._told_s + SAMPLE_EVERY_S:
            self._tell(epoch)

    def _varied(self) -> float:
        return max(0.1, self._random.gauss(1.0, self.world.jitter))

    def _spend(self, number: int, part: str, seconds: float) -> None:
        self._clock[number] += seconds
        self._sums[number][part] += seconds

    def _all(self, part: str, seconds: float) -> None:
        """All spend it together, and those who come early wait for the others in it."""
        over = max(self._clock) + seconds
        for number in self._numbers:
            self._spend(number, part, over - self._clock[number])

    def _tell(self, epoch: int) -> None:
        world, self._told_s = self.world, self._clock[0]
        workers = tuple(
            WorkerSample(
                worker=number,
                host=f"host-{number}",
                step=self._step,
                rows=self._step * world.batch // world.workers,
                microbatches=world.microbatches // world.workers,
                seconds={f"{part}_s": seconds for part, seconds in self._sums[number].items()},
                computed=self._computed[number],
                hooks={"Slow.on_train_batch_end": self._hooks} if number == 0 and self._hooks else {},
            )
            for number in self._numbers
        )
        sample = Sample(
            epoch=epoch, step=self._step, rows=self._step * world.batch, logs={}, workers=workers, time=self._clock[0]
        )
        self._samples.append(sample)
