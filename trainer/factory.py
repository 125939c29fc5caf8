"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .jobs import WorkerSetup

if TYPE_CHECKING:
    from .worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """``factory(rank)`` makes the worker of a rank; raises RuntimeSetupError."""

    setup: WorkerSetup

    def __call__(self, rank: int) -> Worker:
        """Load TensorFlow and set it up in this process."""
        from .worker import make_worker  # TensorFlow takes seconds to load, and the driver has no use for it

        return make_worker(self.setup, rank)
