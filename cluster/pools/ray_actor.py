"""The Ray side of one worker: the actor that hosts it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray import cloudpickle

from ..errors import ClusterError
from ..group.controller_state import Failure
from ..group.mailbox import Mailbox, Said
from ..group.messages import Heartbeat
from ..group.step_mark import StepMark, mark_path
from ..group.worker_process import Host, Outcome, TaskLimits, failure_of, host_name
from ..spec import WorkerInfo

POLL_S = 1.0
# Without a poll for so long during a task there is no driver any more: leave, and free devices and ports.
DRIVER_GONE_S = 9.0
# A task, a poll, and now and then an answer, an abort or a look at the stacks run at a time.
CONCURRENT_CALLS = 8
EXIT_WITHOUT_DRIVER = 3
END = "end of task"


class WorkerActor:
    """The Ray side of a worker: a `Host`, an outbox that the driver polls, and a log file."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._host: Host | None = None
        self._outbox: queue.Queue[Said] = queue.Queue()
        self._polled_s = time.monotonic()

    def prepare(
        self, factory: Callable[[int], Any], loopback: bool, env: dict[str, str]
    ) -> tuple[WorkerInfo, tuple[str, int], Failure | None]:
        """Make the hosted object; returns where this worker is, where it listens, and what went wrong.

        `env` is set here and not by Ray, which would start a process for it where it has one waiting already.
        """
        os.environ.update(env)
        node = ray.get_runtime_context().get_node_id()
        info = WorkerInfo(worker=self._worker, host=host_name(), pid=os.getpid(), node=node)
        mailbox = Mailbox(
            self._outbox.put, park=lambda value: [ray.put(value)], fetch=lambda handle: ray.get(handle[0])
        )
        try:
            self._host = Host(factory, worker=self._worker, mailbox=mailbox)
            address = self._host.listen("127.0.0.1" if loopback else ray.util.get_node_ip_address())
        except Exception as error:  # reported to the driver, which raises it
            return info, ("", 0), _portable(failure_of(error, self._worker, None))
        return info, address, None

    def run(self, method: str, job: Any, limits: TaskLimits, log_path: str | None) -> Outcome:
        """Run a task to its end."""
        mark: StepMark | None = None
        if log_path is not None:
            try:
                _log_to(log_path)
                mark = StepMark(mark_path(log_path))
            except OSError as error:
                reason = f"it cannot write its log {log_path}: {error.strerror}"
                return Outcome(failure=Failure(worker=self._worker, kind="raised", reason=reason))
        over = threading.Event()
        self._polled_s = time.monotonic()
        threading.Thread(target=self._watch_driver, args=(over,), daemon=True).start()
        try:
            note_step = (lambda step: None) if mark is None else mark.note
            outcome = self._hosted().run(method, job, limits, note_step)
        finally:
            over.set()
            if mark is not None:
                mark.close()
            self._outbox.put(Said(question=None, event=END))
        sys.stdout.flush()
        sys.stderr.flush()
        if outcome.failure is None:
            return outcome
        print(outcome.failure.traceback, file=sys.stderr, flush=True)
        return Outcome(failure=_portable(outcome.failure))

    def events(self) -> tuple[Heartbeat | None, list[Said]]:
        """What the task said since the last poll, and its heartbeat; waits for something for a while."""
        self._polled_s = time.monotonic()
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outbox.get(timeout=POLL_S))
            while True:
                found.append(self._outbox.get_nowait())
        self._polled_s = time.monotonic()
        return (None if self._host is None else self._host.heartbeat()), found

    def answer(self, question: int, reply: Any) -> None:
        """Answer the task's question."""
        self._hosted().mailbox.answer(question, reply)

    def abort(self, generation: int, reason: str) -> None:
        """Wake the task out of what it waits for in a generation."""
        self._hosted().abort(generation, reason)

    def stacks(self) -> str:
        """The Python stacks of the threads that compute."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return "\n".join(
            f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
            if str(names.get(ident, "")).startswith("heliostat")
        )

    def crash(self) -> None:
        """End this process at once, as a failure would."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _watch_driver(self, over: threading.Event) -> None:
        while not over.wait(1.0):
            if time.monotonic() - self._polled_s > DRIVER_GONE_S:
                print(f"worker {self._worker}: the driver is gone; leaving", file=sys.stderr, flush=True)
                os._exit(EXIT_WITHOUT_DRIVER)

    def _hosted(self) -> Host:
        if self._host is None:
            raise ClusterError(f"worker {self._worker} was called before it was prepared")
        return self._host


def _log_to(path: str) -> None:
    """Send what this process prints to a file from now on, native libraries' output and crashes included."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable(file=2)


def _portable(failure: Failure) -> Failure:
    """The failure as it can travel: an exception that cannot be pickled stays behind, its traceback does not."""
    try:
        cloudpickle.loads(cloudpickle.dumps(failure.error))
    except Exception:  # pickling runs user code, which may raise anything
        return replace(failure, error=None)
    return failure
