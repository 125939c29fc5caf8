"""One process on each machine of a cluster, without cores of its own, that looks around and tries things there."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec
import numpy as np
import ray
import xxhash
from heliostat.cluster.errors import PreflightError
from heliostat.cluster.knocking import Address, open_door, unreached
from heliostat.cluster.pools.arrival import import_failure, without_answer
from heliostat.cluster.preflight import answered
from heliostat.data import Dataset
from heliostat.data.stored import StoredDataset
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..checkpoints.store import CheckpointStore
from ..checkpoints.tensors import TensorEntry
from ..worker.places import reach_of
from .finding import Finding, fail, of_complaints
from .machine import Node, look_at_machine

if TYPE_CHECKING:
    from heliostat.cluster.disk.disk import Disk

FIRST_ANSWER_S, ANSWER_S = 120.0, 60.0
STATE_BYTES = 8_000_000
_ASKS_FOR_TIME = 5
_Answer = TypeVar("_Answer")


class Inspector:
    """What is asked of one machine. What it raises is an error of ours, or OSError."""

    def __init__(self) -> None:
        self._door: socket.socket | None = None
        self._state: dict[str, np.ndarray] = {}
        self._cached: list[Path] = []

    def look(self, question: bytes) -> tuple[bytes, Address]:
        """As a worker's process answers before all else (`RayWorker.look`)."""
        self._door = open_door(ray.util.get_node_ip_address())
        host, port = self._door.getsockname()[:2]
        return answered(question), (host, port)

    def knock(self, doors: dict[int, Address]) -> dict[int, str]:
        """Which others cannot be reached from here, and why."""
        return unreached(doors)

    def machine(self, ray_gpus: int) -> bytes:
        """What this process finds of its machine, as JSON; `ray_gpus` is how many GPUs Ray counts here."""
        return msgspec.json.encode(look_at_machine(ray_gpus=ray_gpus))

    def now_s(self) -> float:
        """The time of this machine."""
        return time.time()

    def read(self, dataset: Dataset, disk: Disk | None) -> tuple[str, bool]:
        """Read all rows of a dataset on the driver's disk.

        Returns:
            A hash of them, and whether they came through the driver.
        """
        reach = reach_of(disk)
        found = dataset.reached(reach.uri)
        found.check()
        with contextlib.closing(found.reader()) as reader:
            digest = digest_of(reader.gather(np.arange(len(found))))
        came = found is not dataset
        if came and isinstance(found, StoredDataset):
            self._cached = [found.path_of(number) for number in range(len(found.shards))]
        return digest, came

    def forget(self) -> None:
        """Delete of this machine's cache what was fetched, when all have read: several may share a home."""
        for path in self._cached:
            path.unlink(missing_ok=True)

    def write(self, location: str, name: str, disk: Disk | None) -> tuple[TensorEntry, ...]:
        """Write the tensors of a checkpoint to a store on the driver's disk, as the chief does."""
        self._state = {"state/weights": np.random.default_rng().random(STATE_BYTES // 4, np.float32)}
        return CheckpointStore(reach_of(disk).uri(location)).write(name, self._state)

    def load(self, location: str, name: str, disk: Disk | None) -> bool:
        """Load a checkpoint, as a worker that begins with it; whether it is what was written here."""
        _, tensors = CheckpointStore(reach_of(disk).uri(location)).load(name)
        return all(np.array_equal(tensors[each], value) for each, value in self._state.items())


def digest_of(columns: Mapping[str, Any]) -> str:
    """Hash of arrays (Any: what a reader gives) by the names of their columns."""
    found = xxhash.xxh3_128()
    for name in sorted(columns):
        found.update(name.encode())
        found.update(np.ascontiguousarray(columns[name]).tobytes())
    return found.hexdigest()


@dataclass(frozen=True, slots=True)
class Answers(Generic[_Answer]):
    """What machines have answered, and for the others what is the matter."""

    found: tuple[tuple[Node, _Answer], ...]
    findings: tuple[Finding, ...]


class Inspectors:
    """Inspectors on some machines. Ray must be connected. A context manager.

    Args:
        nodes: the machines.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._actors: dict[str, ActorHandle] = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            options = {"num_cpus": 0, "max_concurrency": 2, "scheduling_strategy": there}
            self._actors[node.id] = ray.remote(**options)(Inspector).remote()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            with contextlib.suppress(RayError):
                ray.kill(actor)

    def ask(
        self,
        check: str,
        nodes: Sequence[Node],
        method: str,
        arguments: Callable[[Node], tuple[object, ...]] = lambda node: (),
        limit_s: float = ANSWER_S,
    ) -> Answers[Any]:
        """Ask machines for something, all at once.

        Args:
            check: what findings are of.
            nodes: those that are asked.
            method: of `Inspector`.
            arguments: of the method, for each.
            limit_s: how long to wait for all answers, in seconds.
        """
        asked = [(node, getattr(self._actors[node.id], method).remote(*arguments(node))) for node in nodes]
        until_s = time.monotonic() + limit_s
        found, findings = [], []
        for node, reference in asked:
            try:
                found.append((node, ray.get(reference, timeout=max(0.0, until_s - time.monotonic()))))
            except RayError as error:
                findings += _of_error(check, node, error, limit_s)
        return Answers(tuple(found), tuple(findings))

    def ahead_s(self, node: Node) -> tuple[float, float]:
        """By how much a machine's clock is ahead of this one's, and the most that this can be wrong, in seconds.

        Raises:
            RayError: it does not answer.
        """
        tries = []
        for _ in range(_ASKS_FOR_TIME):
            began_s, on_clock_s = time.perf_counter(), time.time()
            there_s = ray.get(self._actors[node.id].now_s.remote(), timeout=ANSWER_S)
            took_s = time.perf_counter() - began_s
            tries.append((took_s / 2, there_s - on_clock_s - took_s / 2))
        error_s, ahead_s = min(tries)
        return ahead_s, error_s


def _of_error(check: str, node: Node, error: RayError, limit_s: float) -> list[Finding]:
    """What to say of a machine that has not answered well."""
    if isinstance(error, GetTimeoutError):
        what = f"no answer within {limit_s:.0f} s: Ray starts no process there, or it hangs"
        remedy = "See there: ray status, and /tmp/ray/session_latest/logs/raylet.out"
        return [fail(check, what, remedy, node.host)]
    known: PreflightError | None = import_failure(0, error)
    if known is not None:
        return of_complaints(check, known.complaints)
    if isinstance(error, RayTaskError):
        if check == FIRST:
            return of_complaints(check, without_answer(0, error))
        cause = error.cause or error
        return [fail(check, f"{type(cause).__name__}: {cause}", "", node.host)]
    what = f"its process was lost: {str(error).splitlines()[0]}"
    remedy = "Is the machine there (ray status)? If so, see there: dmesg | grep -i -e oom -e killed"
    return [fail(check, what, remedy, node.host)]


FIRST = "versions"
