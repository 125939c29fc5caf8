"""Workers as Ray actors: placement, start, messages, and what Ray says about deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from ..errors import PlacementError
from ..group.controller_state import Evidence, Failure
from ..group.mailbox import Said
from ..group.pool import Alive, Ended, Message, Spoke, Up, WorkerPool
from ..group.step_mark import take_mark
from ..group.worker_process import Outcome, TaskLimits, host_name
from ..spec import GroupSpec, WorkerInfo
from .private_api import draining_nodes
from .ray_actor import CONCURRENT_CALLS, END, WorkerActor

LOG_TAIL_BYTES = 20_000
DRAIN_POLL_S = 1.0
_CRASHES = ("Fatal Python error: Segmentation fault", "Fatal Python error: Aborted", "Fatal Python error: Bus error")


class RayPool(WorkerPool):
    """Workers as actors. Ray must be connected.

    Args:
        factory: makes the hosted object, in the actor's process.
        spec: resources of a worker.
        loopback: whether all workers are on this machine, and shall be reachable from nowhere else.
    """

    def __init__(self, factory: Callable[[int], Any], spec: GroupSpec, *, loopback: bool) -> None:
        self._factory, self._spec, self._loopback = factory, spec, loopback
        self._actors: dict[int, Any] = {}
        self._infos: dict[int, WorkerInfo] = {}
        self._log_paths: dict[int, str | None] = {}
        self._preparing: dict[Any, int] = {}
        self._tasks: dict[Any, int] = {}
        self._polls: dict[Any, int] = {}
        self._at_end: set[int] = set()
        self._messages: deque[Message] = deque()
        self._next = 0
        self._looked_at_s = 0.0
        self._leaving: frozenset[int] = frozenset()
        self._oom_kills = _oom_kills()

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
        self._actors[worker] = ray.remote(**options)(WorkerActor).remote(worker)
        self._preparing[self._actors[worker].prepare.remote(self._factory, self._loopback, spec.env)] = worker
        return worker

    def begin(self, worker: int, method: str, job: Any, limits: TaskLimits, log_path: str | None) -> None:
        """See `WorkerPool.begin`."""
        actor = self._actors[worker]
        self._log_paths[worker] = log_path
        self._tasks[actor.run.remote(method, job, limits, log_path)] = worker
        if worker not in self._polls.values():
            self._polls[actor.events.remote()] = worker

    def answer(self, worker: int, question: int, reply: Any) -> None:
        """See `WorkerPool.answer`."""
        if worker in self._actors:
            self._actors[worker].answer.remote(question, reply)

    def abort(self, worker: int, generation: int, reason: str) -> None:
        """See `WorkerPool.abort`."""
        if worker in self._actors:
            self._actors[worker].abort.remote(generation, reason)

    def kill(self, worker: int) -> None:
        """See `WorkerPool.kill`; a process that is stopped cannot carry out Ray's request, so it also gets a signal."""
        actor = self._actors.pop(worker, None)
        log_path = self._log_paths.pop(worker, None)
        if log_path is not None:
            take_mark(log_path)
        for futures in (self._preparing, self._tasks, self._polls):
            for future in [future for future, of in futures.items() if of == worker]:
                del futures[future]
        if actor is None:
            return
        with contextlib.suppress(RayError):
            ray.kill(actor)
        info = self._infos.get(worker)
        if info is not None and info.host == host_name():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(info.pid, signal.SIGKILL)

    def crash(self, worker: int) -> None:
        """See `WorkerPool.crash`: the process sends itself SIGKILL, so it may be on any machine."""
        actor = self._actors.get(worker)
        if actor is not None:
            actor.crash.remote()

    def receive(self, wait_s: float) -> Message | None:
        """See `WorkerPool.receive`."""
        if not self._messages:
            pending = [*self._tasks, *self._polls, *self._preparing]
            if not pending:
                time.sleep(wait_s)
                return None
            ready, _ = ray.wait(pending, num_returns=1, timeout=wait_s)
            for future in ready:
                self._take(future)
        return self._messages.popleft() if self._messages else None

    def stacks(self, worker: int, wait_s: float) -> str:
        """See `WorkerPool.stacks`."""
        try:
            return str(ray.get(self._actors[worker].stacks.remote(), timeout=wait_s))
        except (KeyError, GetTimeoutError, RayError):
            return "(it does not answer)"

    def leaving(self) -> frozenset[int]:
        """See `WorkerPool.leaving`: Ray's notice that a node is drained, as before a pre-emption."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s > DRAIN_POLL_S:
            self._looked_at_s = now_s
            nodes = draining_nodes()
            self._leaving = frozenset(w for w, info in self._infos.items() if info.node in nodes and w in self._actors)
        return self._leaving

    def close(self) -> None:
        """See `WorkerPool.close`."""
        for worker in list(self._actors):
            self.kill(worker)

    def _take(self, future: Any) -> None:
        if future in self._preparing:
            self._take_prepared(self._preparing.pop(future), future)
        elif future in self._polls:
            worker = self._polls.pop(future)
            try:
                heartbeat, said = ray.get(future)
            except RayError:
                return  # its task's future tells how it died
            self._messages.append(Alive(worker=worker, heartbeat=heartbeat))
            self._hear(worker, said)
            if worker in self._tasks.values():
                self._polls[self._actors[worker].events.remote()] = worker
        else:
            worker = self._tasks.pop(future)
            try:
                outcome = ray.get(future)
            except RayError as error:
                self._died(worker, error)
            else:
                self._drain(worker)
                self._messages.append(Ended(worker=worker, outcome=outcome))

    def _take_prepared(self, worker: int, future: Any) -> None:
        try:
            info, address, failure = ray.get(future)
        except RayError as error:
            self._died(worker, error)
            return
        if failure is not None:
            self.kill(worker)
            self._messages.append(Ended(worker=worker, outcome=Outcome(failure=failure)))
            return
        self._infos[worker] = info
        self._messages.append(Up(info=info, address=address))

    def _died(self, worker: int, error: RayError) -> None:
        reason = _death(error)
        path = self._log_paths.get(worker)
        step = None if path is None else take_mark(path)
        evidence = self._evidence(worker, reason)
        failure = Failure(worker=worker, kind="died", reason=reason, step=step, evidence=evidence)
        self.kill(worker)
        self._messages.append(Ended(worker=worker, outcome=Outcome(failure=failure)))

    def _hear(self, worker: int, said: list[Said]) -> None:
        for each in said:
            if each.event == END:
                self._at_end.add(worker)
            else:
                self._messages.append(Spoke(worker=worker, question=each.question, event=each.event))

    def _drain(self, worker: int) -> None:
        """What a worker said before its task ended must be heard before the end."""
        with contextlib.suppress(RayError):
            while worker not in self._at_end:
                polls = [future for future, of in self._polls.items() if of == worker]
                future = polls[0] if polls else self._actors[worker].events.remote()
                self._polls.pop(future, None)
                self._hear(worker, ray.get(future)[1])
        self._at_end.discard(worker)

    def _evidence(self, worker: int, reason: str) -> Evidence:
        """Why a process died, as far as Ray, its log or the kernel's counter tell."""
        kills, before = _oom_kills(), self._oom_kills
        self._oom_kills = kills
        info = self._infos.get(worker)
        if (
            "OutOfMemory" in reason
            or "memory monitor" in reason
            or (info and info.host == host_name() and kills > before)
        ):
            return "out of memory"
        path = self._log_paths.get(worker)
        if path is None:
            return ""
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - LOG_TAIL_BYTES))
                tail = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "crash" if any(crash in tail for crash in _CRASHES) else ""


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
    needed = spec.min_workers or spec.num_workers
    if wanted < 1 or needed > sum(count // wanted for count in machines):
        raise PlacementError(
            f"{needed} workers with {max(wanted, 1)} GPU(s) each do not fit the cluster's machines, which "
            f"have {', '.join(map(str, machines))} GPU(s). Ask for fewer workers or fewer replicas per worker."
        )
    return wanted


def room(spec: GroupSpec) -> str:
    """What the cluster has free, and what a worker needs, in a sentence."""
    free, total = ray.available_resources(), ray.cluster_resources()
    parts = [
        f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free"
        for name in ("CPU", "GPU")
        if total.get(name)
    ]
    gpus = f" and {spec.gpus_per_worker} GPU" if spec.gpus_per_worker else ""
    wants = f"each worker needs {spec.cpus_per_worker} CPU{gpus}"
    return f"In the cluster {' and '.join(parts) or 'nothing is registered'}; {wants}."
