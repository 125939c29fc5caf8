"""Workers inside this process: for `workers=0`, notebooks and tests, with the same engine and real sockets."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace

from ..group.mailbox import Mailbox
from ..group.messages import Failure, Message, TaskEnded, WorkerAlive, WorkerUp
from ..group.pool import PoolStatistics, WorkerPool
from ..group.worker_process import WorkerProcess, failure_of, host_name, thread_name
from ..spec import GroupSpec, WorkerInfo

_LOOPBACK = "127.0.0.1"
HEARTBEAT_S = 0.5
JOIN_S = 5.0


class LocalPool(WorkerPool):
    """Workers as threads of this process, joined by sockets on the loopback interface.

    Args:
        factory: makes the hosted object of a slot; a slot is free again when its worker has ended.
        spec: of the group; there are slots for as many workers as there can be.
    """

    def __init__(self, factory: Callable[[int], object], spec: GroupSpec) -> None:
        super().__init__()
        self._factory, self._spec = factory, spec
        self._free = list(range(spec.most_workers))
        self._slots: dict[int, int] = {}
        self._processes: dict[int, WorkerProcess] = {}
        self._ended: list[WorkerProcess] = []
        self._lock = threading.Lock()  # between starting a worker and ending it
        self._next = 0
        self._closed = threading.Event()
        threading.Thread(target=self._beat, name="heliostat-heartbeats", daemon=True).start()

    def launch(self) -> int | None:
        """See `WorkerPool.launch`."""
        if not self._free:
            return None
        worker, self._next = self._next, self._next + 1
        self._slots[worker] = slot = self._free.pop(0)
        threading.Thread(target=self._start, args=(worker, slot), daemon=True).start()
        return worker

    def begin(self, worker: int, method: str, job: object, log_path: str | None) -> None:
        """See `WorkerPool.begin`; what a worker prints stays this process's."""
        if (process := self._processes.get(worker)) is not None:
            process.begin(method, job)

    def answer(self, worker: int, number: int, reply: object) -> None:
        """See `WorkerPool.answer`."""
        if (process := self._processes.get(worker)) is not None:
            process.answer(number, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if (process := self._processes.get(worker)) is not None:
            process.abort(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`: a thread cannot be ended from outside; it ends at its next call."""
        self._end(worker, "this worker has been replaced")

    def crash(self, worker: int) -> None:
        """See `WorkerPool.crash`: its sockets are closed and its death is told; its thread ends at its next call."""
        reason = "it was killed on purpose"
        if self._end(worker, reason):
            failure = Failure(worker=worker, kind="died", reason=reason)
            self.inbox.put(TaskEnded(worker=worker, failure=failure))

    def stacks(self, workers: Collection[int], wait_s: float) -> dict[int, str]:
        """See `WorkerPool.stacks`."""
        frames = sys._current_frames()
        threads = {each.name: each.ident for each in threading.enumerate()}
        found = {worker: frames.get(threads.get(thread_name(worker)) or 0) for worker in workers}
        return {worker: "".join(traceback.format_stack(frame)) if frame else "" for worker, frame in found.items()}

    def statistics(self) -> PoolStatistics:
        """See `WorkerPool.statistics`."""
        return PoolStatistics(launched=self._next, up=len(self._processes))

    def close(self) -> None:
        """See `WorkerPool.close`."""
        self._closed.set()
        for worker in list(self._slots):
            self.kill(worker)
        for process in self._ended:
            process.join(JOIN_S)
        self._ended.clear()

    def _start(self, worker: int, slot: int) -> None:
        def put(message: Message) -> None:
            self._put(worker, message)

        try:
            process = WorkerProcess(self._factory, self._spec, Mailbox(worker, put), slot)
            address = process.listen(_LOOPBACK)
        except BaseException as error:  # reported to the driver, which raises it
            self._end(worker, "it could not be set up")
            self.inbox.put(TaskEnded(worker=worker, failure=failure_of(error, worker, None)))
            return
        with self._lock:
            wanted = worker in self._slots
            if wanted:
                self._processes[worker] = process
        if not wanted:  # it was ended meanwhile
            process.close()
            return
        info = WorkerInfo(worker=worker, host=host_name(), pid=os.getpid())
        self.inbox.put(WorkerUp(info=info, address=address))

    def _put(self, worker: int, message: Message) -> None:
        """Take what a worker says, from its threads; who was ended is not heard of again."""
        died = isinstance(message, TaskEnded) and message.failure is not None and message.failure.kind == "died"
        if self._end(worker, "it was killed") if died else worker in self._processes:
            self.inbox.put(message)

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            looked_at = in_debugger()
            for worker, process in list(self._processes.items()):
                if (heartbeat := process.heartbeat()) is not None:  # else nobody takes messages: it is between tasks
                    if looked_at:  # who stands at a breakpoint is not late
                        heartbeat = replace(heartbeat, activity_s=0.0)
                    self.inbox.put(WorkerAlive(worker=worker, heartbeat=heartbeat))

    def _end(self, worker: int, reason: str) -> bool:
        """Free what a worker has; returns whether it was there."""
        with self._lock:
            slot, process = self._slots.pop(worker, None), self._processes.pop(worker, None)
            if slot is not None:
                self._free.append(slot)
        if process is not None:
            self._ended.append(process)
            process.close(reason)
        return process is not None


def in_debugger() -> bool:
    """Whether a thread of this process stands at a breakpoint of pdb or its kin, or an editor is attached."""
    if not {"bdb", "pydevd"} & sys.modules.keys():
        return False
    frames = (frame for top in sys._current_frames().values() for frame, _ in traceback.walk_stack(top))
    return any(frame.f_globals.get("__name__") in ("bdb", "pydevd") for frame in frames)
