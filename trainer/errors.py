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
    ├── WorkersDisagreeError      workers that must hold the same state do not
    └── TrainingFailedError       a run stopped: names the worker, its host, the step and the user's frame
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

_NOTHING: Mapping[str, int] = MappingProxyType({})
_MAX_NAMES = 5  # of variables, in a message


class TrainerError(Exception):
    """Base class of everything the trainer raises by itself; keeps its fields when pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(cls: type[TrainerError], args: tuple[object, ...], fields: dict[str, object]) -> TrainerError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigurationError(TrainerError):
    """An argument is wrong, or does not fit the others."""


class EnvironmentVariableError(ConfigurationError):
    """A variable of Heliostat's in the environment is malformed.

    Args:
        name: the variable.
        value: what it is set to.
        form: what it has to be.
    """

    def __init__(self, name: str, value: str, form: str) -> None:
        super().__init__(name, value, form)
        self.name, self.value, self.form = name, value, form

    def __str__(self) -> str:
        return (
            f"The environment variable {self.name} is {self.value!r}; it must be {self.form}. The commands of "
            "Heliostat set it for the scripts that they run; if this is none of them, unset it."
        )


class DamagedRecordError(ConfigurationError):
    """The ``run.json`` of a run folder cannot be read.

    Args:
        path: the file.
        reason: why.
        can_go_on: whether there are checkpoints beside it.
    """

    def __init__(self, path: Path, reason: str, *, can_go_on: bool) -> None:
        super().__init__(path, reason)
        self.path, self.reason, self.can_go_on = path, reason, can_go_on

    def __str__(self) -> str:
        way_out = (
            f"The run can go on without it, from its last checkpoint: move the file away (mv {self.path} "
            f"{self.path}.damaged) and run the script again with run_dir={str(self.path.parent)!r}."
            if self.can_go_on
            else "There is no checkpoint beside it to go on from: give another run_dir."
        )
        return f"{str(self.path)!r} cannot be read: {self.reason}. It was cut short or altered. {way_out}"


class HandleError(ConfigurationError):
    """The handle of a submitted run cannot be read.

    Args:
        folder: where it should be.
        reason: why not.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(str(folder), reason)
        self.folder, self.reason = str(folder), reason

    def __str__(self) -> str:
        return (
            f"The handle of a submitted run, submitted.json in {self.folder!r}, cannot be read: {self.reason}. It was "
            "moved, cut short or altered. Put it back; the job itself goes on without it, and 'ray job list --address "
            "http://HEAD:8265' shows its name."
        )


class LeaseHeldError(ConfigurationError):
    """Another driver trains into the run folder.

    Args:
        run_dir: the run folder.
        holder: what its lease says: ``host``, ``pid``, ``since`` (seconds since 1970); None if it is being written.
        silent_s: how long that driver has not touched its lease.
        expires_s: after how long of that the lease may be taken.
    """

    def __init__(self, run_dir: Path, holder: Mapping[str, object] | None, silent_s: float, expires_s: float) -> None:
        super().__init__(run_dir, holder)
        self.run_dir, self.holder, self.silent_s, self.expires_s = run_dir, holder, silent_s, expires_s

    def __str__(self) -> str:
        is_silent = self.silent_s > self.expires_s
        seen = f"gave its last sign of life {max(0.0, self.silent_s):.0f} s ago"
        what = (
            "If it is gone for good, take the folder from it with fit(take_over=True); should it wake up, it stops "
            "before it writes anything."
            if is_silent
            else "Wait for its end, stop it, or give another run_dir. If it was on another machine and is gone, take "
            f"the folder with fit(take_over=True) when it has been silent for {self.expires_s:.0f} s."
        )
        return (
            f"The run folder {str(self.run_dir)!r} is in use by {_driver_of(self.holder)}, which {seen}. Two programs "
            f"must not write one run folder. {what}"
        )


def _driver_of(holder: Mapping[str, object] | None) -> str:
    if holder is None:
        return "another program"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(str(holder["since"]))))
    return f"process {holder['pid']} on {holder['host']} since {since}"


