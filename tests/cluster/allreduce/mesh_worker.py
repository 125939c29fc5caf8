"""One worker as a process of its own, driven by lines of JSON: run by test_mesh_processes.py, not a test.

It prints its listener's address, reads what to do, and prints one line per finished call or per error.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.allreduce.handshake import Peers
from heliostat.cluster.allreduce.mesh import Listener, connect
from heliostat.cluster.allreduce.shared_memory import ShmChannel
from heliostat.cluster.allreduce.slices import SumSpec
from heliostat.cluster.assignment import assign
from heliostat.cluster.errors import CollectiveError
from heliostat.cluster.tree import present_nodes
from heliostat.cluster.vectors import TreeSum, layout_of


def leaf(microbatch: int, length: int) -> tuple[Any, ...]:
    rng = np.random.default_rng([length, microbatch])
    return (
        (rng.standard_normal(length) * 10.0 ** rng.integers(-20, 20, length)).astype(np.float32),
        rng.standard_normal(length % 7),
        rng.standard_normal(2),
    )


def digest(vector: tuple[Any, ...]) -> str:
    return hashlib.sha256(b"".join(bucket.tobytes() for bucket in vector)).hexdigest()


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def die_at(where: str, count: int, *, half_done: bool) -> None:
    """Be killed the `count`th time that this process comes to a phase or calls a method of its shared memory."""

    def come() -> None:
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if not hasattr(ShmChannel, where):
        instruments.listen(lambda point, step: come() if point == where else None)
        return
    method = getattr(ShmChannel, where)

    def method_and_death(channel: ShmChannel) -> Any:
        if not half_done:
            come()
            return method(channel)
        result = method(channel)
        if result is not False:
            come()  # it has written, and nobody has been told
        return result

    setattr(ShmChannel, where, method_and_death)


def num_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:heliostat")


def main() -> None:
    with Listener("127.0.0.1") as listener:
        say(address=listener.address)
        task = json.loads(sys.stdin.readline())
        peers = Peers(
            rank=task["rank"],
            addresses=[tuple(address) for address in task["addresses"]],
            generation=task["generation"],
            secret=bytes.fromhex(task["secret"]),
        )
        mesh = connect(listener, peers, timeout_s=30.0, deadline_s=task["deadline_s"])
    if "die" in task and task["die"]["rank"] == mesh.rank:
        die_at(task["die"]["where"], task["die"]["count"], half_done=task["die"]["half_done"])
    assert num_mappings() == 1 + len(mesh.statistics().sharing)  # its own and its peers'
    present = task["present"]
    ranges = assign(len(present), mesh.num_workers)
    expected = [present_nodes(lo, hi, present) for lo, hi in ranges]
    ops = ("sum", "sum", "max")
    said: dict[str, Any] = {}
    try:
        for sequence, length in enumerate(task["lengths"] * task["repeat"]):
            partial = TreeSum(len(present), ops, *ranges[mesh.rank])
            for microbatch in range(*ranges[mesh.rank]):
                if present[microbatch]:
                    partial.add(microbatch, leaf(microbatch, length))
            like = layout_of(leaf(0, length))
            if task["pauses"] and sequence:  # until it is told to go on
                sys.stdin.readline()
                say(calls=sequence)
            total = mesh.all_reduce(sequence, partial.nodes(), SumSpec.of(expected, like, ops))
            say(length=length, digest=digest(total))
    except CollectiveError as error:
        said = {"error": type(error).__name__, "text": str(error), "unresponsive": error.unresponsive}
    finally:
        mesh.close()
    if said:
        say(**said, mappings=num_mappings())


if __name__ == "__main__":
    main()
