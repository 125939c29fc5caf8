"""Whether, and how fast, every two workers talk: for a group that runs no task, connected as in a step.

All workers call such a function with the same addresses, and use the same listeners, handshake and sockets as later.

`unreached` tries all connections at once, so that a blocked port is known before anybody has waited for a trace.

`measure_links` measures bandwidth and latency of the all-reduce, one pair at a time. The workers go through the pairs
in the same order: two connect and measure, and tell all what they found, which is the sign for the next two. So no pair
disturbs another, and everybody has the table.
"""

from __future__ import annotations

import itertools
import statistics
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from .allreduce.collective import Collective
from .allreduce.handshake import Peers
from .allreduce.listener import Address, Listener
from .allreduce.mesh import connect
from .allreduce.slices import SumSpec
from .errors import PeerError
from .spec import CONNECT_LIMIT_S
from .vectors import BucketOp

NUM_SMALL, NUM_LARGE = 65, 5
FIRST_BYTES, MAX_BYTES, LONG_S = 1 << 20, 1 << 26, 0.05
LIMIT_S = 60.0
_NODES = ((0, 0), (0, 1))  # what the two bring: the leaves of the smallest tree
_FOUND = struct.Struct("!dd")
_FAR_SLOWER = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LinksJob:
    """What the workers must know.

    Attributes:
        addresses: where each of them listens, by number.
        secret: that they share.
        attempt: how often they have tried this before.
    """

    addresses: Mapping[int, Address]
    secret: bytes
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """The workers, by number, with which one has no connection; what it tried with the first of them."""

    workers: tuple[int, ...]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBandwidth:
    """What one pair of workers reached.

    Attributes:
        workers: their numbers.
        latency_s: duration of an all-reduce of four bytes, the median.
        bytes_per_s: bytes of a long vector over the duration of its all-reduce, the median; as many go each way.
    """

    workers: tuple[int, int]
    latency_s: float
    bytes_per_s: float


def unreached(listener: Listener, worker: int, job: LinksJob) -> Unreached | None:
    """Try the connections with all other workers; every worker of the job calls this.

    Args:
        listener: where the others reach this worker.
        worker: this worker's number.
        job: where all of them listen.

    Returns:
        Whom this worker has not reached within `CONNECT_LIMIT_S`; None if it has reached all.
    """
    workers = sorted(job.addresses)
    try:
        _connected(listener, worker, workers, job, generation=job.attempt, limit_s=CONNECT_LIMIT_S).close()
    except PeerError as error:
        return Unreached(workers=tuple(workers[rank] for rank in error.unresponsive), detail=error.what)
    return None


def measure_links(
    listener: Listener, worker: int, job: LinksJob, max_bytes: int = MAX_BYTES
) -> tuple[PairBandwidth, ...]:
    """Measure the links between all workers; every worker of the job calls this, and gets the same table.

    Args:
        listener: where the others reach this worker.
        worker: this worker's number.
        job: where all of them listen.
        max_bytes: vectors grow up to so many bytes, or until an all-reduce takes `LONG_S`.

    Returns:
        What every two workers reached, by their numbers.

    Raises:
        CollectiveError: a worker died, or did not answer within `LIMIT_S`.
    """
    workers = sorted(job.addresses)
    found = []
    with closing(_connected(listener, worker, workers, job, generation=0)) as everybody:
        for rank in range(len(workers)):  # who is still connecting must not meet a pair's connection
            everybody.broadcast(rank, b"" if rank == everybody.rank else None, root=rank)
        for number, pair in enumerate(itertools.combinations(workers, 2), 1):
            payload = None
            if worker in pair:
                with closing(_connected(listener, worker, pair, job, generation=number)) as connection:
                    measured = _measure(connection, max_bytes)
                payload = _FOUND.pack(*measured) if worker == pair[0] else None
            told = everybody.broadcast(len(workers) + number, payload, root=workers.index(pair[0]))
            latency_s, bytes_per_s = _FOUND.unpack(told)
            found.append(PairBandwidth(workers=pair, latency_s=latency_s, bytes_per_s=bytes_per_s))
    return tuple(found)


def far_slower(links: Sequence[PairBandwidth]) -> tuple[PairBandwidth, float] | None:
    """The slowest link, and what half of all have at least, in bytes per second; None unless it has half of that."""
    slowest = min(links, key=lambda link: link.bytes_per_s)
    median = statistics.median(link.bytes_per_s for link in links)
    return (slowest, median) if slowest.bytes_per_s < _FAR_SLOWER * median else None


def shown_rate(bytes_per_s: float) -> str:
    """A bandwidth in words."""
    return f"{bytes_per_s / 1e9:.2g} GB/s" if bytes_per_s >= 1e8 else f"{bytes_per_s / 1e6:.2g} MB/s"


def _connected(
    listener: Listener,
    worker: int,
    workers: Sequence[int],
    job: LinksJob,
    generation: int,
    limit_s: float = LIMIT_S,
) -> Collective:
    addresses = [job.addresses[each] for each in workers]
    peers = Peers(rank=workers.index(worker), addresses=addresses, generation=generation, secret=job.secret)
    return connect(listener, peers, timeout_s=limit_s, deadline_s=limit_s)


def _measure(pair: Collective, max_bytes: int) -> tuple[float, float]:
    """Latency in seconds and bandwidth in bytes per second, as the slower of the two workers sees them."""
    calls = itertools.count()
    latency_s = _median_s(pair, calls, 4, NUM_SMALL)
    num_bytes = FIRST_BYTES
    while (duration_s := _median_s(pair, calls, num_bytes, NUM_LARGE)) < LONG_S and num_bytes * 2 <= max_bytes:
        num_bytes *= 2
    return latency_s, num_bytes / duration_s


def _median_s(pair: Collective, calls: itertools.count[int], num_bytes: int, num: int) -> float:
    """The median duration of `num` all-reduces in seconds, the longer one of the two workers': the same on both."""
    own, out = np.ones(num_bytes // 4, np.float32), np.ones(num_bytes // 4, np.float32)
    durations_s = []
    for _ in range(num):
        began_s = time.perf_counter()
        _all_reduce(pair, next(calls), own, out, "sum")
        durations_s.append(time.perf_counter() - began_s)
    median_s = np.array([statistics.median(durations_s)])
    return float(_all_reduce(pair, next(calls), median_s, np.empty(1), "max")[0])


def _all_reduce(pair: Collective, call: int, own: np.ndarray, out: np.ndarray, op: BucketOp) -> np.ndarray:
    spec = SumSpec.of([[node] for node in _NODES], ((own.dtype, own.size),), (op,))
    return pair.all_reduce(call, {_NODES[pair.rank]: (own,)}, spec, out=(out,))[0]
