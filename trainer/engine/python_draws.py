"""What a step draws from Python's and numpy's global generators while it is traced.

Such a draw becomes a constant of the graph (`keras.layers.AugMix` chooses its operations like this, and users write
``random.random()`` in a step). So every trace has to draw alike: on each worker, on each of its replicas, and where a
step is traced a second time.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def kept_draws() -> Iterator[None]:
    """After the block both generators stand where they stood before it.

    Callers hold `runtime.BUILD_LOCK`: the generators are those of the whole process.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """As `kept_draws`; inside the block both generators begin from this seed."""
    with kept_draws():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
