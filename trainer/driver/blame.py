"""Turns a failed task into the one error that users see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.group.messages import Failure
from heliostat.cluster.spec import WorkerInfo
from heliostat.data import DatasetError

from ..errors import NonfiniteGradientError, TrainerError, TrainingFailedError
from .run_folder import RunFolder


def explain_failure(
    failed: TaskFailed,
    infos: Mapping[int, WorkerInfo],
    log_path: Callable[[int], str] | None,
    folder: RunFolder | None,
) -> Exception:
    """The error to raise: the worker's own for mistakes in arguments, data or model; else `TrainingFailedError`."""
    cause = _most_telling(failed)
    error, worker = cause.error, cause.worker
    host = infos[worker].host if worker in infos else "unknown host"
    if isinstance(error, (TrainerError, DatasetError)):
        error.add_note(f"(found by worker {worker} on {host})")
        if cause.where:
            error.add_note(f"In your code: {cause.where}.")
        return error
    log = log_path(worker) if log_path is not None and worker >= 0 else ""
    at = "before the first step" if cause.step is None else f"at step {cause.step}"
    lines = [f"Worker {worker} on {host} {_what(cause)} {at}: {cause.reason}"]
    if cause.where:
        lines.append(f"In your code: {cause.where}.")
    lines.append(_advice(cause))
    if log and cause.kind != "raised":
        lines.append(f"Its log: {log}")
    if folder is not None:
        lines.append(f"The run stopped; its folder {folder.path} holds what was reached.")
    return TrainingFailedError(
        "\n".join(lines),
        worker=worker,
        host=host,
        step=cause.step,
        cause=cause.reason,
        worker_traceback=cause.traceback,
        log_path=log,
    )


def _most_telling(failed: TaskFailed) -> Failure:
    """All workers stop alike at a gradient that is not finite; the one that computed it knows where it came from."""
    for failure in (failed.cause, *failed.others):
        if isinstance(failure.error, NonfiniteGradientError) and failure.error.microbatch is not None:
            return failure
    cause: Failure = failed.cause
    return cause


def _what(cause: Failure) -> str:
    return {"died": "died", "raised": "raised an error", "lost_peer": "lost another worker"}[cause.kind]


def _advice(cause: Failure) -> str:
    if cause.kind == "lost_peer":
        return "Likely cause: workers run different versions of Heliostat, or different models."
    if cause.kind == "raised":
        return (
            "The worker's traceback is in the error's attribute worker_traceback, and the exception is its __cause__."
        )
    if cause.evidence == "out of memory":
        return (
            "Cause: there was not enough memory for this step, again and again. Begin a new run with a larger "
            "num_microbatches, which makes microbatches smaller, or with fewer workers per machine."
        )
    if cause.evidence == "crash":
        return "Cause: native code crashed at this step, again and again; the worker's log ends with its stack."
    return (
        "Likely cause: it was killed, by hand or by the system when memory ran out (the kernel's log tells), or "
        "native code crashed (its log ends there)."
    )
