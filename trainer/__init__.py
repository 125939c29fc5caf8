"""Heliostat's trainer: a Keras model on many workers, with the bits of one."""

from __future__ import annotations

from .errors import (
    ConfigurationError,
    DataError,
    ModelError,
    NotCompiledError,
    RuntimeSetupError,
    TrainerError,
    TrainingFailedError,
    UnsupportedModelError,
    UnsupportedStepError,
    WorkersDisagreeError,
)
from .result import Result
from .trainer import Trainer

__all__ = [
    "ConfigurationError",
    "DataError",
    "ModelError",
    "NotCompiledError",
    "Result",
    "RuntimeSetupError",
    "Trainer",
    "TrainerError",
    "TrainingFailedError",
    "UnsupportedModelError",
    "UnsupportedStepError",
    "WorkersDisagreeError",
]
