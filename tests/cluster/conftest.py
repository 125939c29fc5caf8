"""Groups of workers as threads over real sockets, and the plain recursion that every sum is compared with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from heliostat.cluster.allreduce.handshake import Peers
from heliostat.cluster.allreduce.mesh import Listener, TcpMesh, connect

SECRET = b"a secret of some length"


def tree_sum(leaves: dict[int, Any], ops: Sequence[str], num_microbatches: int) -> Any:
    """The definition, word for word: left child + right child, and an absent one passes the other up."""

    def value(level: int, index: int) -> Any:
        if level == 0:
            return leaves.get(index)
        left, right = value(level - 1, 2 * index), value(level - 1, 2 * index + 1)
        if left is None or right is None:
            return right if left is None else left
        with np.errstate(all="ignore"):
            return tuple(
                a + b if op == "sum" else np.where(a < b, b, a) + a.dtype.type(0)
                for op, a, b in zip(ops, left, right, strict=True)
            )

    return value((num_microbatches - 1).bit_length(), 0)


def same_bits(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True)
    )


class Group:
    """Workers as threads; every thread runs `body(mesh, rank)`, results and exceptions come back by rank."""

    def __init__(self, transport: str = "shared memory") -> None:
        self.transport = transport
        self.listeners: list[Listener] = []

    def listen(self, num_workers: int) -> list[Listener]:
        listeners = [Listener("127.0.0.1") for _ in range(num_workers)]
        for listener in listeners if self.transport == "TCP" else ():
            listener.local.close()  # as if its peers were on other hosts
            listener.local = None
        self.listeners += listeners
        return listeners

    @staticmethod
    def peers(listeners: Sequence[Listener], rank: int, generation: int = 1, secret: bytes = SECRET) -> Peers:
        addresses = [listener.address for listener in listeners]
        return Peers(rank=rank, addresses=addresses, generation=generation, secret=secret)

    def run(
        self,
        num_workers: int,
        body: Callable[[TcpMesh, int], Any],
        *,
        generations: Sequence[int] | None = None,
        secrets: Sequence[bytes] | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 30.0,
        listeners: Sequence[Listener] | None = None,
    ) -> list[Any]:
        listeners = listeners or self.listen(num_workers)

        def worker(rank: int) -> Any:
            generation, secret = generations[rank] if generations else 1, secrets[rank] if secrets else SECRET
            mesh = connect(
                listeners[rank],
                self.peers(listeners, rank, generation, secret),
                timeout_s=timeout_s,
                deadline_s=deadline_s,
                share_memory=self.transport == "shared memory",
            )
            try:
                others = tuple(peer for peer in range(num_workers) if peer != rank)
                assert mesh.statistics().sharing == (others if self.transport == "shared memory" else ())
                return body(mesh, rank)
            finally:
                mesh.close()

        return self.threads([lambda rank=rank: worker(rank) for rank in range(num_workers)])

    @staticmethod
    def threads(bodies: Sequence[Callable[[], Any]]) -> list[Any]:
        results: list[Any] = [None] * len(bodies)

        def run(number: int) -> None:
            try:
                results[number] = bodies[number]()
            except Exception as error:
                results[number] = error

        threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
            assert not thread.is_alive(), f"still running; results so far: {results}"
        return results


@pytest.fixture
def transport() -> str:
    return "shared memory"


@pytest.fixture
def group(transport: str) -> Iterator[Group]:
    before = set(threading.enumerate())  # one of another test may still be about to end
    made = Group(transport)
    yield made
    for listener in made.listeners:
        listener.close()
    assert set(threading.enumerate()) <= before


@pytest.fixture(name="tree_sum", scope="session")
def tree_sum_fixture() -> Callable[..., Any]:
    return tree_sum


@pytest.fixture(name="same_bits", scope="session")
def same_bits_fixture() -> Callable[..., bool]:
    return same_bits
