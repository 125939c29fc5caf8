"""What is done now, or waited for, where nothing else would be said: a value that a screen shows until another comes.

Whoever does something that may take long says so once, with how far it is as often as he likes. The screen says it
again when nothing was shown for a while, so nobody else needs a clock for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.cluster.group.liveness import Activity, Heartbeat

from ..events import Lines
from .words import whole_duration

_SHORT_S = 1.0  # what takes less is not worth a word
_STEP_IS_LONG_S = 5.0
_IN_STEPS = frozenset({Activity.COMPUTE, Activity.READ, Activity.ALL_REDUCE})
_IN_SET_UP = frozenset({Activity.LOAD, Activity.SET_UP, Activity.AWAIT_TRACES, Activity.JOIN})
# What lasts and is no step, in the order in which it is told: what others wait for before what they do meanwhile.
_TOLD = {
    Activity.CALLBACKS: "callbacks, on {who}",
    Activity.COPY: "copying the state, on {who}",
    Activity.REGROUP: "connecting the workers anew",
    Activity.SAVE: "writing the state, on {who}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing(Lines):
    """What is done now.

    Attributes:
        what: in a few words, such as "validation".
        done: how much of it, in `unit`.
        total: how much there is to do; None where nobody knows, or nothing is counted.
        unit: "rows", "files", "bytes"; empty where nothing is counted.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: str = ""

    def progress(self) -> str:
        """How far it is, in words: "3,000 of 10,000 rows", "12.5 of 60.0 MB"; empty where nothing is counted."""
        if not self.unit:
            return ""
        if self.unit == "bytes":
            of = "" if self.total is None else f" of {self.total / 1e6:,.1f}"
            return f"{self.done / 1e6:,.1f}{of} MB"
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}"

    def rate(self, seconds: float) -> str:
        """How much of it in a second: "8.1 MB/s", "120 rows/s"; empty while there is too little to go by."""
        if not self.unit or not self.done or seconds < _SHORT_S:
            return ""
        rate = self.done / seconds
        if self.unit == "bytes":
            return f"{rate / 1e6:,.1f} MB/s"
        return f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"

    def left_s(self, seconds: float) -> float | None:
        """How long the rest takes, if so much took so many seconds; None while there is too little to go by."""
        if not self.total or not 0 < self.done < self.total or seconds < _SHORT_S:
            return None
        return seconds * (self.total - self.done) / self.done

    def line(self, seconds: float) -> str:
        """The same as a line of its own, after so many seconds."""
        left_s = self.left_s(seconds)
        left = "" if left_s is None else f"about {whole_duration(left_s)} left"
        parts = (self.progress(), f"{seconds:.0f} s", self.rate(seconds), left)
        return f"{self.what}: {', '.join(filter(None, parts))}"


def doing_of(
    heartbeats: Mapping[int, Heartbeat], hosts: Mapping[int, str], stage: str, passed: Doing | None = None
) -> Doing | None:
    """What workers do, in a few words; None while they train, and no step takes long.

    Args:
        heartbeats: what each was heard to do, by its number.
        hosts: where workers run.
        stage: what those do that have not come to the first step.
        passed: the pass without training that is under way.
    """
    named = {worker: f"worker {worker} on {hosts.get(worker, 'an unknown host')}" for worker in heartbeats}
    for activity, text in _TOLD.items():
        for worker, beat in sorted(heartbeats.items()):
            if beat.activity is activity and beat.activity_s >= _SHORT_S:
                return Doing(what=text.format(who=named[worker]))
    if passed is not None:
        return passed
    in_steps = {worker: beat for worker, beat in heartbeats.items() if beat.activity in _IN_STEPS}
    if in_steps:
        worker = max(in_steps, key=lambda each: in_steps[each].activity_s)
        beat = in_steps[worker]
        is_long = beat.activity_s >= _STEP_IS_LONG_S
        return Doing(what=f"step {beat.step}: {beat.activity.value}, on {named[worker]}") if is_long else None
    is_set_up = any(beat.activity in _IN_SET_UP for beat in heartbeats.values())
    return Doing(what=stage) if is_set_up else None
