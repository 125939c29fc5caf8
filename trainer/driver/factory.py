"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import TrainerConfig
from ..engine.private_names import check_private_names

if TYPE_CHECKING:
    import keras

    from ..worker.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """``factory(slot)`` makes the worker of a slot; raises RuntimeSetupError.

    Attributes:
        settings: the trainer's.
        dtype_policy: Keras's, of the user's thread where the worker is another thread of the same process: Keras keeps
            it per thread. None leaves Keras's own.
    """

    settings: TrainerConfig
    dtype_policy: keras.DTypePolicy | None = None

    def __call__(self, slot: int) -> Worker:
        """Load TensorFlow and set it up in this process."""
        began = time.perf_counter()
        check_private_names()
        from ..worker.worker import make_worker  # not before the check; and the driver has no use for TensorFlow

        if self.dtype_policy is not None:
            import keras

            keras.config.set_dtype_policy(self.dtype_policy)
        return make_worker(self.settings, slot, time.perf_counter() - began)
