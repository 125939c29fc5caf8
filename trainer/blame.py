"""Turns a failed task into the one error that users see."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.cluster.controller import Failure
from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.spec import WorkerInfo
from heliostat.data import DatasetError

from .errors import TrainerError, TrainingFailedError
from .run_folder import RunFolder


def explain_failure(
    failed: TaskFailed, infos: Sequence[WorkerInfo], logs: Sequence[str], folder: RunFolder | None
) -> Exception:
    """The error to raise: the worker's own for mistakes in arguments, data or model; else `TrainingFailedError`."""
    cause: Failure = failed.cause
    error = cause.error
    host = infos[cause.rank].host if cause.rank < len(infos) else "unknown host"
    if isinstance(error, (TrainerError, DatasetError)):
        error.add_note(f"(found by worker {cause.rank} on {host})")
        if cause.where:
            error.add_note(f"In your code: {cause.where}.")
        return error
    log = logs[cause.rank] if cause.rank < len(logs) else ""
    at = "before the first step" if cause.step is None else f"at step {cause.step}"
    lines = [f"Worker {cause.rank} on {host} {_what(cause)} {at}: {cause.reason}"]
    if cause.where:
        lines.append(f"In your code: {cause.where}.")
    lines.append(_advice(cause))
    if log and cause.kind != "raised":
        lines.append(f"Its log: {log}")
    if folder is not None:
        lines.append(f"The run stopped; its folder {folder.path} holds what was reached.")
    return TrainingFailedError(
        "\n".join(lines),
        rank=cause.rank,
        host=host,
        step=cause.step,
        cause=cause.reason,
        worker_traceback=cause.traceback,
        log_path=log,
    )


def _what(cause: Failure) -> str:
    return {"died": "died", "raised": "raised an error", "lost_peer": "lost another worker"}[cause.kind]


def _advice(cause: Failure) -> str:
    if cause.kind == "died":
        return (
            "Likely cause: it was killed, by hand or by the system when memory ran out (the kernel's log tells), or "
            "native code crashed (its log ends there). Run again; if memory was the cause, with a larger "
            "num_microbatches, which makes microbatches smaller."
        )
    if cause.kind == "lost_peer":
        return (
            "Likely cause: a worker hangs, or the network between two of them broke. A larger deadline_s waits longer."
        )
    return "The worker's traceback is in the error's attribute worker_traceback, and the exception is its __cause__."
