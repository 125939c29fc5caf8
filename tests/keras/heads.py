"""What models for losses and metrics end in: kinds of outputs, and targets of these kinds."""

from __future__ import annotations

import numpy as np

WIDTH = 4
ACTIVATIONS = {"binary": "sigmoid", "classes": "softmax", "sparse": "softmax", "signs": "tanh", "positive": "softplus"}
"""By kind, where there is one."""


def targets(random: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Targets for so many rows, by kind."""
    return {
        "binary": (random.uniform(size=(count, WIDTH)) > 0.5).astype(float),
        "classes": np.eye(WIDTH)[random.integers(0, WIDTH, count)],
        "sparse": random.integers(0, WIDTH, count),
        "signs": np.sign(random.normal(size=(count, WIDTH))),
        "positive": random.uniform(0.5, 2, (count, WIDTH)),
        "real": random.normal(size=(count, WIDTH)),
    }
