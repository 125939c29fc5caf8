"""Workers as Ray actors: placement, start, messages, and what Ray says about deaths.

A task on a worker is one call of its actor, whose result is a stream of events (Ray's streaming generators). When an
actor dies, Ray gives up those of its events that nobody has read yet. So a thread per worker reads each event as soon
as it is there, and does nothing else: it never waits for the driver, whose disks may be slow. Another one calls
the worker for heartbeats while it loads or has a task, which tell the driver that the worker lives and the worker that
there is a driver. Neither waits for anything without looking every second whether its worker is still wanted.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from ..errors import PlacementError, PreflightError
from ..group.messages import Failure, Message, TaskEnded, Wish, WorkerAlive, WorkerUp
from ..group.pool import PoolStatistics, WorkerPool
from ..preflight import Wanted
from ..spec import GroupSpec
from .arrival import Arrivals, import_failure, refusal_of, without_answer
from .keepers import Keepers
from .private_api import dead_process, draining_nodes, started_here
from .ray_actor import FETCH_S, LOOK_S, ActorOfWorker
from .ray_death import Absence, evidence_of, reason_of
from .ray_holders import held_by
from .ray_placement import Placement
from .ray_room import ANSWER_S, check_room, machines, room_line, within
from .ray_worker import CONCURRENT_CALLS, RayWorker

HEARTBEAT_S = 1.0
LEAVE_S = 3.0
JOIN_S = LEAVE_S + 2.0
DRAIN_POLL_S = 1.0


class RayPool(WorkerPool):
    """Workers as actors. Ray must be connected.

    Args:
        factory: makes the hosted object, in the actor's process.
        spec: of the group, with the resources of a worker.
        loopback: whether Ray is this process's own and all workers on this machine: then they are reachable from
            nowhere else, and hold no cores, so that every trainer of the process finds room.
        wanted: what the machines of workers must have as the driver's has it; None where they are the driver's.
        reserved: so many workers get room together or not at all; None for those that a task begins with.
    """

    def __init__(
        self,
        factory: Callable[[int], object],
        spec: GroupSpec,
        *,
        loopback: bool,
        wanted: Wanted | None = None,
        reserved: int | None = None,
    ) -> None:
        super().__init__()
        self._arrivals = None if wanted is None else Arrivals(wanted)
        self._factory, self._spec, self._loopback = ray.put(factory), spec, loopback  # it may be large
        self._wants = {"CPU": 0 if loopback else spec.cpus_per_worker, "GPU": spec.gpus_per_worker or 0}
        self._keepers = Keepers(ray.get_runtime_context().get_node_id())
        self._placement = Placement(self._wants, spec.num_to_begin if reserved is None else reserved)
        self._workers: dict[int, ActorOfWorker] = {}
        self._next = 0
        self._looked_at_s = self._checked_s = 0.0
        self._leaving: frozenset[int] = frozenset()
        self._leaving_nodes: frozenset[str] = frozenset()
        self._looking: threading.Thread | None = None
        self._absence = Absence()
        self._threads: list[threading.Thread] = []
        self._threads_lock = threading.Lock()

    def launch(self) -> int | None:
        """See `WorkerPool.launch`: Ray starts the actor once there is room; see `Placement`."""
        if not self._next:
            atexit.register(self.close)  # before Ray's own, which ends workers without asking, and says that they died
        worker = self._next
        placed = self._placement.options(worker, self._leaving_nodes)
        if placed is None:
            return None
        self._next += 1
        options = {"max_concurrency": CONCURRENT_CALLS, "max_restarts": 0, **placed}
        known = self._workers[worker] = ActorOfWorker(ray.remote(**options)(RayWorker).remote(worker))
        self._listen(worker, known, self._prepared(worker, known))
        return worker

    def begin(self, worker: int, method: str, job: object, log_path: str | None) -> None:
        """See `WorkerPool.begin`."""
        if (known := self._workers.get(worker)) is not None:
            known.log_path = log_path
            if known.info is not None and log_path is not None:
                self._keepers.follow(known.info, log_path, self.disk)
            events = known.actor.run.options(num_returns="streaming").remote(method, job, log_path, self.disk)
            self._listen(worker, known, known.references(events))

    def answer(self, worker: int, number: int, reply: object) -> None:
        """See `WorkerPool.answer`."""
        if (known := self._workers.get(worker)) is not None:
            known.actor.answer.remote(number, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if (known := self._workers.get(worker)) is not None:
            known.actor.abort.remote(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`."""
        if (known := self._drop(worker)) is not None:
            self._start(self._end, worker, known)

    def crash(self, worker: int) -> None:
        """See `WorkerPool.crash`: the process sends itself SIGKILL, so it may be on any machine."""
        if (known := self._workers.get(worker)) is not None:
            known.actor.crash.remote()

    def stacks(self, workers: Collection[int], wait_s: float) -> dict[int, str]:
        """See `WorkerPool.stacks`."""
        asked = {each: self._workers[each].actor.stacks.remote() for each in workers if each in self._workers}
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=wait_s) if asked else ([], [])
        found = dict.fromkeys(workers, "(it does not answer)")
        for worker, reference in asked.items():
            if reference in ready:
                with contextlib.suppress(RayError):
                    found[worker] = str(ray.get(reference, timeout=wait_s))
        return found

    def leaving(self) -> frozenset[int]:
        """See `WorkerPool.leaving`: Ray's notice that a node is drained, as before a pre-emption."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s > DRAIN_POLL_S and (self._looking is None or not self._looking.is_alive()):
            self._looked_at_s = now_s  # Ray is asked aside, for its head may be slow to answer, or gone
            self._looking = threading.Thread(target=self._look_for_leaving, name="heliostat-draining", daemon=True)
            self._looking.start()
        return self._leaving

    def _look_for_leaving(self) -> None:
        with contextlib.suppress(RayError):
            nodes = self._leaving_nodes = frozenset(draining_nodes())
            infos = (known.info for known in list(self._workers.values()))
            self._leaving = frozenset(info.worker for info in infos if info is not None and info.node in nodes)

    def room(self) -> str:
        """See `WorkerPool.room`."""
        waiting = {worker: known for worker, known in list(self._workers.items()) if not known.is_up}
        placed = self._placement.placed(waiting) | {each for each, known in waiting.items() if known.info is not None}
        return self._room(len(waiting), len(placed))

    def _room(self, waiting: int, placed: int) -> str:
        """What so many workers that are not up lack, and who holds it; so many of them have a place."""
        wanted, group = self._placement.wants, self._placement.group_id
        if placed >= waiting or not wanted:
            return room_line(waiting, waiting, wanted, {}, {})
        found = within(lambda: (ray.available_resources(), ray.cluster_resources(), held_by(wanted, group)), ANSWER_S)
        if found is None:
            return f"The head of the Ray cluster has not answered for {ANSWER_S:g} s."
        free, total, holders = found
        return f"{room_line(waiting, placed, wanted, free, total)} {holders}".rstrip()

    def check_room(self) -> str:
        """What to say, before workers are launched, of a cluster that has no room for all of them; empty if it has.

        Raises:
            PlacementError: there will never be room for those that a task begins with.
        """
        if (short := check_room(self._spec, self._wants, machines(), may_grow=not started_here())) or self._loopback:
            return short
        free, num = within(ray.available_resources, ANSWER_S), self._spec.num_workers
        taken = free is None or any(num * amount > free.get(name, 0) for name, amount in self._wants.items())
        return f"there is no room for all workers yet: {self._room(num, 0)}" if taken else ""

    def receive(self, wait_s: float) -> Message | Wish | None:
        """See `WorkerPool.receive`."""
        now_s = time.monotonic()
        if now_s - self._checked_s > LOOK_S:
            self._checked_s = now_s
            if dead := dead_process():
                raise PlacementError.ray_is_gone(dead)
            if not ray.is_initialized():
                raise PlacementError(
                    "This process is not connected to Ray any more, so its workers are gone: somebody has called "
                    "ray.shutdown(). The next call of the trainer connects again."
                )
        return super().receive(wait_s)

    def statistics(self) -> PoolStatistics:
        """See `WorkerPool.statistics`."""
        up = sum(known.is_up for known in list(self._workers.values()))
        return PoolStatistics(launched=self._next, up=up)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        atexit.unregister(self.close)
        for worker in list(self._workers):
            self.kill(worker)
        until_s = time.monotonic() + JOIN_S
        looking = [] if self._looking is None else [self._looking]
        for thread in [*self._threads, *looking]:  # when they have ended, so have the workers, and Ray may go away
            thread.join(max(0.0, until_s - time.monotonic()))
        self._keepers.close()
        self._placement.close()
        if self.disk is not None:
            self.disk.unmark()  # also where the program ends without closing its trainer

    # -- threads that hear the workers, and end them --------------------------------------------------------------

    def _start(self, target: Callable[..., None], worker: int, *args: object) -> None:
        name = f"heliostat-{target.__name__.strip('_')}-{worker}"
        thread = threading.Thread(target=target, args=(worker, *args), name=name, daemon=True)
        with self._threads_lock:  # several threads start others
            thread.start()
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]

    def _listen(self, worker: int, known: ActorOfWorker, messages: Iterator[ObjectRef]) -> None:
        over = threading.Event()
        self._absence.begin()
        self._start(self._hear, worker, known, messages, over)
        self._start(self._beat, worker, known, over)

    def _hear(self, worker: int, known: ActorOfWorker, messages: Iterator[ObjectRef], over: threading.Event) -> None:
        """Read the messages of a worker, given by their references, to their end, which is noted in `over`."""
        try:
            for reference in messages:
                if not known.has(reference):
                    return
                self._take(worker, ray.get(reference, timeout=FETCH_S))
        except RayError as error:
            self._died(worker, error)
        finally:
            over.set()

    def _prepared(self, worker: int, known: ActorOfWorker) -> Iterator[ObjectRef]:
        """The reference of a worker's answer that it is up, once its machine is known to do."""
        if self._arrivals is not None:
            try:
                complaints = self._arrivals.complaints_of(worker, known.actor, known.answer)
            except RayTaskError as error:
                complaints = without_answer(worker, error)
            if complaints:
                self._refuse(worker, PreflightError(complaints))
            if known.ended.is_set():  # perhaps before its door was known
                self._arrivals.forget(worker)
        if not known.ended.is_set():
            yield known.actor.prepare.remote(self._factory, self._spec, self._loopback)

    def _refuse(self, worker: int, error: PreflightError) -> None:
        """End a worker whose machine will not do."""
        self.kill(worker)
        self.inbox.put(TaskEnded(worker=worker, failure=refusal_of(worker, error)))

    def _beat(self, worker: int, known: ActorOfWorker, over: threading.Event) -> None:
        """Call a worker for heartbeats until that is over; one that does not answer is not called again."""
        with contextlib.suppress(RayError):  # who reads its messages tells of its death
            while not over.wait(HEARTBEAT_S) and ray.is_initialized():
                called = known.actor.heartbeat.remote()
                if known.has(called, self._absence.tick):
                    info, heartbeat = ray.get(called, timeout=FETCH_S)
                    known.info = known.info or info
                    self._keepers.watch(info)
                    if heartbeat is not None:  # else nobody takes messages: it is between tasks
                        self._take(worker, WorkerAlive(worker=worker, heartbeat=heartbeat, info=info))

    def _end(self, worker: int, known: ActorOfWorker) -> None:
        """End a worker by Ray, which then does not call it a death; and by a signal if it stays.

        This reads the run folder, whose disk may be slow.
        """
        if ray.is_initialized():  # else Ray would start anew to answer that
            with contextlib.suppress(RayError):
                ray.kill(known.actor)
        if known.info is not None:
            self._keepers.end(known.info, known.log_path, self.disk, LEAVE_S)

    def _take(self, worker: int, message: Message) -> None:
        known = self._workers.get(worker)
        if known is None:  # who was ended is not heard of again
            return
        if isinstance(message, WorkerUp):
            known.info, known.is_up = message.info, True
            self._keepers.watch(message.info)
        elif isinstance(message, TaskEnded) and (not known.is_up or _is_death(message)):
            self.kill(worker)  # it could not be set up, or ends itself
        elif isinstance(message, TaskEnded):
            self._keepers.shipped(known.info, known.log_path)
        self.inbox.put(message)

    def _drop(self, worker: int) -> ActorOfWorker | None:
        """Forget a worker; None if that has happened before."""
        known = self._workers.pop(worker, None)
        if known is not None:
            known.ended.set()
            if self._arrivals is not None:
                self._arrivals.forget(worker)
            self._placement.left(worker, "" if known.info is None else known.info.node)
        return known

    def _died(self, worker: int, error: RayError) -> None:
        known = self._drop(worker)
        if known is None:  # it was ended, or its death was told
            return
        if (unfit := import_failure(worker, error)) is not None:
            self.inbox.put(TaskEnded(worker=worker, failure=refusal_of(worker, unfit)))
            return
        absent_s, remains = self._absence.last_s(), self._keepers.remains_of(known.info, known.log_path, self.disk)
        failure = Failure(
            worker=worker,
            kind="died",
            reason=reason_of(error, absent_s, remains),
            step=None if remains is None else remains.step,
            evidence=evidence_of(error, remains),
        )
        self._start(self._end, worker, known)  # if only Ray thinks that it died
        self.inbox.put(TaskEnded(worker=worker, failure=failure))


def _is_death(ended: TaskEnded) -> bool:
    return ended.failure is not None and ended.failure.kind == "died"
