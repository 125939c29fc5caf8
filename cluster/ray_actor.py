"""The Ray side of one worker: the actor that hosts it."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import cloudpickle

from .controller import Failure
from .errors import Aborted, ClusterError
from .host import Host, Hosted, Outcome, failure_of, host_name
from .spec import WorkerInfo

_POLL_S = 20.0
# A task, a poll, and now and then an answer or an abort run at a time.
CONCURRENT_CALLS = 6


class WorkerActor:
    """The Ray side of a worker: a `Host`, an outbox that the driver polls, and a log file.

    Several calls run at a time: a task, a poll, and now and then an answer or an abort.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._host: Host | None = None
        self._outbox: queue.Queue[Any] = queue.Queue()
        self._answers: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def prepare(self, factory: Callable[[int], Hosted]) -> tuple[WorkerInfo, str, Failure | None]:
        """Make the hosted object; returns where this worker is, its address in the cluster, and what went wrong."""
        info = WorkerInfo(rank=self._rank, host=host_name(), pid=os.getpid())
        try:
            self._host = Host(factory, self._rank)
        except Exception as error:  # reported to the driver, which raises it
            return info, "", _portable(failure_of(error, self._rank, None))
        return info, ray.util.get_node_ip_address(), None

    def listen(self, interface: str) -> tuple[str, int]:
        """See `Host.listen`."""
        return self._hosted().listen(interface)

    def connect(
        self, addresses: Sequence[tuple[str, int]], generation: int, secret: bytes, limits: dict[str, float]
    ) -> None:
        """See `Host.connect`."""
        self._hosted().connect(addresses, generation=generation, secret=secret, **limits)

    def log_to(self, path: str) -> None:
        """Send what this process prints to a file from now on, native libraries' output included."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)

    def run(self, method: str, job: Any, num_workers: int) -> Outcome:
        """Run a task to its end."""
        self._answers = queue.Queue()
        outcome = self._hosted().run(method, job, self, num_workers)
        sys.stdout.flush()
        sys.stderr.flush()
        if outcome.failure is None:
            return outcome
        print(outcome.failure.traceback, file=sys.stderr, flush=True)
        return Outcome(failure=_portable(outcome.failure))

    def events(self) -> list[Any]:
        """What the task told since the last poll; waits for something for a while."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outbox.get(timeout=_POLL_S))
            while True:
                found.append(self._outbox.get_nowait())
        return found

    def answer(self, reply: Any) -> None:
        """Answer the task's question."""
        self._answers.put((True, reply))

    def abort(self, reason: str) -> None:
        """Wake the task out of whatever it waits for."""
        self._hosted().abort(reason)
        self._answers.put((False, reason))

    # The channel of the running task.
    def tell(self, event: Any) -> None:
        """See `Channel.tell`."""
        self._outbox.put(event)

    def ask(self, event: Any) -> Any:
        """See `Channel.ask`."""
        self._outbox.put(event)
        answered, value = self._answers.get()
        if not answered:
            raise Aborted(rank=self._rank, generation=0, sequence=None, reason=value)
        return value

    def _hosted(self) -> Host:
        if self._host is None:
            raise ClusterError(f"worker {self._rank} was called before it was prepared")
        return self._host


def _portable(failure: Failure) -> Failure:
    """The failure as it can travel: an exception that cannot be pickled stays behind, its traceback does not."""
    try:
        cloudpickle.loads(cloudpickle.dumps(failure.error))
    except Exception:  # pickling runs user code, which may raise anything
        return replace(failure, error=None)
    return failure
