"""How a run is stopped: a wish for a pause on its way to the group's loop; a failed task as the one error users see."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import Failure
from heliostat.cluster.group.worker_process import log_path
from heliostat.cluster.spec import WorkerInfo
from heliostat.data import DatasetError

from ..errors import NonfiniteGradientError, TrainerError, TrainingFailedError
from .workers import Workers

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextlib.contextmanager
def pausing(loop: TaskLoop, max_time_s: float | None) -> Iterator[None]:
    """While the block runs, ask for a pause at Ctrl-C or SIGTERM (on the main thread) and after `max_time_s`.

    The first wish lets the run pause with a checkpoint, a second signal stops it at once. A handler of a signal and a
    timer's thread only put an event into the loop's queue, which a `SimpleQueue` allows at any moment.

    Args:
        loop: the task.
        max_time_s: seconds until the run is paused; None for never.

    Raises:
        KeyboardInterrupt: at a second signal.
    """
    asked: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        loop.pause(f"it was asked to by {_SIGNALS[signal.Signals(number)]}")

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.signal(each, on_signal) for each in _SIGNALS}
    timer = None
    if max_time_s is not None:
        timer = threading.Timer(max_time_s, loop.pause, [f"max_time_s={max_time_s:g} is over"])
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def explained(workers: Workers, run_dir: Path | None) -> Iterator[None]:
    """While the block runs a task: stop the workers if it fails, and raise the one error that users see.

    Args:
        workers: that run it.
        run_dir: the run folder, None without.

    Raises:
        TrainerError, DatasetError: the worker's own, for mistakes in arguments, data or model.
        TrainingFailedError: any other failure of the task.
    """
    try:
        yield
    except TaskFailed as failed:
        seen = dict(workers.seen)
        workers.close()
        error = explain_failure(failed, seen, run_dir)
        raise error from (None if error is failed.cause.error else failed.cause.error)
    except BaseException:
        workers.close()
        raise


def explain_failure(failed: TaskFailed, seen: Mapping[int, WorkerInfo], run_dir: Path | None) -> Exception:
    """The error to raise: the worker's own for mistakes in arguments, data or model; else `TrainingFailedError`.

    Args:
        failed: what the group's loop raised.
        seen: where workers run or ran, by number.
        run_dir: the run folder, None without.
    """
    cause = _most_telling(failed)
    error, worker = cause.error, cause.worker
    host = seen[worker].host if worker in seen else "unknown host"
    if isinstance(error, NonfiniteGradientError):
        error.run_dir = run_dir
    if isinstance(error, (TrainerError, DatasetError)):
        error.add_note(f"(found by worker {worker} on {host})")
        if cause.where:
            error.add_note(f"In your code: {cause.where}.")
        return error
    return TrainingFailedError(
        cause.kind,
        cause.reason,
        worker=worker,
        host=host,
        step=cause.step,
        where=cause.where,
        worker_frames=cause.frames,
        evidence=cause.evidence,
        worker_traceback=cause.traceback,
        log_path=_log(run_dir, worker),
        run_dir=run_dir,
    )


def _log(run_dir: Path | None, worker: int) -> str:
    """The worker's log file; empty where there is none, as for workers of this process."""
    path = None if run_dir is None else Path(log_path(str(run_dir / "logs"), worker))
    return str(path) if path is not None and path.exists() else ""


def _most_telling(failed: TaskFailed) -> Failure:
    """All workers stop alike at a gradient that is not finite; the one that computed it knows where it came from."""
    for failure in (failed.cause, *failed.others):
        if isinstance(failure.error, NonfiniteGradientError) and failure.error.microbatch is not None:
            return failure
    cause: Failure = failed.cause
    return cause
