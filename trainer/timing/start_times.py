"""How long it takes to come to a run's first step, by parts: in the driver, and in every worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# In the order in which they happen.
DRIVER_PARTS = ("data", "devices", "ray", "workers")
WORKER_PARTS = ("imports", "set_up", "open", "build", "trace", "compile", "join", "step")


@dataclass(slots=True)
class StartTimes:
    """Seconds by part.

    Of the driver: `data` makes datasets of what was passed; `ray` loads Ray, and starts or joins a cluster
    (`devices` looks for GPUs instead, where workers are in this process); `workers` waits for enough workers to be set
    up. Of a worker: `imports` loads TensorFlow; `set_up` prepares devices and its
    listener; `open` opens the data; `build` builds the model; `trace` traces its steps; `compile` computes one of every
    shape; `join` waits for the others; `step` computes the first step.
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