class OtherBeginningError(ConfigurationError):
    """The run in a folder began from another state than the one that it would go on from now.

    Args:
        run_dir: the folder.
        before: the state it began from, as its identity has it; None for a new model's.
        epochs: for how many epochs the model that there is now was trained; None for a new one.
        fit_before: the folder of the fit that has left it so.
    """

    def __init__(self, run_dir: Path, before: Mapping[str, object] | None, epochs: int | None, fit_before: str) -> None:
        super().__init__(str(run_dir), before, epochs, fit_before)
        self.run_dir, self.before, self.epochs, self.fit_before = str(run_dir), before, epochs, fit_before

    def __str__(self) -> str:
        return (
            f"The run in {self.run_dir!r} cannot go on: {self._reason()} Put back what has changed, or give another "
            "run_dir. initial_weights= or a new Trainer begins anew."
        )

    def _reason(self) -> str:
        if self.before is None:
            return (
                f"it began with a new model, and now it would go on from the end of the fit in {self.fit_before!r}. "
                "(In earlier versions every fit of a trainer began anew.)"
            )
        began = f"it went on from a fit that had brought the model to {self.before.get('epochs')} epochs"
        if self.epochs is None:
            return f"{began}, and now it would begin with a new model."
        if self.epochs != self.before.get("epochs"):
            return (
                f"{began}, and that fit, in {self.fit_before!r}, has brought it to {self.epochs} since: it was run "
                f"{'longer' if self.epochs > int(str(self.before.get('epochs'))) else 'shorter'}."
            )
        return f"{began}, and the fit in {self.fit_before!r} has ended with other weights or optimizer state."


