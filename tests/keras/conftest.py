"""The set-up of the tests of the trainer, whose fixtures they share."""

from __future__ import annotations

from ..trainer.conftest import (
    float32_again,
    float64,
    folder_of_its_own,
    tensorflow_with_eight_devices,
    use_floats,
    warm_trainer,
    warm_workers,
    watch,
)

__all__ = [
    "float32_again",
    "float64",
    "folder_of_its_own",
    "tensorflow_with_eight_devices",
    "use_floats",
    "warm_trainer",
    "warm_workers",
    "watch",
]
