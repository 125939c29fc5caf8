"""One process of one way to all-reduce; `allreduce.py` starts them. Needs nothing but the library that it measures.

It reads lines of JSON: first its place, {"rank", "num_workers", "ports"};
it says when it can be reached, and waits for a line that says that all can; then what to measure, {"bytes", "calls"};
to each it answers with a line. Every call sums one vector of float32 over all processes, and is timed by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Meet = Callable[[], None]
"""Called when a process can be reached; returns when all can."""
SECRET = b"only for this benchmark"
Prepare = Callable[[int], tuple[Callable[[], Any], Callable[[], float]]]
"""From a number of elements: a function that makes one call, and one that returns an element of its result."""


def heliostat(place: dict[str, Any], meet: Meet, share_memory: bool) -> Prepare:
    """Heliostat's mesh, one node of the tree per worker; with or without memory that workers of a host share."""
    from heliostat.cluster.allreduce.handshake import Peers
    from heliostat.cluster.allreduce.mesh import Listener, connect
    from heliostat.cluster.allreduce.slices import SumSpec
    from heliostat.cluster.assignment import assign
    from heliostat.cluster.tree import present_nodes
    from heliostat.cluster.vectors import empty_vector, layout_of

    rank, num_workers = place["rank"], place["num_workers"]
    addresses = [("127.0.0.1", port) for port in place["ports"]]
    listener = Listener(addresses[rank][0], port=addresses[rank][1])
    meet()
    peers = Peers(rank=rank, addresses=addresses, generation=0, secret=SECRET)
    mesh = connect(listener, peers, timeout_s=60.0, deadline_s=600.0, share_memory=share_memory)
    expected = [present_nodes(lo, hi, [True] * 8) for lo, hi in assign(8, num_workers)]
    sequence = 0

    def prepare(length: int) -> tuple[Callable[[], Any], Callable[[], float]]:
        vector = (np.full(length, rank + 1, np.dtype("float32")),)
        nodes = dict.fromkeys(expected[rank], vector)
        out, like = empty_vector(layout_of(vector)), layout_of(vector)

        def call() -> None:
            nonlocal sequence
            sequence += 1
            mesh.all_reduce(sequence, nodes, SumSpec.of(expected, like, ("sum",)), out=out)

        return call, lambda: float(out[0][-1])

    return prepare


def tensorflow(place: dict[str, Any], meet: Meet) -> Prepare:
    """TensorFlow's ring, the operation under MultiWorkerMirroredStrategy, one thread per process."""
    meet()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in place["ports"]]},
            "task": {"type": "worker", "index": place["rank"]},
        }
    )
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.distribute.MultiWorkerMirroredStrategy()  # connects the processes
    number = 0

    def prepare(length: int) -> tuple[Callable[[], Any], Callable[[], float]]:
        nonlocal number
        number += 1
        instance = number
        value = tf.fill([length], float(place["rank"] + 1))
        result: list[Any] = []

        @tf.function(autograph=False)
        def run(x: Any) -> Any:
            return tf.raw_ops.CollectiveReduce(
                input=x,
                group_size=place["num_workers"],
                group_key=7,
                instance_key=instance,
                merge_op="Add",
                final_op="Id",
                subdiv_offsets=[0],
                communication_hint="ring",
            )

        def call() -> None:
            result[:] = [run(value).numpy().shape]

        return call, lambda: float(run(value)[-1])

    return prepare


def copy(place: dict[str, Any], meet: Meet) -> Prepare:
    """The limit: every process reads the vector once and writes it once, all at the same time."""
    meet()
    total = place["num_workers"] * (place["num_workers"] + 1) / 2

    def prepare(length: int) -> tuple[Callable[[], Any], Callable[[], float]]:
        source, target = np.full(length, total, np.float32), np.empty(length, np.float32)
        return lambda: np.copyto(target, source), lambda: float(target[-1])

    return prepare


WAYS: dict[str, Callable[[dict[str, Any], Meet], Prepare]] = {
    "heliostat": lambda place, meet: heliostat(place, meet, share_memory=True),
    "heliostat-sockets": lambda place, meet: heliostat(place, meet, share_memory=False),
    "tensorflow": tensorflow,
    "copy": copy,
}


def measure(prepare: Prepare, num_bytes: int, calls: int, expected: float) -> dict[str, Any]:
    """Make some calls to warm up, then the timed ones."""
    call, last = prepare(num_bytes // 4)
    for _ in range(max(3, calls // 10)):
        call()
    times_s: list[float] = []
    started_cpu_s = time.process_time()
    for _ in range(calls):
        started_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - started_s)
    cpu_s = (time.process_time() - started_cpu_s) / calls
    if last() != expected:
        raise SystemExit(f"wrong sum {last()} instead of {expected}")
    return {"times_s": times_s, "cpu_s": cpu_s}


def main() -> None:
    out = os.fdopen(os.dup(1), "w")  # libraries may print: only answers go to the pipe
    os.dup2(2, 1)
    place = json.loads(sys.stdin.readline())

    def meet() -> None:
        print(json.dumps({"can_be_reached": True}), file=out, flush=True)
        sys.stdin.readline()

    prepare = WAYS[sys.argv[1]](place, meet)
    print(json.dumps({"ready": True}), file=out, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            task = json.loads(line)
            total = place["num_workers"] * (place["num_workers"] + 1) / 2
            print(json.dumps(measure(prepare, task["bytes"], task["calls"], total)), file=out, flush=True)
    out.flush()
    os._exit(0)  # the libraries' own shutdown waits for peers


if __name__ == "__main__":
    main()