class ValueNotCarriedError(ConfigurationError):
    """A value is of a kind that cannot go into a checkpoint or to another worker.

    Args:
        where: the value, with the place in it: ``state['best'][3]``.
        what: what stands there: ``a tuple``.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return (
            f"{self.where} is {self.what}, which cannot be carried to another worker or into a checkpoint. What can is "
            "None, bool, int, float, str, lists, dicts with str keys, and in a callback's state numpy scalars and "
            "arrays of bool, integers, floats, bfloat16 and float8. Convert it first; a callback does so in "
            "get_state(), and back in set_state()."
        )


class ModelError(TrainerError):
    """``build_model`` failed, or what it returned is no model that can be trained."""


class NotCompiledError(ModelError):
    """The model was returned without a call of ``compile()``."""


class UnsupportedModelError(ModelError):
    """The model asks for something that Heliostat refuses rather than computes wrongly."""


class UnsupportedModelAttributeError(UnsupportedModelError):
    """A callback sets something that a traced step may read, and that cannot be brought to other workers.

    Args:
        place: what it sets, such as ``model.share``.
        kind: the type of the value.
    """

    def __init__(self, place: str, kind: str) -> None:
        super().__init__(place, kind)
        self.place, self.kind = place, kind

    def __str__(self) -> str:
        return (
            f"A callback sets {self.place} to a {self.kind} before the first step. The step is traced after that, on "
            "every worker, and other workers cannot have it: what travels are None, numbers, text, arrays, and tuples, "
            "lists and dicts of them. Set it in build_model instead; if the step does not read it, keep it on the "
            "callback itself (self.x)."
        )


class UnsupportedModelVariableError(UnsupportedModelError):
    """A callback reaches another copy of a variable than the step reads.

    Args:
        name: of the variable.
        path: by which the callback reaches its copy.
    """

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.name, self.path = name, path

    def __str__(self) -> str:
        return (
            f"The step reads a variable {self.name!r} beside the model, and a callback reaches another one of "
            f"this name ({self.path}): build_model makes it on every worker, and a global or a closure holds the last "
            "one. What the callback assigns would have no effect. Put the variable on the model or on its loss "
            "(self.share = keras.Variable(...)) and let the callback reach it there (self.model.share), or make it "
            "once, outside of build_model."
        )


class UnsupportedStepError(TrainerError):
    """The training step does something whose result would depend on where it is computed."""


class DataError(TrainerError):
    """The data does not fit the model, or the columns that were asked for."""


class RuntimeSetupError(TrainerError):
    """TensorFlow in this process cannot be set up as the run needs it."""


class UnsupportedStepInCallbackError(UnsupportedStepError):
    """A callback trains the model.

    Args:
        what: it calls, such as ``model.train_on_batch``.
        callback: its class.
        hook: in which it does.
    """

    def __init__(self, what: str, callback: str, hook: str) -> None:
        super().__init__(what, callback, hook)
        self.what, self.callback, self.hook = what, callback, hook

    def __str__(self) -> str:
        return (
            f"The callback {self.callback} calls {self.what}() in {self.hook}: it trains the model. Only the chief "
            "would, outside of the run's steps, and no checkpoint would know of it. Add these rows to the data, make "
            "the update in the model's train_step (or in fit(loop='custom', train_step=...)), or end this fit and call "
            "trainer.fit() with these rows: it goes on with the same model. Another model may be trained in a callback."
        )


class UnsupportedModelChangeError(UnsupportedModelError):
    """A callback compiles the model, or has its step made anew, in the middle of a run.

    Args:
        callback: its class.
        hook: in which it does.
    """

    def __init__(self, callback: str, hook: str) -> None:
        super().__init__(callback, hook)
        self.callback, self.hook = callback, hook

    def __str__(self) -> str:
        return (
            f"The callback {self.callback} compiles the model, or makes its train_function anew, in {self.hook}. The "
            "step of a run is traced once, so that would have no effect here (Keras's own fit fails after compile(): "
            "'NoneType' object is not callable). Train in two fits: trainer.fit(..., epochs=5), then trainer.fit(..., "
            "prepare=function), which goes on with the same weights; function(model) unfreezes layers and calls "
            "model.compile()."
        )


class CallbackStateError(TrainerError):
    """A carried state of callbacks is damaged, or does not belong to the callback it is given to."""


class DamagedStateError(CallbackStateError):
    """What another worker or a checkpoint has of callbacks' states cannot be read, for this reason."""

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
    """A checkpoint cannot be written, found or read."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is altered, cut short, missing a file, or of another format version."""


class StateNotKeptError(CheckpointError):
    """The state in which a fit has left the model is neither kept nor held by a worker; `reason` says why."""

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
    """A file of the run folder cannot be written: no worker's fault, and no reason for training to stop.

    Args:
        path: the file.
        error: why.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(str(path), error.strerror or str(error))
        self.path, self.reason, self.errno = path, error.strerror or str(error), error.errno

    def __str__(self) -> str:
        what = _WHAT_TO_DO.get(self.errno or 0, "look after the disk it is on, or give another run_dir")
        return f"{str(self.path)!r} cannot be written: {self.reason}. The driver keeps the run folder: {what}."


_MAKE_ROOM = "make room on its disk, or raise the limit (quota, ulimit -f)"
_ALLOW = "let this user write there, or give another run_dir"
_GIVE_BACK = "put back what was moved or deleted, or give another run_dir"
_WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _GIVE_BACK),
}


class LeaseLostError(StorageError):
    """Another driver has taken the run folder: this one was silent for minutes, and writes nothing there any more.

    Args:
        run_dir: the run folder.
        holder: see `LeaseHeldError`.
    """

    def __init__(self, run_dir: Path, holder: Mapping[str, object] | None) -> None:
        super().__init__(run_dir, OSError(errno.EBUSY, "it is another driver's now"))
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"The run folder {str(self.path)!r} was taken over by {_driver_of(self.holder)}, since this driver gave no "
            "sign of life for minutes (it was stopped, its machine slept, or its file system did not answer). It stops "
            "here and writes nothing there any more: the other one goes on with the run."
        )


def memory_account(parts: Mapping[str, int]) -> str:
    """What memory goes to, from bytes by name."""
    return ", ".join(f"{name} {size_text(num_bytes)}" for name, num_bytes in parts.items())


def listed(names: Sequence[str], most: int) -> str:
    """Names in a line, the first so many of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def size_text(num_bytes: int) -> str:
    """A number of bytes as people say it: 12.0 kB, 3.4 MB, 5.6 GB."""
    unit, size = next((each for each in (("GB", 1e9), ("MB", 1e6)) if num_bytes >= each[1]), ("kB", 1e3))
    return f"{num_bytes / size:,.1f} {unit}"


