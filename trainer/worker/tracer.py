"""A worker records what it does in the steps asked for, and compares its clock with the driver's.

Spans stay in memory and are told once, behind the last of these steps, so that recording does not disturb what is
recorded. Clocks are compared as NTP does: a worker asks the driver for its time and takes the middle of the round trip
for the same moment. The error is at most half of the round trip (Mills, RFC 5905, section 8). Processes under one
kernel share a clock, so that nothing has to be measured there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.cluster.group.worker_process import host_name
from heliostat.cluster.instruments import Recorder

from ..environment import TraceWanted
from ..single_steps import ClockAsked, ClockReading, WorkerTrace

CAPACITY = 1 << 16  # spans of a worker
NUM_ROUND_TRIPS = 16


class Tracer:
    """A worker's part: turns its recorder on for the steps asked for, and tells the driver what it holds.

    Args:
        wanted: which steps.
        member: this worker's membership in the group.
    """

    def __init__(self, wanted: TraceWanted, member: Member) -> None:
        self._wanted, self._member = wanted, member
        self.recorder = Recorder(CAPACITY)
        self._clocks: list[ClockReading] = []
        self._told = False

    def before_step(self, position: int) -> None:
        """A step of the run begins; validation and callbacks after a step count as part of it."""
        if self._told or position < self._wanted.first:
            return
        if position >= self._wanted.last:
            self.finish()
            return
        if not self.recorder.on:
            self._read_clock()
            self.recorder.on = True
        self.recorder.step = position

    def finish(self) -> None:
        """Tell the driver, once."""
        if self._told:
            return
        self.recorder.on = False
        self._read_clock()
        self._told = True
        self._member.send(
            WorkerTrace(
                host=host_name(),
                spans=tuple(self.recorder.spans()),
                dropped=self.recorder.dropped,
                readings=tuple(self._clocks),
                clock=clock_identity(),
            )
        )

    def _read_clock(self) -> None:
        self._clocks.append(read_clock(lambda: float(self._member.request(ClockAsked(), Activity.COMPARE_CLOCKS))))


def read_clock(ask: Callable[[], float], num: int = NUM_ROUND_TRIPS) -> ClockReading:
    """The best of `num` round trips; `ask` returns the driver's performance counter."""
    found = []
    for _ in range(num):
        sent_s = time.perf_counter()
        driver_s = ask()
        found.append(reading(sent_s, driver_s, time.perf_counter()))
    return min(found, key=lambda each: each.bound_s)


def reading(sent_s: float, driver_s: float, received_s: float) -> ClockReading:
    """What one round trip tells.

    Args:
        sent_s: when the question was sent, by this process's performance counter.
        driver_s: the driver's answer, by its own.
        received_s: when it was here, by this process's.
    """
    middle_s = (sent_s + received_s) / 2
    return ClockReading(own_s=middle_s, offset_s=driver_s - middle_s, bound_s=(received_s - sent_s) / 2)


def clock_identity() -> str:
    """Names the clock that the performance counter reads: the kernel's boot and time namespace; empty if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return ""
