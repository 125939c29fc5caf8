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
def drawn_from(seed: int) -> Iterator[None]:
    """Inside the block both generators begin from this seed; after it they stand where they stood.

    Callers hold `runtime.BUILD_LOCK`: the generators are those of the whole process.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
