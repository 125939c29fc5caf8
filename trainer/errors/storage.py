"""Errors of what is kept: the run folder, checkpoints, states and files of callbacks."""

from __future__ import annotations

import errno
from pathlib import Path

from .base import TrainerError


class CallbackStateError(TrainerError):
    """A carried state of callbacks is damaged, or does not belong to the callback it is given to.

    Raised where callbacks go on, on another worker or in a resumed run. Use the same list of callbacks and the same
    Heliostat.
    """


class DamagedStateError(CallbackStateError):
    """What another worker or a checkpoint has of callbacks' states cannot be read.

    It was cut short, altered, or written by another version. Start from an earlier checkpoint, or without one.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"A state of callbacks cannot be read: {self.reason}. It was damaged or cut on its way, or comes from "
            "another version of Heliostat. Start from an earlier checkpoint, or without one."
        )


class CallbackFilesError(TrainerError):
    """The files of callbacks cannot be brought from the run folder to the machine on which callbacks go on.

    Raised where the chief's machine is another one than before. Look after the disk that the message names, and run
    the same command again.

    Args:
        run_dir: the run folder.
        folder: where they were to be, on the chief's machine.
        reason: why they are not.
    """

    def __init__(self, run_dir: str, folder: str, reason: str) -> None:
        super().__init__(run_dir, folder, reason)
        self.run_dir, self.folder, self.reason = run_dir, folder, reason

    def __str__(self) -> str:
        return (
            f"The callbacks' files cannot be brought from {self.run_dir} on the driver's machine to {self.folder}, "
            f"where the chief's callbacks go on: {self.reason}. Look after the disk that is named (is it full, may "
            "this user write there?), and start the same command again: the run goes on from its last checkpoint."
        )


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, found or read.

    While a run trains it is a warning, and the next checkpoint is tried when it is due. The message has the place and
    the reason.
    """


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is altered, cut short, missing a file, or of another format version.

    A run that goes on leaves such a checkpoint out, says so, and takes the one before it.
    """


class StateNotKeptError(CheckpointError):
    """The state in which a fit has left the model is neither kept nor held by a worker.

    Raised by a later `fit`, `evaluate` or `predict` of the trainer. Call `fit` with another run_dir, or use the model
    of the finished run: ``result.model()``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            "The model cannot be put into the state in which the last fit of this trainer has left it: no worker holds "
            f"that state any more, and {self.reason}. Call fit again with another run_dir, begin anew with "
            "initial_weights=result.model().get_weights(), or load the model of a finished run with Result.model()."
        )


class StorageError(TrainerError):
    """A file of the run folder cannot be written.

    The disk is full, not writable, or gone. Training goes on as long as it can, with a warning, and ends with this
    error where the run's result cannot be kept. Make room, or give another run_dir.

    Args:
        path: the file.
        error: why.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(str(path), error.strerror or str(error))
        self.path, self.reason, self.errno = path, error.strerror or str(error), error.errno

    def __str__(self) -> str:
        what = _WHAT_TO_DO.get(self.errno or 0, "look after the disk it is on, or give another run_dir")
        return (
            f"{str(self.path)!r} cannot be written: {self.reason}. It is on the machine where the script runs: {what}."
        )


_MAKE_ROOM = "make room on its disk, or raise the limit (quota, ulimit -f)"
_ALLOW = "let this user write there, or give another run_dir"
_GIVE_BACK = "put back what was moved or deleted, or give another run_dir"
_MOVE_AWAY = "put back what was moved or deleted, take away what lies in its place, or give another run_dir"
_WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    errno.ENOENT: _GIVE_BACK,
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _MOVE_AWAY),
}
