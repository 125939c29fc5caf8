"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import TrainerConfig
from ..engine.private_names import check_private_names

if TYPE_CHECKING:
    from ..worker.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """``factory(slot)`` makes the worker of a slot; raises RuntimeSetupError."""

    settings: TrainerConfig

    def __call__(self, slot: int) -> Worker:
        """Load TensorFlow and set it up in this process."""
        began = time.perf_counter()
        check_private_names()
        from ..worker.worker import make_worker  # not before the check; and the driver has no use for TensorFlow

        return make_worker(self.settings, slot, time.perf_counter() - began)
