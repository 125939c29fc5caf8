"""The all-reduce alone, on this machine, beside TensorFlow's ring and a plain copy of the same memory.

    python scripts/benchmarks/allreduce.py [--workers 2,4] [--save]

All ways are started once per number of workers and measured in turn, block after block, in an order that changes from
round to round; those whose turn it is not wait for their input. The slowest worker counts for each call. Reported per
way and size: the median over all calls, the medians of the blocks (lowest and highest are the spread), the processor
time of a worker per call, and the ratio to Heliostat of the blocks of the same round. `copy` is the limit that memory
sets: each worker copies the vector once.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

import run  # type: ignore[import-not-found]

SIZES_BYTES = (4_096, 16_384, 65_536, 262_144, 1_000_000, 4_000_000, 20_000_000, 100_000_000)


class Processes:
    """One process per rank of a way to all-reduce (`allreduce_process.py`)."""

    def __init__(self, name: str, num_workers: int, stack: contextlib.ExitStack) -> None:
        self._name, ports = name, run.free_ports(num_workers)
        self._processes = []
        for rank in range(num_workers):
            command = [sys.executable, str(run.HERE / "allreduce_process.py"), name]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            self._processes.append(process)
            self._tell(process, {"rank": rank, "num_workers": num_workers, "ports": ports})
        self._hear_all()
        self._ask({"all_can_be_reached": True})

    def run(self, num_bytes: int, calls: int) -> tuple[list[float], list[float]]:
        """Measure a block; returns the time of each call, that of the slowest process, and every process's processor
        time per call, in seconds."""
        reports = self._ask({"bytes": num_bytes, "calls": calls})
        times_s = [max(times) for times in zip(*(report["times_s"] for report in reports), strict=True)]
        return times_s, [report["cpu_s"] for report in reports]

    def _ask(self, task: run.Found) -> list[run.Found]:
        for process in self._processes:
            self._tell(process, task)
        return self._hear_all()

    @staticmethod
    def _tell(process: subprocess.Popen[str], task: run.Found) -> None:
        print(json.dumps(task), file=process.stdin, flush=True)

    def _hear_all(self) -> list[run.Found]:
        lines = [process.stdout.readline() for process in self._processes]
        if not all(lines):
            raise run.BenchmarkError(f"a process of {self._name} ended")
        return [json.loads(line) for line in lines]


def num_calls(once_s: float, block_s: float) -> int:
    return max(3, min(2000, int(block_s / once_s)))


def measure(
    names: Sequence[str], num_workers: int, sizes: Sequence[int], rounds: int, block_s: float
) -> list[run.Found]:
    rows = []
    with contextlib.ExitStack() as stack:
        ways = {name: Processes(name, num_workers, stack) for name in names}
        for size in sizes:
            calls = {name: num_calls(statistics.median(way.run(size, 3)[0]), block_s) for name, way in ways.items()}
            blocks: dict[str, list[list[float]]] = {name: [] for name in names}
            cpu_s: dict[str, list[float]] = {name: [] for name in names}
            for order in run.turns(names, rounds):
                for name in order:
                    times_s, cpu = ways[name].run(size, calls[name])
                    blocks[name].append(times_s)
                    cpu_s[name].append(statistics.mean(cpu))
            medians = {name: [statistics.median(block) for block in each] for name, each in blocks.items()}
            for name in names:
                all_s = [time_s for block in blocks[name] for time_s in block]
                ratios = [other / own for other, own in zip(medians[name], medians[names[0]], strict=True)]
                rows.append(
                    {
                        "way": name,
                        "workers": num_workers,
                        "bytes": size,
                        "calls": len(all_s),
                        "median_ms": round(statistics.median(all_s) * 1e3, 4),
                        "block_medians_ms": [round(median * 1e3, 4) for median in medians[name]],
                        "cpu_ms": round(statistics.median(cpu_s[name]) * 1e3, 4),
                        f"times_{names[0]}": round(statistics.median(ratios), 3),
                        "ratio_low_high": [round(min(ratios), 3), round(max(ratios), 3)],
                    }
                )
                print(num_workers, size, name, rows[-1]["median_ms"], rows[-1]["cpu_ms"], ratios, file=sys.stderr)
    return rows


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--workers", default="2,4", help="numbers of workers, comma-separated")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES_BYTES)), help="bytes per vector, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each way per size")
    parser.add_argument("--block-s", type=float, default=0.15, help="about how long a block takes")
    parser.add_argument("--ways", default="heliostat,heliostat-sockets,tensorflow,copy", help="comma-separated")
    options = parser.parse_args()
    names, sizes = options.ways.split(","), [int(size) for size in options.sizes.split(",")]
    rows: list[run.Found] = []
    for num_workers in map(int, options.workers.split(",")):
        rows += measure(names, num_workers, sizes, options.rounds, options.block_s)
    run.finish(options, "allreduce", {"rows": rows})


if __name__ == "__main__":
    main()
