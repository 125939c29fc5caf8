"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RuntimeSetupError
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
        try:
            # TensorFlow takes seconds to load, and the driver has no use for it.
            from ..worker.worker import make_worker
        except ImportError as error:
            if "keras" not in str(error):
                raise
            raise RuntimeSetupError(
                f"The Keras installed here lacks a part that the step engine uses: {error}. Install the version that "
                "Heliostat's release notes name."
            ) from error
        return make_worker(self.setup, slot, time.perf_counter() - began)