class FetchError(TrainerError):
    """The run folders of a job cannot be brought here, or not as they are there."""

    @classmethod
    def no_folder(cls, submission_id: str) -> FetchError:
        """A job has opened no run folder."""
        return cls(
            f"The job {submission_id} has no run folder: no fit of it has begun, or it came to none. heliostat logs "
            "shows what it printed."
        )

    @classmethod
    def not_there(cls, paths: Sequence[str]) -> FetchError:
        """Run folders are not where jobs of the cluster run (any more)."""
        return cls(
            f"{', '.join(paths)} is not on the machine of the cluster where jobs run: the run in it never began, "
            "somebody has deleted it, or the job that made it ran on another machine."
        )

    @classmethod
    def small_job(cls, what: str, reason: str) -> FetchError:
        """A job that was to see to run folders has failed.

        Args:
            what: it was to do with them: "list" or "remove".
            reason: why it has not.
        """
        return cls(f"The job that was to {what} run folders on the cluster has failed: {reason}")

    @classmethod
    def changed(cls, path: str, size: int, came: int) -> FetchError:
        """A file did not come as it was told to be.

        Args:
            path: of the file there.
            size: that it should have, in bytes.
            came: how many bytes came.
        """
        return cls(
            f"{path} did not come as the cluster told it to be ({came:,} bytes of {size:,} came"
            f"{', others than told' if came == size else ''}): it changes there while it is read, or something on the "
            "way alters it. Once the run has ended, fetch again: what is here already is not fetched twice."
        )

    @classmethod
    def bad_name(cls, name: str) -> FetchError:
        """A file would not lie in the run folder."""
        return cls(f"The cluster names a file {name!r} of a run folder, which would lie outside of it here: refused.")


class MemoryExhaustedError(TrainerError):
    """A step needs more memory than there is.

    Args:
        num_microbatches: V of the run.
        rows: of a microbatch.
        cause: what happened, in one line.
        parts: bytes of what a worker holds, by name; empty where nobody could be asked.

    Attributes:
        num_microbatches, rows: see above.
    """

    def __init__(self, num_microbatches: int, rows: int, cause: str, parts: Mapping[str, int] = _NOTHING) -> None:
        super().__init__(num_microbatches, rows, cause, dict(parts))
        self.num_microbatches, self.rows = num_microbatches, rows
        self._cause, self._parts = cause, dict(parts)

    @property
    def next_number(self) -> int | None:
        """The number of microbatches to try; None if they have one row already."""
        return 2 * self.num_microbatches if self.rows > 1 else None

    @property
    def account(self) -> str:
        """What happened, and what memory goes to."""
        holds = f" A worker holds about: {memory_account(self._parts)}." if self._parts else ""
        return (
            f"Memory was exhausted by microbatches of {self.rows} row(s) (num_microbatches={self.num_microbatches}): "
            f"{self._cause}.{holds}"
        )

    @property
    def remedy(self) -> str:
        """What needs less memory."""
        if self.next_number is None:
            return "A row by itself does not fit: give a smaller model, or fewer workers or replicas per machine."
        return f"Smaller microbatches need less: begin a new run with num_microbatches={self.next_number} or more."

    def __str__(self) -> str:
        finds = "" if self.next_number is None else " num_microbatches='auto' finds the number."
        return f"{self.account} {self.remedy}{finds}"


