"""The all-reduce over loopback against a plain copy of the same memory.

    python -m heliostat.scripts.benchmarks.allreduce [--workers 2,4] [--seconds 1.0] > allreduce.json

Every worker is a process of its own and brings one node of float32. Reported per size: median and best time of a call,
the slower of the workers counting, the vector's bytes divided by the median, and the processor time of one worker per
call. A copy of the same bytes in one process (`memcpy_gb_per_s`) is what the machine's memory allows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from typing import Any

import numpy as np
from heliostat.cluster.assignment import assign
from heliostat.cluster.mesh import Listener, connect
from heliostat.cluster.tree import contributed, empty_vector, layout_of

SIZES_BYTES = (4_096, 65_536, 100_000, 1_000_000, 4_000_000, 20_000_000, 100_000_000)
SECRET = b"only for this benchmark"


def worker(rank: int, num_workers: int, seconds: float, sizes_bytes: tuple[int, ...], pipe: Any) -> None:
    """Measure all sizes as one worker; sends its times to the parent."""
    with Listener("127.0.0.1") as listener:
        pipe.send(listener.address)
        mesh = connect(
            listener,
            rank=rank,
            addresses=pipe.recv(),
            generation=0,
            secret=SECRET,
            timeout_s=30.0,
            deadline_s=60.0,
        )
    present = [True] * 8
    ranges = assign(8, num_workers)
    expected = [contributed(lo, hi, present) for lo, hi in ranges]
    sequence = 0
    for size in sizes_bytes:
        vector = (np.full(size // 4, rank + 1, np.float32),)
        nodes = dict.fromkeys(expected[rank], vector)
        out = empty_vector(layout_of(vector))
        times_s: list[float] = []
        started_cpu_s = time.process_time()
        for _ in range(calls(size, seconds)):
            sequence += 1
            started_s = time.perf_counter()
            mesh.all_reduce(sequence, nodes, expected, layout_of(vector), ops=("sum",), out=out)
            times_s.append(time.perf_counter() - started_s)
        cpu_s = (time.process_time() - started_cpu_s) / len(times_s)
        pipe.send((cpu_s, times_s[len(times_s) // 5 :]))  # the first calls touch fresh memory
    mesh.close()


def calls(size_bytes: int, seconds: float) -> int:
    """Return how many calls fill about `seconds`, the same on all workers."""
    return max(5, min(3000, int(seconds / (1e-4 + size_bytes / 1.5e9))))


def memcpy_gb_per_s(size_bytes: int) -> float:
    """Return how fast one process copies that much memory, in GB/s of bytes copied."""
    source, target = np.ones(size_bytes, np.uint8), np.ones(size_bytes, np.uint8)
    times_s: list[float] = []
    for _ in range(10):
        started_s = time.perf_counter()
        np.copyto(target, source)
        times_s.append(time.perf_counter() - started_s)
    return size_bytes / min(times_s) / 1e9


def measure(num_workers: int, seconds: float, sizes_bytes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Start the workers, collect their times and return one row per size."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(num_workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(rank, num_workers, seconds, sizes_bytes, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    addresses = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send(addresses)
    rows = []
    for size in sizes_bytes:
        reports = [pipe.recv() for pipe in pipes]
        slowest_s = [max(times) for times in zip(*(times_s for _, times_s in reports), strict=True)]
        rows.append(
            {
                "workers": num_workers,
                "bytes": size,
                "calls": len(slowest_s),
                "median_ms": round(statistics.median(slowest_s) * 1e3, 4),
                "best_ms": round(min(slowest_s) * 1e3, 4),
                "cpu_ms": round(max(cpu_s for cpu_s, _ in reports) * 1e3, 4),
                "gb_per_s": round(size / statistics.median(slowest_s) / 1e9, 3),
            }
        )
        print(rows[-1], file=sys.stderr)
    for process in processes:
        process.join()
    for row in rows:  # only now, when no worker needs the cores
        row["memcpy_gb_per_s"] = round(memcpy_gb_per_s(row["bytes"]), 2)
    return rows


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description="All-reduce over loopback against a plain memory copy")
    parser.add_argument("--workers", default="2,4", help="numbers of workers, comma-separated")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per size")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES_BYTES)), help="bytes per vector, comma-separated")
    options = parser.parse_args()
    sizes = tuple(int(size) for size in options.sizes.split(","))
    rows: list[dict[str, Any]] = []
    for num_workers in map(int, options.workers.split(",")):
        rows += measure(num_workers, options.seconds, sizes)
    json.dump({"benchmark": "allreduce", "python": platform.python_version(), "rows": rows}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
