"""Workers inside this process: for `workers=0`, notebooks and tests, with the same engine and real sockets."""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ..errors import ClusterError
from ..group.controller_state import Failure
from ..group.mailbox import Mailbox, Said
from ..group.pool import Alive, Ended, Message, Spoke, Up, WorkerPool
from ..group.worker_process import Host, Outcome, TaskLimits, failure_of, host_name, thread_name
from ..spec import WorkerInfo

_LOOPBACK = "127.0.0.1"
HEARTBEAT_S = 0.5


class WorkerKilled(BaseException):
    """Raised inside a worker of this process, ends it as a signal ends a process: nobody is told."""


class LocalPool(WorkerPool):
    """Workers as threads of this process, joined by sockets on the loopback interface.

    Args:
        factory: makes the hosted object of a slot; a slot is free again when its worker has ended.
        num_slots: how many workers there can be at a time.
    """

    def __init__(self, factory: Callable[[int], Any], num_slots: int) -> None:
        self._factory = factory
        self._free = list(range(num_slots))
        self._slots: dict[int, int] = {}
        self._hosts: dict[int, Host] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._inbox: queue.Queue[Message] = queue.Queue()
        self._lock = threading.Lock()  # between starting a worker and ending it
        self._next = 0

    def launch(self) -> int | None:
        """See `WorkerPool.launch`."""
        if not self._free:
            return None
        worker, self._next = self._next, self._next + 1
        self._slots[worker] = slot = self._free.pop(0)
        threading.Thread(target=self._start, args=(worker, slot), daemon=True).start()
        return worker

    def begin(self, worker: int, method: str, job: Any, limits: TaskLimits, log_path: str | None) -> None:
        """See `WorkerPool.begin`."""
        thread = threading.Thread(target=self._task, args=(worker, method, job, limits), daemon=True)
        self._threads[worker] = thread
        thread.start()

    def answer(self, worker: int, question: int, reply: Any) -> None:
        """See `WorkerPool.answer`."""
        if worker in self._hosts:
            self._hosts[worker].mailbox.answer(question, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if worker in self._hosts:
            self._hosts[worker].abort(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`: a thread cannot be ended from outside; it ends at its next call."""
        host = self._forget(worker)
        if host is not None:
            host.close("this worker has been replaced")

    def crash(self, worker: int) -> None:
        """See `WorkerPool.crash`: its sockets are closed and its death is told; its thread ends at its next call."""
        host = self._forget(worker)
        if host is not None:
            self._inbox.put(Ended(worker=worker, outcome=_badly(WorkerKilled("it was killed on purpose"), worker)))
            host.close("this worker was killed on purpose")

    def receive(self, wait_s: float) -> Message | None:
        """See `WorkerPool.receive`."""
        try:
            return self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return None

    def stacks(self, worker: int, wait_s: float) -> str:
        """See `WorkerPool.stacks`."""
        threads = [each for each in threading.enumerate() if each.name.startswith(f"{thread_name(worker)}_")]
        frames = sys._current_frames()
        found = [frames[each.ident] for each in threads if each.ident in frames]
        return "".join(line for frame in found for line in traceback.format_stack(frame))

    def close(self) -> None:
        """See `WorkerPool.close`."""
        for worker in list(self._slots):
            self.kill(worker)
        for thread in self._threads.values():
            thread.join(5.0)
        self._threads = {}

    def _start(self, worker: int, slot: int) -> None:
        mailbox = Mailbox(lambda said: self._inbox.put(_spoke(worker, said)))
        try:
            host = Host(self._factory, worker=worker, slot=slot, mailbox=mailbox)
            address = host.listen(_LOOPBACK)
        except BaseException as error:  # reported to the driver, which raises it
            self._forget(worker)
            self._inbox.put(Ended(worker=worker, outcome=_badly(error, worker)))
            return
        with self._lock:
            wanted = worker in self._slots
            if wanted:
                self._hosts[worker] = host
        if not wanted:  # it was ended meanwhile
            host.close()
            return
        self._inbox.put(Up(info=WorkerInfo(worker=worker, host=host_name(), pid=os.getpid()), address=address))

    def _task(self, worker: int, method: str, job: Any, limits: TaskLimits) -> None:
        host = self._hosts[worker]
        over = threading.Event()
        threading.Thread(target=self._beat, args=(worker, host, over), daemon=True).start()
        try:
            outcome = host.run(method, job, limits)
        except BaseException as error:  # sys.exit() in user code ends this thread, and the driver must hear of it
            if isinstance(error, WorkerKilled):
                self._forget(worker)
                host.close()
            outcome = _badly(error, worker)
        finally:
            over.set()
        self._inbox.put(Ended(worker=worker, outcome=outcome))

    def _beat(self, worker: int, host: Host, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_S):
            self._inbox.put(Alive(worker=worker, heartbeat=host.heartbeat()))

    def _forget(self, worker: int) -> Host | None:
        with self._lock:
            slot = self._slots.pop(worker, None)
            if slot is not None:
                self._free.append(slot)
            return self._hosts.pop(worker, None)


class DirectPool(WorkerPool):
    """One worker that computes on the calling thread, where a debugger finds it."""

    def __init__(self, factory: Callable[[int], Any]) -> None:
        self._factory = factory
        self._host: Host | None = None
        self._launched = False
        self._task: tuple[str, Any, TaskLimits] | None = None
        self._feed: Callable[[Message], None] = lambda _: None
        self._up: Up | None = None

    def launch(self) -> int | None:
        """See `WorkerPool.launch`; errors of the factory are raised here."""
        if self._launched:
            return None
        self._launched = True
        mailbox = Mailbox(lambda said: self._feed(_spoke(0, said)))
        self._host = Host(self._factory, worker=0, mailbox=mailbox, in_caller=True)
        self._up = Up(info=WorkerInfo(worker=0, host=host_name(), pid=os.getpid()), address=(_LOOPBACK, 0))
        return 0

    def begin(self, worker: int, method: str, job: Any, limits: TaskLimits, log_path: str | None) -> None:
        """See `WorkerPool.begin`."""
        self._task = method, job, limits

    def execute(self, feed: Callable[[Message], None]) -> bool:
        """See `WorkerPool.execute`."""
        if self._task is None or self._host is None:
            return False
        task, self._task, self._feed = self._task, None, feed
        feed(Ended(worker=0, outcome=self._host.run(*task)))
        return True

    def answer(self, worker: int, question: int, reply: Any) -> None:
        """See `WorkerPool.answer`."""
        if self._host is not None:
            self._host.mailbox.answer(question, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if self._host is not None:
            self._host.abort(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`: there is nothing to end but this process."""

    def crash(self, worker: int) -> None:
        """See `WorkerPool.crash`: refused."""
        raise ClusterError(
            "workers=0 computes in this process, so there is no worker that could die alone. Give workers=2 or more."
        )

    def receive(self, wait_s: float) -> Message | None:
        """See `WorkerPool.receive`."""
        up, self._up = self._up, None
        return up

    def stacks(self, worker: int, wait_s: float) -> str:
        """See `WorkerPool.stacks`."""
        return ""

    def close(self) -> None:
        """See `WorkerPool.close`."""
        if self._host is not None:
            self._host.close()
        self._host, self._launched = None, False


def _badly(error: BaseException, worker: int) -> Outcome:
    if isinstance(error, WorkerKilled):
        return Outcome(failure=Failure(worker=worker, kind="died", reason=str(error)))
    return Outcome(failure=failure_of(error, worker, None))


def _spoke(worker: int, said: Said) -> Spoke:
    return Spoke(worker=worker, question=said.question, event=said.event)