class NonfiniteGradientError(TrainerError):
    """A step's gradient is NaN or infinite; nothing of it was applied.

    Args:
        epoch: from 0.
        step: of the epoch; an epoch has `num_steps`.
        num_steps: see `step`.
        microbatch: index of the first microbatch it came from; None if only the sum over them is not finite, or
            another worker computed it.
        variables: paths of the variables concerned, empty without a microbatch.
        value: the first value in its rows that is not finite, with column and row; empty if all are finite.

    Attributes:
        microbatch: see above.
    """

    def __init__(
        self,
        *,
        epoch: int,
        step: int,
        num_steps: int,
        microbatch: int | None,
        variables: Sequence[str] = (),
        value: str = "",
    ) -> None:
        self.microbatch = microbatch
        where = f"step {step} of epoch {epoch + 1}"
        if microbatch is None:
            super().__init__(
                f"The gradient of {where} is not finite. If no microbatch of it is named elsewhere in this message, "
                "each is finite by itself and only their sum is not: the gradients are too large. Clip them, or lower "
                "the learning rate."
            )
            return
        causes = f"In the data {value}. Likely causes: such a value" if value else "Likely causes: a value in its rows"
        super().__init__(
            f"Microbatch {microbatch} of {where} has a gradient that is not finite, for "
            f"{listed(variables, _MAX_NAMES)}. Nothing of this step was applied. {causes} that "
            "is not finite or far out of range, a learning rate that is too high, a division by zero or "
            "a log of zero in the loss. Look at its rows with: heliostat replay RUN_DIR --step "
            f"{epoch * num_steps + step} --microbatch {microbatch}; or leave such steps out with "
            'fit(on_nonfinite="skip").'
        )


class RunPausedError(TrainerError):
    """The run was paused by a signal, or because its time was over.

    Attributes:
        exit_status: of a program that ends with it: EX_TEMPFAIL of sysexits.h, nothing is wrong, try again.

    Args:
        reason: why.
        run_dir: the run folder, where it goes on from.
        checkpoint: name of the checkpoint that holds its state; None if nothing was saved.
    """

    exit_status = 75

    def __init__(self, reason: str, run_dir: Path, checkpoint: str | None) -> None:
        super().__init__(reason, run_dir, checkpoint)
        self.reason, self.run_dir, self.checkpoint = reason, run_dir, checkpoint

    def __str__(self) -> str:
        how = (
            f"Its state is in checkpoint {self.checkpoint}. To go on, run the same command again with run_dir="
            f"{str(self.run_dir)!r}, or: heliostat resume {self.run_dir}"
            if self.checkpoint is not None
            else "Nothing of it was saved: it had no checkpoints, or nothing was computed yet."
        )
        return f"The run was paused: {self.reason}. {how}"


class CallError(TrainerError):
    """A call on a cluster has failed there; if the error there is of a class of ours, it is of that class as well.

    Attributes:
        address: of the cluster.
        stage: in which it failed: "start", "unpickle" or "train".
        class_there: the class of the error there, with its module.
        frames: of the traceback there, from the first in the user's code on, as Python shows them.
        traceback: all of it, as text.
    """

    class_there = traceback = ""
    frames: tuple[str, ...] = ()

    def __init__(self, message: str, address: str, stage: str) -> None:
        super().__init__(message)
        self.address, self.stage = address, stage

    def __str__(self) -> str:
        shown = "".join(f"\n{frame.rstrip()}" for frame in self.frames)
        return f"{self.args[0]}{shown}\n(on the cluster at {self.address}, stage of the call: {self.stage})"


