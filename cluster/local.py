"""A worker group inside this process: for `workers=0`, notebooks and tests, with the same engine and real sockets."""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import Aborted, TaskFailed
from .group import Ended, Handler, Message, MessageLoop, Spoke, WorkerGroup
from .host import Host, Hosted, Outcome, failure_of, host_name
from .spec import GroupSpec, WorkerInfo

_LOOPBACK = "127.0.0.1"


class LocalGroup(WorkerGroup):
    """Workers in this process: one runs in the calling thread, several in threads joined by sockets.

    Args:
        factory: makes the hosted object of a rank.
        spec: size and limits; its resources mean nothing here.
    """

    def __init__(self, factory: Callable[[int], Hosted], spec: GroupSpec) -> None:
        self._factory, self._spec = factory, spec
        self.num_workers, self.generation = spec.num_workers, 0
        self._hosts: list[Host] = []

    def start(self) -> list[WorkerInfo]:
        """See `WorkerGroup.start`."""
        alone = self.num_workers == 1
        for rank in range(self.num_workers):
            self._hosts.append(Host(self._factory, rank, in_caller=alone))
        addresses = [host.listen(_LOOPBACK) for host in self._hosts] if not alone else [(_LOOPBACK, 0)]
        secret = secrets.token_bytes(32)
        limits = {"timeout_s": self._spec.start_timeout_s, "deadline_s": self._spec.deadline_s}
        with ThreadPoolExecutor(self.num_workers) as pool:
            joining = [
                pool.submit(host.connect, addresses, generation=self.generation, secret=secret, **limits)
                for host in self._hosts
            ]
        for joined in joining:
            joined.result()
        return [WorkerInfo(rank=rank, host=host_name(), pid=os.getpid()) for rank in range(self.num_workers)]

    def run(self, method: str, jobs: Sequence[Any], handler: Handler) -> list[Any]:
        """See `WorkerGroup.run`."""
        if self.num_workers == 1:
            outcome = self._hosts[0].run(method, jobs[0], _DirectChannel(handler), 1)
            if outcome.failure is not None:
                raise TaskFailed(outcome.failure)
            return [outcome.result]
        return self._run_threads(method, jobs, handler)

    def _run_threads(self, method: str, jobs: Sequence[Any], handler: Handler) -> list[Any]:
        inbox: queue.Queue[Message] = queue.Queue()
        channels = [_QueueChannel(rank, inbox) for rank in range(self.num_workers)]

        def task(rank: int) -> None:
            try:
                outcome = self._hosts[rank].run(method, jobs[rank], channels[rank], self.num_workers)
            except BaseException as error:  # sys.exit() in user code ends this thread, and the driver must hear of it
                outcome = Outcome(failure=failure_of(error, rank, None))
            inbox.put(Ended(rank=rank, outcome=outcome))

        def abort(rank: int, reason: str) -> None:
            self._hosts[rank].abort(reason)
            channels[rank].abort(reason)

        threads = [threading.Thread(target=task, args=(rank,), daemon=True) for rank in range(self.num_workers)]
        for thread in threads:
            thread.start()
        loop = MessageLoop(
            generation=self.generation,
            num_workers=self.num_workers,
            settle_s=self._spec.settle_s,
            receive=lambda wait_s: inbox.get(timeout=wait_s),
            answer=lambda rank, reply: channels[rank].answer(reply),
            abort=abort,
        )
        try:
            return loop.run(handler)
        except BaseException:
            for rank in range(self.num_workers):
                abort(rank, "the driver stopped")
            raise
        finally:
            for rank in range(self.num_workers):
                channels[rank].abort("the task is over")
            for thread in threads:
                thread.join(self._spec.settle_s)

    def close(self) -> None:
        """See `WorkerGroup.close`."""
        for host in self._hosts:
            host.close()
        self._hosts = []


class _DirectChannel:
    """Calls the driver's handler in place: worker and driver share a thread."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def tell(self, event: Any) -> None:
        self._handler(0, event)

    def ask(self, event: Any) -> Any:
        return self._handler(0, event)[0]


class _QueueChannel:
    """Talks to the driver's thread through queues; an abort ends a wait for an answer."""

    def __init__(self, rank: int, inbox: queue.Queue[Message]) -> None:
        self._rank, self._inbox = rank, inbox
        self._answers: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def tell(self, event: Any) -> None:
        self._inbox.put(Spoke(rank=self._rank, event=event))

    def ask(self, event: Any) -> Any:
        self.tell(event)
        answered, value = self._answers.get()
        if not answered:
            raise Aborted(rank=self._rank, generation=0, sequence=None, reason=value)
        return value

    def answer(self, reply: Any) -> None:
        self._answers.put((True, reply))

    def abort(self, reason: str) -> None:
        self._answers.put((False, reason))
