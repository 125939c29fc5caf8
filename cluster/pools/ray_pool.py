"""Workers as Ray actors: placement, start, messages, and what Ray says about deaths.

A task on a worker is one call of its actor, whose result is a stream of events (Ray's streaming generators). When an
actor dies, Ray gives up those of its events that nobody has read yet. So a thread per worker reads each event as soon
as it is there, and does nothing else: it never waits for the driver, whose disks may be slow. Another one calls
the worker for heartbeats, which tell the driver that the worker lives and the worker that there is a driver.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from ..errors import PlacementError
from ..group.messages import Evidence, Failure, Message, TaskEnded, WorkerAlive, WorkerUp
from ..group.pool import PoolStatistics, WorkerPool
from ..group.worker_process import host_name, take_mark
from ..spec import GroupSpec, WorkerInfo
from .private_api import draining_nodes
from .ray_worker import CONCURRENT_CALLS, RayWorker

HEARTBEAT_S = 1.0
JOIN_S = 2.0
LOG_TAIL_BYTES = 20_000
DRAIN_POLL_S = 1.0
_CRASH = "Fatal Python error: "  # faulthandler writes it at a signal that native code dies of


@dataclass(slots=True)
class _Worker:
    """An actor, where it runs once that is known, and where it prints."""

    actor: ActorHandle
    info: WorkerInfo | None = None
    log_path: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.info is not None and self.info.host == host_name()


class RayPool(WorkerPool):
    """Workers as actors. Ray must be connected.

    Args:
        factory: makes the hosted object, in the actor's process.
        spec: of the group, with the resources of a worker.
        loopback: whether all workers are on this machine, and shall be reachable from nowhere else.
    """

    def __init__(self, factory: Callable[[int], object], spec: GroupSpec, *, loopback: bool) -> None:
        super().__init__()
        self._factory, self._spec, self._loopback = factory, spec, loopback
        self._workers: dict[int, _Worker] = {}
        self._next = 0
        self._looked_at_s = 0.0
        self._leaving: frozenset[int] = frozenset()
        self._oom_kills = _oom_kills()
        self._threads: list[threading.Thread] = []

    def launch(self) -> int | None:
        """See `WorkerPool.launch`: Ray starts the actor once there is room."""
        spec, worker = self._spec, self._next
        self._next += 1
        options = {
            "num_cpus": spec.cpus_per_worker,
            "num_gpus": spec.gpus_per_worker or 0,
            "max_concurrency": CONCURRENT_CALLS,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        actor = ray.remote(**options)(RayWorker).remote(worker)
        self._workers[worker] = _Worker(actor)
        prepared, up = actor.prepare.remote(self._factory, spec, self._loopback), threading.Event()
        self._start(self._hear, worker, [prepared], up)
        self._start(self._beat, worker, actor, up)
        return worker

    def begin(self, worker: int, method: str, job: object, log_path: str | None) -> None:
        """See `WorkerPool.begin`."""
        if (known := self._workers.get(worker)) is not None:
            known.log_path, over = log_path, threading.Event()
            events = known.actor.run.options(num_returns="streaming").remote(method, job, log_path)
            self._start(self._hear, worker, events, over)
            self._start(self._beat, worker, known.actor, over)

    def answer(self, worker: int, number: int, reply: object) -> None:
        """See `WorkerPool.answer`."""
        if (known := self._workers.get(worker)) is not None:
            known.actor.answer.remote(number, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if (known := self._workers.get(worker)) is not None:
            known.actor.abort.remote(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`; a process that is stopped cannot carry out Ray's request, so it also gets a signal."""
        known = self._workers.pop(worker, None)
        if known is None:
            return
        take_mark(known.log_path)
        with contextlib.suppress(RayError):
            ray.kill(known.actor)
        if known.info is not None and known.is_here:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(known.info.pid, signal.SIGKILL)

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
                    found[worker] = str(ray.get(reference))
        return found

    def leaving(self) -> frozenset[int]:
        """See `WorkerPool.leaving`: Ray's notice that a node is drained, as before a pre-emption."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s > DRAIN_POLL_S:
            self._looked_at_s, nodes = now_s, draining_nodes()
            infos = (known.info for known in list(self._workers.values()))
            self._leaving = frozenset(info.worker for info in infos if info is not None and info.node in nodes)
        return self._leaving

    def room(self) -> str:
        """See `WorkerPool.room`."""
        free, total = ray.available_resources(), ray.cluster_resources()
        parts = [
            f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free"
            for name in ("CPU", "GPU")
            if total.get(name)
        ]
        gpus = f" and {self._spec.gpus_per_worker} GPU" if self._spec.gpus_per_worker else ""
        wants = f"each worker needs {self._spec.cpus_per_worker} CPU{gpus}"
        return f"In the cluster {' and '.join(parts) or 'nothing is registered'}; {wants}."

    def statistics(self) -> PoolStatistics:
        """See `WorkerPool.statistics`."""
        up = sum(known.info is not None for known in list(self._workers.values()))
        return PoolStatistics(launched=self._next, up=up)

    def close(self) -> None:
        """See `WorkerPool.close`."""
        for worker in list(self._workers):
            self.kill(worker)
        for thread in self._threads:  # they see at once that their worker is gone, and Ray may go away after this
            thread.join(JOIN_S)

    # -- threads that hear the workers ----------------------------------------------------------------------------

    def _start(self, target: Callable[..., None], worker: int, *args: object) -> None:
        name = f"heliostat-{target.__name__.strip('_')}-{worker}"
        thread = threading.Thread(target=target, args=(worker, *args), name=name, daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _hear(self, worker: int, messages: Iterable[ray.ObjectRef], over: threading.Event) -> None:
        """Read the messages of a worker, given by their references, to their end, which is noted in `over`."""
        try:
            for reference in messages:
                self._take(worker, ray.get(reference))
        except RayError as error:
            self._died(worker, error)
        finally:
            over.set()

    def _beat(self, worker: int, actor: ActorHandle, over: threading.Event) -> None:
        """Call a worker for heartbeats while it loads, or has a task; one that does not answer is not called again."""
        with contextlib.suppress(RayError):  # who reads its messages tells of its death
            while not over.wait(HEARTBEAT_S):
                heartbeat = ray.get(actor.heartbeat.remote())
                if heartbeat is not None:  # else it is between two tasks
                    self._take(worker, WorkerAlive(worker=worker, heartbeat=heartbeat))

    def _take(self, worker: int, message: Message) -> None:
        known = self._workers.get(worker)
        if known is None:  # who was ended is not heard of again
            return
        if isinstance(message, WorkerUp):
            known.info = message.info
        elif isinstance(message, TaskEnded) and known.info is None:  # it could not be set up
            self.kill(worker)
        self.inbox.put(message)

    def _died(self, worker: int, error: RayError) -> None:
        known = self._workers.pop(worker, None)
        if known is None:  # it was ended, or its death was told
            return
        reason, mark = _death(error), take_mark(known.log_path)
        evidence = self._evidence(known, reason)
        if mark.exit_status is not None:
            reason, evidence = f"its process ended itself, with exit status {mark.exit_status}", "exit"
        failure = Failure(worker=worker, kind="died", reason=reason, step=mark.step, evidence=evidence)
        with contextlib.suppress(RayError):
            ray.kill(known.actor)
        self.inbox.put(TaskEnded(worker=worker, failure=failure))

    def _evidence(self, known: _Worker, reason: str) -> Evidence:
        """Why a process died, as far as Ray, its log or the kernel's counter tell."""
        kills, before = _oom_kills(), self._oom_kills
        self._oom_kills = kills
        if "OutOfMemory" in reason or "memory monitor" in reason or (known.is_here and kills > before):
            return "out of memory"
        return "crash" if _CRASH in _tail(known.log_path) else ""


