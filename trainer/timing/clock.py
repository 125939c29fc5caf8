"""This process's clock beside the driver's, for traces of several machines on one clock.

As NTP does: a worker asks the driver for its time and takes the middle of the round trip for the same moment. The
error is at most half of the round trip (Mills, RFC 5905, section 8). Processes under one kernel share a clock, so that
nothing has to be measured there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NUM_ROUND_TRIPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What a clock showed when the driver's was read.

    Attributes:
        own_s: this process's performance counter, in seconds.
        offset_s: what must be added to it to get the driver's.
        bound_s: how wrong that may be, either way.
    """

    own_s: float
    offset_s: float
    bound_s: float


def read_clock(ask: Callable[[], float], num: int = NUM_ROUND_TRIPS) -> ClockReading:
    """The best of `num` round trips; `ask` returns the driver's performance counter."""
    found = []
    for _ in range(num):
        sent_s = time.perf_counter()
        driver_s = ask()
        found.append(reading(sent_s, driver_s, time.perf_counter()))
    return min(found, key=lambda each: each.bound_s)


def reading(sent_s: float, driver_s: float, received_s: float) -> ClockReading:
    """What one round trip tells."""
    middle_s = (sent_s + received_s) / 2
    return ClockReading(own_s=middle_s, offset_s=driver_s - middle_s, bound_s=(received_s - sent_s) / 2)


def offset_at(readings: Sequence[ClockReading], own_s: float) -> float:
    """The offset at a moment of the own clock: between the first and the last reading clocks drift evenly."""
    first, last = readings[0], readings[-1]
    if last.own_s <= first.own_s:
        return first.offset_s
    share = min(max((own_s - first.own_s) / (last.own_s - first.own_s), 0.0), 1.0)
    return first.offset_s + share * (last.offset_s - first.offset_s)


def clock_identity() -> str:
    """Names the clock that the performance counter reads: the kernel's boot and time namespace; empty if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return ""
