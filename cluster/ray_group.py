"""A worker group of Ray actors: placement, start, messages, and what Ray says about deaths."""

from __future__ import annotations

import contextlib
import queue
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from .controller import Failure
from .errors import PlacementError, TaskFailed
from .group import Ended, Handler, Message, MessageLoop, Spoke, WorkerGroup
from .host import Hosted, Outcome
from .ray_actor import CONCURRENT_CALLS, WorkerActor
from .spec import GroupSpec, WorkerInfo

_LOOPBACK = "127.0.0.1"
_END = "end of task"


class RayGroup(WorkerGroup):
    """Workers as Ray actors. Ray must be connected.

    Args:
        factory: makes the hosted object of a rank, in the actor's process.
        spec: size, resources and limits.
        say: told what is being waited for.
    """

    def __init__(self, factory: Callable[[int], Hosted], spec: GroupSpec, say: Callable[[str], None]) -> None:
        self._factory, self._spec, self._say = factory, spec, say
        self.num_workers, self.generation = spec.num_workers, 0
        self._actors: list[Any] = []
        self.infos: list[WorkerInfo] = []

    def start(self) -> list[WorkerInfo]:
        """See `WorkerGroup.start`."""
        spec = self._spec
        options = {
            "num_cpus": spec.cpus_per_worker,
            "num_gpus": spec.gpus_per_worker or 0,
            "max_concurrency": CONCURRENT_CALLS,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": spec.env},
        }
        actor = ray.remote(**options)(WorkerActor)
        self._actors = [actor.remote(rank) for rank in range(self.num_workers)]
        prepared = self._gather([each.prepare.remote(self._factory) for each in self._actors], "start")
        for _, _, failure in prepared:
            if failure is not None:
                if failure.error is not None:
                    failure.error.add_note(f"(while worker {failure.rank} was being set up)")
                    raise failure.error
                raise PlacementError(
                    f"worker {failure.rank} could not be set up: {failure.reason}\n{failure.traceback}"
                )
        self.infos = [info for info, _, _ in prepared]
        self._connect([address for _, address, _ in prepared])
        return self.infos

    def log_to(self, paths: Sequence[str]) -> None:
        """Send the output of each worker's process to a file on its own machine.

        Raises:
            TaskFailed: a worker died since its last task, or cannot write there.
        """
        writing = [actor.log_to.remote(path) for actor, path in zip(self._actors, paths, strict=True)]
        for rank, reference in enumerate(writing):
            try:
                ray.get(reference, timeout=self._spec.deadline_s)
            except RayActorError as error:
                raise TaskFailed(Failure(rank=rank, kind="died", reason=_death(error))) from error
            except RayTaskError as error:
                reason = f"it cannot write its log {paths[rank]}: {error.cause}"
                raise TaskFailed(Failure(rank=rank, kind="raised", reason=reason)) from error

    def run(self, method: str, jobs: Sequence[Any], handler: Handler) -> list[Any]:
        """See `WorkerGroup.run`."""
        inbox = _Inbox(self._actors)
        inbox.begin(
            [actor.run.remote(method, job, self.num_workers) for actor, job in zip(self._actors, jobs, strict=True)]
        )
        loop = MessageLoop(
            generation=self.generation,
            num_workers=self.num_workers,
            settle_s=self._spec.settle_s,
            receive=inbox.receive,
            answer=lambda rank, reply: self._actors[rank].answer.remote(reply),
            abort=lambda rank, reason: self._actors[rank].abort.remote(reason),
        )
        return loop.run(handler)

    def close(self) -> None:
        """See `WorkerGroup.close`."""
        for actor in self._actors:
            with contextlib.suppress(RayError):
                ray.kill(actor)
        self._actors = []

    def _connect(self, nodes: list[str]) -> None:
        if self.num_workers == 1:
            addresses = [(_LOOPBACK, 0)]
        else:
            same_machine = len(set(nodes)) == 1
            listening = [
                actor.listen.remote(_LOOPBACK if same_machine else node)
                for actor, node in zip(self._actors, nodes, strict=True)
            ]
            addresses = self._gather(listening, "open their listeners")
        secret = secrets.token_bytes(32)
        limits = {"timeout_s": self._spec.start_timeout_s, "deadline_s": self._spec.deadline_s}
        joining = [actor.connect.remote(addresses, self.generation, secret, limits) for actor in self._actors]
        self._gather(joining, "connect with one another")

    def _gather(self, references: list[Any], what: str) -> list[Any]:
        """The results of one call on all workers; says what is waited for, gives up at the start timeout."""
        began = time.monotonic()
        waiting, said_at = list(references), began
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
            for reference in ready:
                _result(reference, references.index(reference), what)
            now = time.monotonic()
            if not waiting:
                break
            if now - began > self._spec.start_timeout_s:
                raise PlacementError(
                    f"{len(waiting)} of {len(references)} workers did not {what} within "
                    f"{self._spec.start_timeout_s:g} s. {_room(self._spec)} Ask for fewer workers, or add "
                    "machines to the cluster."
                )
            if now - said_at > 8.0:
                said_at = now
                self._say(f"waiting for {len(waiting)} of {len(references)} workers to {what}. {_room(self._spec)}")
        return list(ray.get(references))


