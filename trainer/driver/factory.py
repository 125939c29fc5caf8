"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.private_names import check_private_names
from ..jobs import WorkerSetup

if TYPE_CHECKING:
    from ..worker.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """``factory(slot)`` makes the worker of a slot; raises RuntimeSetupError."""

    setup: WorkerSetup

    def __call__(self, slot: int) -> Worker:
        """Load TensorFlow and set it up in this process."""
        began = time.perf_counter()
        check_private_names()
        from ..worker.worker import make_worker  # not before the check; and the driver has no use for TensorFlow

        return make_worker(self.setup, slot, time.perf_counter() - began)
