"""Heliostat's trainer: a Keras model on many workers, with the bits of one."""

from __future__ import annotations

from .config import EverySeconds, EverySteps
from .driver.result import Result
from .errors import (
    CallbackStateError,
    CheckpointError,
    ConfigurationError,
    DamagedCheckpointError,
    DamagedRecordError,
    DamagedStateError,
    DataError,
    EnvironmentVariableError,
    LeaseHeldError,
    LeaseLostError,
    ModelError,
    NonfiniteGradientError,
    NotCompiledError,
    OtherBeginningError,
    RunPausedError,
    RuntimeSetupError,
    StateNotKeptError,
    StorageError,
    TrainerError,
    TrainingFailedError,
    UnsupportedModelError,
    UnsupportedStepError,
    ValueNotCarriedError,
    WorkersDisagreeError,
)
from .trainer import Trainer

__all__ = [
    "CallbackStateError",
    "CheckpointError",
    "ConfigurationError",
    "DamagedCheckpointError",
    "DamagedRecordError",
    "DamagedStateError",
    "DataError",
    "EnvironmentVariableError",
    "EverySeconds",
    "EverySteps",
    "LeaseHeldError",
    "LeaseLostError",
    "ModelError",
    "NonfiniteGradientError",
    "NotCompiledError",
    "OtherBeginningError",
    "Result",
    "RunPausedError",
    "RuntimeSetupError",
    "StateNotKeptError",
    "StorageError",
    "Trainer",
    "TrainerError",
    "TrainingFailedError",
    "UnsupportedModelError",
    "UnsupportedStepError",
    "ValueNotCarriedError",
    "WorkersDisagreeError",
]