def _tail(log_path: str | None) -> str:
    """The end of a worker's log, empty where there is none."""
    try:
        with open(log_path or "", "rb") as file:
            file.seek(max(0, os.path.getsize(file.fileno()) - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _oom_kills() -> int:
    """How many processes of this container or machine the kernel has killed for want of memory; 0 if unknown."""
    try:
        with open("/sys/fs/cgroup/memory.events") as file:
            counts = dict(line.split() for line in file)
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))


def _death(error: RayError) -> str:
    """One line of Ray's account of a death."""
    text = str(error)
    for line in text.splitlines():
        if "The actor died" in line or "died because" in line or "exit type" in line.lower():
            return " ".join(line.split())
    return " ".join(text.split())[:300]


def gpus_per_worker(spec: GroupSpec) -> int:
    """GPUs that each worker gets: as asked, or an equal share of every machine's; 0 on a cluster without GPUs.

    Raises:
        PlacementError: there are GPUs, but not enough for every worker.
    """
    by_node = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    machines = [count for count in by_node if count > 0]
    if not machines:
        return 0
    workers_per_machine = -(-spec.num_workers // len(machines))
    wanted = spec.gpus_per_worker if spec.gpus_per_worker is not None else min(machines) // workers_per_machine
    needed = spec.num_to_begin
    if wanted < 1 or needed > sum(count // wanted for count in machines):
        raise PlacementError(
            f"{needed} workers with {max(wanted, 1)} GPU(s) each do not fit the cluster's machines, which "
            f"have {', '.join(map(str, machines))} GPU(s). Ask for fewer workers or fewer replicas per worker."
        )
    return wanted
