"""Where time goes: until the first step of a run, in the driver and in every worker; and in a worker after that.

Until the first step only what is named is timed (`StartTimes`). After it a worker is at every moment in exactly one
part (`TimeSplit`): who enters a part ends the one before, so that the parts add up to all of its time by themselves,
and a part that is forgotten somewhere is seen as a part that is too long. Nothing here needs TensorFlow.

What was not done: timing every part by itself and telling the rest by subtraction. What lies between two parts then
belongs to none of them, and what lies in two of them counts twice; both happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from heliostat.cluster import instruments

# In which a worker is, one at a time. Of a step and between steps:
STEP_PARTS = ("input", "compute", "local_sum", "wait", "all_reduce", "apply", "control", "rest")
# What is not in every step, and what is not between the steps of an epoch:
SELDOM_PARTS = ("first_step", "hooks", "save", "regroup")
EPOCH_PARTS = ("validate", "epoch_end")
PARTS = (*STEP_PARTS, *SELDOM_PARTS, *EPOCH_PARTS)


@dataclass(slots=True)
class StartTimes:
    """Seconds by part.

    Of the driver: `data` makes datasets of what was passed; `ray` waits until Ray is loaded, and a cluster started or
    joined, which begins when the trainer is made (`devices` looks for GPUs instead, where workers are in this process);
    `workers` waits for enough workers to be set up. Of a worker: `imports` loads TensorFlow; `set_up` prepares devices
    and its listener; `open` opens the data; `build` builds the model; `trace` traces its steps; `compile` computes one
    of every shape; `join` waits for the others; `probe` looks at what the steps compute (`probe.py`); `step` computes
    the first.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as (more of) this part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def rounded(self) -> dict[str, float]:
        """Seconds by part, to a tenth of a millisecond."""
        return {name: round(seconds, 4) for name, seconds in self.seconds.items()}


class TimeSplit:
    """Seconds that a worker has spent in each part since its first step in this run began; they add up to all of it.

    Attributes:
        computed: how often one microbatch on each replica was computed in the seconds of ``compute``.
        hooks: seconds by "Class.on_hook" of the user's callbacks, on the worker that runs them.

    ==============  ===============================================================================================
    part            what the worker does
    ==============  ===============================================================================================
    ``input``       gets rows
    ``compute``     gradients; on GPUs also their sum over those of a worker, and its copy to the host
    ``local_sum``   adds up its own microbatches
    ``wait``        is asleep in the all-reduce until every other worker has begun it too
    ``all_reduce``  moves and adds in the all-reduce, and is asleep until the network has more
    ``apply``       the update
    ``control``     follows what the chief's callbacks have changed
    ``rest``        everything else between steps: Keras's loop, progress
    ``first_step``  its first step in this run, all parts of it: TensorFlow may still compile
    ``hooks``       the chief: is in the user's callbacks; others: sleep until it is out of them
    ``save``        the chief: copies the state for checkpoints, and at the end waits until the last is written
    ``regroup``     takes part in a change of the group, after a loss or for a worker that joins
    ``validate``    the validation pass, until it is done on all workers
    ``epoch_end``   meets the others after an epoch's last step, and begins the next epoch
    ==============  ===============================================================================================
    """

    __slots__ = ("_marked", "_part", "_seconds", "_since_s", "computed", "hooks")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The first step begins: nothing before it counts."""
        self._seconds, self._marked = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)
        self._part, self._since_s = "rest", time.perf_counter()
        self.computed, self.hooks = 0, dict[str, float]()

    def end_first_step(self) -> None:
        """All until now was the first step: none of it says how long the parts of a step take."""
        self.enter(self._part)
        first_step_s = sum(self._seconds.values())
        self._seconds, self.computed = dict.fromkeys(PARTS, 0.0) | {"first_step": first_step_s}, 0

    def enter(self, part: str) -> str:
        """The worker is in this part from now on; returns the one that it was in."""
        before, since_s = self._part, self._since_s
        self._part, self._since_s = part, time.perf_counter()
        self._seconds[before] += self._since_s - since_s
        return before

    @contextmanager
    def part(self, name: str, microbatch: int = -1, *, in_traces: bool = True) -> Iterator[None]:
        """The worker is in this part while it is in the block, except where it is in another one inside of that.

        Args:
            name: of the part, "local sum" for ``local_sum``.
            microbatch: its index, which traces show.
            in_traces: whether traces show the block.
        """
        before = self.enter(name.replace(" ", "_"))
        began_s = self._since_s
        try:
            yield
        finally:
            self.enter(before)
        if in_traces:
            instruments.note(name, began_s, microbatch)

    def move(self, seconds: float, source: str, part: str) -> None:
        """So many of the seconds that went to one part belong to another: somebody else has measured them in there."""
        moved = min(seconds, self._seconds[source])
        self._seconds[source] -= moved
        self._seconds[part] += moved

    def note_hook(self, name: str, seconds: float) -> None:
        """A hook of a callback took so long."""
        self.hooks[name] = self.hooks.get(name, 0.0) + seconds

    @property
    def pace_s(self) -> float:
        """What computing microbatches and adding them up took, as far as the blocks of it have ended."""
        return self._seconds["compute"] + self._seconds["local_sum"]

    def seconds(self) -> dict[str, float]:
        """Seconds by part ("input_s" ...) until now."""
        self.enter(self._part)
        return {f"{part}_s": round(seconds, 6) for part, seconds in self._seconds.items()}

    def mark(self) -> None:
        """An epoch begins: see `since_mark`."""
        self.enter(self._part)
        self._marked = dict(self._seconds)

    def since_mark(self) -> dict[str, float]:
        """Seconds by part of an epoch's steps since it has begun; of those that are seldom only what is not zero."""
        self.enter(self._part)
        found = {part: round(self._seconds[part] - self._marked[part], 6) for part in (*STEP_PARTS, *SELDOM_PARTS)}
        return {f"{part}_s": seconds for part, seconds in found.items() if part in STEP_PARTS or seconds}
