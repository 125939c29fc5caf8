"""Tells the driver how far this worker is and where its time has gone: about once a second, and where a part ends."""

from __future__ import annotations

import time

from heliostat.cluster.group.member import Member
from heliostat.cluster.group.worker_process import host_name

from ..engine.memory import memory_in_use
from ..engine.model import BuiltModel
from ..engine.step import Step
from ..engine.times import TimeSplit
from ..samples import WorkerSample
from .position import Position

SAMPLE_EVERY_S = 1.0


class Sampler:
    """Tells samples of one worker.

    Args:
        member: its membership in the group.
        position: where it is in the run.
        times: where its time goes; samples begin with its first step.
        built: its model.

    Attributes:
        next_s: when the next sample is due, by the monotonic clock.
    """

    def __init__(self, member: Member, position: Position, times: TimeSplit, built: BuiltModel) -> None:
        self._member, self._position, self._times, self._built = member, position, times, built
        self.next_s = 0.0

    def tell(self, engine: Step) -> None:
        """Tell one now; `engine` computes the steps."""
        self.next_s = time.monotonic() + SAMPLE_EVERY_S
        self._member.send(
            WorkerSample(
                worker=self._member.worker,
                host=host_name(),
                step=self._position.of_run,
                rows=engine.own_rows,
                microbatches=engine.own_microbatches,
                seconds=self._times.seconds(),
                computed=self._times.computed,
                hooks={hook: round(seconds, 6) for hook, seconds in self._times.hooks.items()},
                memory=memory_in_use(self._built.strategy),
            )
        )
