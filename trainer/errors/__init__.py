"""Errors of the trainer.

::

    TrainerError
    ├── ConfigurationError        an argument is wrong or does not fit the others; found before workers start
    │   ├── EnvironmentVariableError a variable of ours in the environment is malformed
    │   ├── DamagedRecordError    the run.json of a run folder cannot be read
    │   ├── HandleError           the handle of a submitted run cannot be read
    │   ├── LeaseHeldError        another driver trains into this run folder
    │   ├── OtherBeginningError   a run cannot go on, because the fit before it has changed
    │   └── ValueNotCarriedError  a value of a kind that no checkpoint and no message can hold
    ├── ModelError                build_model, or the model it returns, cannot be trained
    │   ├── NotCompiledError      compile() was not called
    │   └── UnsupportedModelError the model asks for something that is refused by name
    │       ├── UnsupportedModelAttributeError a callback sets what other workers cannot have
    │       ├── UnsupportedModelVariableError a callback reaches another copy of a variable than the step reads
    │       └── UnsupportedModelChangeError a callback compiles the model, or has its step made anew
    ├── UnsupportedStepError      the training step does something that cannot be made exact
    │   └── UnsupportedStepInCallbackError a callback trains the model
    ├── DataError                 the data does not fit the model
    ├── RuntimeSetupError         TensorFlow in this process cannot be set up as the run needs it
    ├── CallbackFilesError        callbacks' files cannot be brought to where callbacks go on
    ├── CallbackStateError        a carried state of callbacks is damaged, or is not this callback's
    │   └── DamagedStateError     it is damaged, cut short, or of another version
    ├── CheckpointError           a checkpoint cannot be written, found or read
    │   ├── DamagedCheckpointError one is altered, cut short, missing a file, or of another format version
    │   └── StateNotKeptError     the state that a fit has left is nowhere any more
    ├── StorageError              the run folder cannot be written
    │   └── LeaseLostError        another driver has taken it over
    ├── FetchError                the run folders of a job cannot be brought here
    ├── MemoryExhaustedError      a step needs more memory than there is; knows a number of microbatches to try
    ├── NonfiniteGradientError    a step's gradient is NaN or infinite
    ├── RunPausedError            the run was paused, by a signal or because its time was over; knows how to go on
    ├── CallError                 a call on a cluster has failed there; knows in which stage, and as what
    ├── OtherEnvironmentError     the cluster lacks what a call needs; found before anything of it is unpickled
    ├── SessionError              the loop in a session asks for something out of turn
    ├── WorkersDisagreeError      workers that must hold the same state do not
    └── TrainingFailedError       a run stopped: names the worker, its host, the step and the user's frame
"""

from __future__ import annotations

from .base import TrainerError
from .calls import CallDetachedError, CallError, FetchError, OtherEnvironmentError
from .lease import LeaseHeldError, LeaseLostError
from .model import (
    DataError,
    ModelError,
    NotCompiledError,
    RuntimeSetupError,
    UnsupportedModelAttributeError,
    UnsupportedModelChangeError,
    UnsupportedModelError,
    UnsupportedModelVariableError,
    UnsupportedStepError,
    UnsupportedStepInCallbackError,
)
from .session import SessionError
from .settings import (
    ConfigurationError,
    DamagedRecordError,
    EnvironmentVariableError,
    HandleError,
    OtherBeginningError,
    ValueNotCarriedError,
)
from .storage import (
    CallbackFilesError,
    CallbackStateError,
    CheckpointError,
    DamagedCheckpointError,
    DamagedStateError,
    StateNotKeptError,
    StorageError,
)
from .training import (
    MemoryExhaustedError,
    NonfiniteGradientError,
    RunPausedError,
    TrainingFailedError,
    WorkersDisagreeError,
)

__all__ = [
    "CallDetachedError",
    "CallError",
    "CallbackFilesError",
    "CallbackStateError",
    "CheckpointError",
    "ConfigurationError",
    "DamagedCheckpointError",
    "DamagedRecordError",
    "DamagedStateError",
    "DataError",
    "EnvironmentVariableError",
    "FetchError",
    "HandleError",
    "LeaseHeldError",
    "LeaseLostError",
    "MemoryExhaustedError",
    "ModelError",
    "NonfiniteGradientError",
    "NotCompiledError",
    "OtherBeginningError",
    "OtherEnvironmentError",
    "RunPausedError",
    "RuntimeSetupError",
    "SessionError",
    "StateNotKeptError",
    "StorageError",
    "TrainerError",
    "TrainingFailedError",
    "UnsupportedModelAttributeError",
    "UnsupportedModelChangeError",
    "UnsupportedModelError",
    "UnsupportedModelVariableError",
    "UnsupportedStepError",
    "UnsupportedStepInCallbackError",
    "ValueNotCarriedError",
    "WorkersDisagreeError",
]