class _Inbox:
    """Turns Ray's futures of a running task into messages."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors
        self._tasks: dict[Any, int] = {}
        self._polls: dict[Any, int] = {}
        self._messages: list[Message] = []

    def begin(self, tasks: Sequence[Any]) -> None:
        self._tasks = {task: rank for rank, task in enumerate(tasks)}
        self._polls = {actor.events.remote(): rank for rank, actor in enumerate(self._actors)}

    def receive(self, wait_s: float) -> Message:
        """The next message; raises `queue.Empty` after `wait_s`."""
        deadline = time.monotonic() + wait_s
        while not self._messages:
            left = deadline - time.monotonic()
            if left <= 0:
                raise queue.Empty
            pending = [*self._polls, *self._tasks]
            ready, _ = ray.wait(pending, num_returns=1, timeout=min(left, 1.0))
            for reference in ready:
                self._take(reference)
        return self._messages.pop(0)

    def _take(self, reference: Any) -> None:
        if reference in self._polls:
            rank = self._polls.pop(reference)
            try:
                events = ray.get(reference)
            except RayError:
                return  # its task's future tells how it died
            self._messages += [Spoke(rank=rank, event=event) for event in events]
            self._polls[self._actors[rank].events.remote()] = rank
            return
        rank = self._tasks.pop(reference)
        try:
            outcome = ray.get(reference)
        except RayError as error:
            outcome = Outcome(failure=Failure(rank=rank, kind="died", reason=_death(error)))
        else:
            self._drain(rank)
        self._messages.append(Ended(rank=rank, outcome=outcome))

    def _drain(self, rank: int) -> None:
        """What a worker told before its task ended must be heard before the end."""
        polls = [reference for reference, of in self._polls.items() if of == rank]
        for poll in polls:
            del self._polls[poll]
        actor = self._actors[rank]
        actor.tell.remote(_END)
        with contextlib.suppress(RayError):
            while True:
                events = ray.get(polls.pop() if polls else actor.events.remote())
                self._messages += [Spoke(rank=rank, event=event) for event in events if event != _END]
                if _END in events:
                    return


def _result(reference: Any, rank: int, what: str) -> Any:
    try:
        return ray.get(reference)
    except RayActorError as error:
        raise PlacementError(f"Worker {rank} died when the workers were to {what}: {_death(error)}") from error
    except RayTaskError as error:
        raise PlacementError(f"Worker {rank} could not {what}: {error.cause}") from error


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
    if wanted < 1 or spec.num_workers > sum(count // wanted for count in machines):
        raise PlacementError(
            f"{spec.num_workers} workers with {max(wanted, 1)} GPU(s) each do not fit the cluster's machines, which "
            f"have {', '.join(map(str, machines))} GPU(s). Ask for fewer workers or fewer replicas per worker."
        )
    return wanted


def _room(spec: GroupSpec) -> str:
    free, total = ray.available_resources(), ray.cluster_resources()
    parts = [
        f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free"
        for name in ("CPU", "GPU")
        if total.get(name)
    ]
    gpus = f" and {spec.gpus_per_worker} GPU" if spec.gpus_per_worker else ""
    wants = f"each worker needs {spec.cpus_per_worker} CPU{gpus}"
    return f"In the cluster {' and '.join(parts) or 'nothing is registered'}; {wants}."
