"""Makes workers in the processes where they run, without loading TensorFlow in the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.private_names import check_private_names
from ..preflight import Luggage, import_all
from ..trainer_config import TrainerConfig

if TYPE_CHECKING:
    import keras

    from ..worker.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerFactory:
    """``factory(slot)`` makes the worker of a slot; raises RuntimeSetupError, PreflightError.

    Attributes:
        settings: the trainer's.
        dtype_policy: Keras's, of the user's thread where the worker is another thread of the same process: Keras keeps
            it per thread. None leaves Keras's own.
        luggage: what a worker on another machine needs of this one; None where it has all.
    """

    settings: TrainerConfig
    dtype_policy: keras.DTypePolicy | None = None
    luggage: Luggage | None = None

    def __call__(self, slot: int) -> Worker:
        """Load TensorFlow and set it up in this process."""
        began = time.perf_counter()
        if self.luggage is not None:
            self.luggage.unpack()
        check_private_names()
        from ..worker.worker import make_worker  # not before the check; and the driver has no use for TensorFlow

        if self.dtype_policy is not None:
            import keras

            keras.config.set_dtype_policy(self.dtype_policy)
        worker = make_worker(self.settings, slot, time.perf_counter() - began)
        if self.luggage is not None:
            import_all(self.luggage.modules)  # they may use TensorFlow at once, so it is set up before
        return worker
