"""Where time goes: until the first step of a run, in the driver and in every worker, and in the steps of an epoch.

Everything is timed where it happens, so that nothing has to be told by subtraction. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from heliostat.cluster import instruments


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


@dataclass(slots=True)
class TimeSplit:
    """Seconds a worker spent in the parts of its steps, since the start of the epoch.

    Each part is timed where it happens, with `part`.

    Attributes:
        input_s: getting rows.
        compute_s: gradients; on GPUs also their sum over those of a worker, and its copy to the host.
        local_sum_s: adding up its own microbatches.
        wait_s: in the all-reduce, asleep until every other worker had begun it too.
        all_reduce_s: in the all-reduce, moving and adding, and asleep until the network had more.
        apply_s: the update, and counting metrics.
        control_s: between steps, following the chief's callbacks and copying state for checkpoints.
        rest_s: between steps, everything else: Keras's loop, callbacks, progress.
    """

    input_s: float = 0.0
    compute_s: float = 0.0
    local_sum_s: float = 0.0
    wait_s: float = 0.0
    all_reduce_s: float = 0.0
    apply_s: float = 0.0
    control_s: float = 0.0
    rest_s: float = 0.0

    @contextmanager
    def part(self, name: str, microbatch: int = -1) -> Iterator[None]:
        """The block belongs to this part, "input" to "rest"; traces show it with the index of the microbatch."""
        began_s = time.perf_counter()
        yield
        field = f"{name.replace(' ', '_')}_s"
        setattr(self, field, getattr(self, field) + time.perf_counter() - began_s)
        instruments.note(name, began_s, microbatch)
