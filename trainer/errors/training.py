"""Errors that end a run: memory, gradients, workers, and the pause, which is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from .base import TrainerError
from .texts import listed, memory_account

_NOTHING: Mapping[str, int] = MappingProxyType({})
_MAX_NAMES = 5  # of variables, in a message


class MemoryExhaustedError(TrainerError):
    """A step needs more memory than there is.

    The message has what memory goes to. Smaller microbatches need less: ``num_microbatches=`` of the number that it
    names, or "auto".

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

    The message names the first microbatch and the variables. Look at its rows with ``heliostat replay``, lower the
    learning rate, or leave such steps out with ``fit(on_nonfinite="skip")``.

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
        run_dir: the run folder, where the driver knows it.
    """

    run_dir: Path | None = None

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
        super().__init__(epoch, step, microbatch)
        self.microbatch = microbatch
        self._where, self._step_of_run = f"step {step} of epoch {epoch + 1}", epoch * num_steps + step
        self._variables, self._value = tuple(variables), value

    @property
    def account(self) -> str:
        """What happened, and why that may be."""
        if self.microbatch is None:
            return (
                f"The gradient of {self._where} is not finite. If no microbatch of it is named elsewhere in this "
                "message, each is finite by itself and only their sum is not: the gradients are too large. Clip them, "
                "or lower the learning rate."
            )
        others = "a learning rate that is too high, a division by zero or a log of zero in the loss"
        causes = (
            f"Likely cause: in the data {self._value}. Others: {others}."
            if self._value
            else f"Likely causes: a value in its rows that is far out of range, {others}."
        )
        return (
            f"Microbatch {self.microbatch} of {self._where} has a gradient that is not finite, for "
            f"{listed(self._variables, _MAX_NAMES)}. Nothing of this step was applied. {causes}"
        )

    def __str__(self) -> str:
        if self.microbatch is None:
            return self.account
        place = f"--step {self._step_of_run} --microbatch {self.microbatch}"
        how = f" heliostat replay and {place}" if self.run_dir is None else f": heliostat replay {self.run_dir} {place}"
        return f'{self.account} Look at its rows with{how}; or leave such steps out with fit(on_nonfinite="skip").'


class RunPausedError(TrainerError):
    """The run was paused by a signal, or because its time was over.

    It is no mistake: Ctrl-C, SIGTERM or `max_time_s` asked for it. Run the same command again, or ``heliostat resume``.
    A script that does not catch it ends with the message, without a traceback, and exit status 75.

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
            f"Its state is in checkpoint {self.checkpoint}. To go on:\n  heliostat resume {self.run_dir}\n"
            f"or run the same command again, with run_dir={str(self.run_dir)!r}."
            if self.checkpoint is not None
            else "Nothing of it was saved: it had no checkpoints, or nothing was computed yet. The same "
            "command begins anew."
        )
        return f"The run was paused: {self.reason}. {how}"


class WorkersDisagreeError(TrainerError):
    """Workers that must hold the same state hold different ones.

    Found at the end of an epoch, or before the first step. Give all machines the same packages, and let `build_model`
    make the same model on each.
    """


class TrainingFailedError(TrainerError):
    """A run stopped because a worker died or raised.

    The message has the worker, its host, the step, and the line of your code where there is one. The exception itself
    is the ``__cause__`` where it could travel.

    Args:
        kind: "died", "raised" (an error of its own) or "lost_peer" (a call failed in a way that no group can mend).
        cause: one line: what happened.
        worker: number of the worker at fault, None where no single worker is.
        host: its host name.
        step: step of the run (counted from 0) that the worker was at, None before the first.
        where: the innermost frame of the user's code, empty where there is none.
        worker_frames: all frames of the user's code, as Python shows them, the innermost last.
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
        worker_frames: Sequence[str] = (),
        evidence: Literal["", "out of memory", "crash", "exit"] = "",
        worker_traceback: str = "",
        log_path: str = "",
        run_dir: Path | None = None,
    ) -> None:
        super().__init__(kind, cause)
        self.advice = _ADVICE[evidence if kind == "died" else "raised in code" if kind == "raised" and where else kind]
        self.kind, self.cause, self.where, self.evidence = kind, cause, where, evidence
        self.worker, self.host, self.step, self.worker_frames = worker, host, step, tuple(worker_frames)
        self.worker_traceback, self.log_path, self.run_dir = worker_traceback, log_path, run_dir

    def __str__(self) -> str:
        at = "before the first step" if self.step is None else f"at step {self.step}"
        what = {"died": "died", "raised": "raised an error", "lost_peer": "lost another worker"}[self.kind]
        lines = [f"Worker {self.worker} on {self.host} {what} {at}: {self.cause}"]
        if self.where:
            lines.append(f"In your code: {self.where}.")
        lines.append(self.advice)
        if self.log_path:
            lines.append(f"Its log: {self.log_path}")
        if self.run_dir is not None:
            lines.append(f"The run stopped; its folder {self.run_dir} holds what was reached.")
        return "\n".join(lines)


# By how a worker failed; of one that died, by the evidence there is.
_ADVICE = {
    "lost_peer": (
        "Likely cause: workers run different versions of Heliostat or of your modules, so that they do not make the "
        "same steps. Install the same on all machines, and run the script again."
    ),
    "raised in code": "Mend it there, and run the script again.",
    "raised": (
        "None of its frames is in your code: what a library was given may be wrong, or it is a defect of Heliostat. "
        "The worker's traceback tells: it ends the worker's log, and is this error's attribute worker_traceback."
    ),
    "out of memory": (
        "Cause: there was not enough memory for this step, again and again. Begin a new run with a larger "
        "num_microbatches, which makes microbatches smaller, or with fewer workers per machine."
    ),
    "crash": (
        "Cause: native code crashed at this step, again and again. The worker's log ends with its stack: update, or "
        "leave out, the library that it names."
    ),
    "exit": (
        "Cause: code that you run, or a library of yours, ends the process at this step (os._exit), again and again. "
        "Let it raise an exception instead."
    ),
    "": (
        "Likely cause: it was killed, by hand or by the system when memory ran out (the kernel's log tells), or native "
        "code crashed (its log ends there). Run the script again with this run_dir: it goes on from the last "
        "checkpoint."
    ),
}
