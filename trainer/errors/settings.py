"""Errors in what a call is given, found before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .base import TrainerError


class ConfigurationError(TrainerError):
    """An argument is wrong, or does not fit the others.

    Raised before workers start. The message names the argument, what was given, and what it takes.
    """


class EnvironmentVariableError(ConfigurationError):
    """A variable of Heliostat's in the environment is malformed.

    Raised by the first `Trainer` or `fit` that reads it. Set it to what the message says, or unset it.

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

    It was cut short or altered. Where there are checkpoints the run can go on without the file: the message has the
    command that moves it away.

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

    It is the file ``submitted.json`` in the run folder here, by which commands find the job on the cluster. Put it
    back: the job itself goes on without it.

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


class OtherBeginningError(ConfigurationError):
    """The run in a folder began from another state than the one that it would go on from now.

    A fit goes on from the one before it; that one was run longer, shorter, or with other values since. Put back what
    has changed, or give another run_dir.

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
            return f"it began with a new model, and now it would go on from the end of the fit in {self.fit_before!r}."
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

    Raised for what callbacks keep in their state and put into logs. Convert it to numbers, texts, lists, dicts or
    arrays in ``get_state()``.

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