class OtherEnvironmentError(TrainerError):
    """The cluster lacks what a call needs; nothing of the call was unpickled.

    Args:
        host: the machine of the cluster.
        python: its interpreter.
        differences: what is there and what is here, by name: of Python, a package, a module.
    """

    def __init__(self, host: str, python: str, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(host, python, {name: tuple(each) for name, each in differences.items()})
        self.host, self.python, self.differences = host, python, dict(differences)

    def __str__(self) -> str:
        lines = [f"  {name}: {there} there, {here} here" for name, (there, here) in self.differences.items()]
        return "\n".join(
            [
                f"The cluster ({self.python} on {self.host}) has not what this call needs:",
                *lines,
                "Functions are sent as bytecode and by the names of modules, so nothing was unpickled there. Make the "
                "two alike: install the same versions on the cluster or here, put modules of your own beside the "
                "script, from where they travel, or submit the script, which needs nothing here: heliostat submit.",
            ]
        )


class CallDetachedError(KeyboardInterrupt):
    """Ctrl-C has ended the watching of a call; the run on the cluster goes on.

    Args:
        commands: what can be done now, a line each.

    Attributes:
        exit_status: of a program that ends with it, as of one that Ctrl-C ends.
    """

    exit_status = 130

    def __init__(self, commands: Sequence[str]) -> None:
        super().__init__("\n".join(commands))


class WorkersDisagreeError(TrainerError):
    """Workers that must hold the same state hold different ones."""


class TrainingFailedError(TrainerError):
    """A run stopped because a worker died or raised.

    Args:
        kind: "died", "raised" (an error of its own) or "lost_peer" (a call failed in a way that no group can mend).
        cause: one line: what happened.
        worker: number of the worker at fault, None where no single worker is.
        host: its host name.
        step: step of the run (counted from 0) that the worker was at, None before the first.
        where: the innermost frame of the user's code, empty where there is none.
        evidence: why its process died: "out of memory", "crash", "exit" (by its own code), or empty if unknown.
        worker_traceback: the worker's traceback, empty where it left none.
        log_path: the worker's log file, empty where there is none.
        run_dir: the run folder, None without.

    Attributes:
        advice: likely cause and what to do; to be set where more is known than these values tell.
    """

    def __init__(
        self,
        kind: Literal["died", "raised", "lost_peer"],
        cause: str,
        *,
        worker: int | None = None,
        host: str = "",
        step: int | None = None,
        where: str = "",
        evidence: Literal["", "out of memory", "crash", "exit"] = "",
        worker_traceback: str = "",
        log_path: str = "",
        run_dir: Path | None = None,
    ) -> None:
        super().__init__(kind, cause)
        self.advice = _ADVICE[evidence if kind == "died" else kind]
        self.kind, self.cause, self.where, self.evidence = kind, cause, where, evidence
        self.worker, self.host, self.step = worker, host, step
        self.worker_traceback, self.log_path, self.run_dir = worker_traceback, log_path, run_dir

    def __str__(self) -> str:
        at = "before the first step" if self.step is None else f"at step {self.step}"
        what = {"died": "died", "raised": "raised an error", "lost_peer": "lost another worker"}[self.kind]
        lines = [f"Worker {self.worker} on {self.host} {what} {at}: {self.cause}"]
        if self.where:
            lines.append(f"In your code: {self.where}.")
        lines.append(self.advice)
        if self.log_path and self.kind != "raised":
            lines.append(f"Its log: {self.log_path}")
        if self.run_dir is not None:
            lines.append(f"The run stopped; its folder {self.run_dir} holds what was reached.")
        return "\n".join(lines)


# By how a worker failed; of one that died, by the evidence there is.
_ADVICE = {
    "lost_peer": "Likely cause: workers run different versions of Heliostat, or different models.",
    "raised": (
        "The worker's traceback is in the error's attribute worker_traceback, and the exception is its __cause__."
    ),
    "out of memory": (
        "Cause: there was not enough memory for this step, again and again. Begin a new run with a larger "
        "num_microbatches, which makes microbatches smaller, or with fewer workers per machine."
    ),
    "crash": "Cause: native code crashed at this step, again and again; the worker's log ends with its stack.",
    "exit": (
        "Cause: code that you run, or a library of yours, ends the process at this step (os._exit), again and again. "
        "Let it raise an exception instead."
    ),
    "": (
        "Likely cause: it was killed, by hand or by the system when memory ran out (the kernel's log tells), or native "
        "code crashed (its log ends there)."
    ),
}
