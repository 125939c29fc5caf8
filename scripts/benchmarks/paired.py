"""Two checkouts of Heliostat side by side, in pairs: what a change of the code costs, with a bound on the answer.

    python scripts/benchmarks/paired.py BEFORE AFTER training  [--pairs 8] [--only chapter deep80]
    python scripts/benchmarks/paired.py BEFORE AFTER allreduce [--pairs 8] [--only 65536 4000000]
    python scripts/benchmarks/paired.py BEFORE AFTER recovery  [--pairs 2]
    python scripts/benchmarks/paired.py BEFORE AFTER start     [--pairs 6] [--only 0 4]

BEFORE and AFTER are folders with an environment in `.venv` each. In every pair both run the benchmark of their own
checkout (`start`: `first_step.py` of this one) in fresh processes, in alternating order, so that what the machine does
besides meets both. Printed is, for each figure (a duration, so below 1 is better), the geometric mean of after / before
over the pairs, and the bounds of its 95 % confidence interval, one-sided each, by Student's t on the logarithms. Where
the spread is wide: more pairs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from first_step import measured  # type: ignore[import-not-found]
from run import Found, child  # type: ignore[import-not-found]

# One-sided 95 % quantiles of Student's t, by degrees of freedom from 1 on; beyond the last the normal distribution's.
T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753)
T95_NORMAL = 1.70
MODELS = ("chapter", "dense256", "dense1024", "dense2048", "deep80")
SIZES_BYTES = (4_096, 65_536, 1_000_000, 20_000_000)
Durations = dict[str, float]


def of_checkout(checkout: Path, key: str, script: str, *arguments: object) -> Found:
    """What a benchmark of a checkout finds; raises BenchmarkError with its last words if it fails."""
    python = checkout / ".venv" / "bin" / "python"
    return child(str(checkout / "scripts" / "benchmarks" / script), *arguments, key=key, python=str(python))


def training(checkout: Path, only: list[str]) -> Durations:
    """Seconds per step of `fit` with two workers, by model."""
    found = {}
    for model in only or MODELS:
        options = ("--workers", 2, "--seconds", 4)
        each = of_checkout(checkout, "steps_per_s", "heliostat_process.py", model, *options)
        found[f"step of {model}"] = 1.0 / each["steps_per_s"]
    return found


def allreduce(checkout: Path, only: list[str]) -> Durations:
    """Seconds per all-reduce of two workers, by bytes, with shared memory and without."""
    sizes = ",".join(only or map(str, SIZES_BYTES))
    options = ("--workers", 2, "--sizes", sizes, "--rounds", 3, "--ways", "heliostat,heliostat-sockets")
    rows = of_checkout(checkout, "rows", "allreduce.py", *options)["rows"]
    return {f"{row['way']}, {row['bytes']} bytes": row["median_ms"] / 1e3 for row in rows}


def recovery(checkout: Path, only: list[str]) -> Durations:
    """Seconds from a kill to the next step, and what else a kill costs: medians."""
    options = ("--workers", 2, "--kills", only[0] if only else 12, "--stops", 0)
    report = of_checkout(checkout, "heliostat", "recovery.py", *options)["heliostat"]
    costs = {
        name: report["SIGKILL"][name]["p50"] / 1e3 for name in ("detection_ms", "stall_ms", "stall_of_the_join_ms")
    }
    return {**costs, "step_ms": report["step_ms"]["p50"] / 1e3}


def start(checkout: Path, only: list[str]) -> Durations:
    """Seconds from making a trainer to its first step, and what `fit` waits for Ray, by what is computed between."""
    python, found = str(checkout / ".venv" / "bin" / "python"), {}
    for each in only or ("0", "4"):
        one = measured(2, float(each), python)
        found |= {f"{each} s between": one["first_step_s"], f"{each} s between, wait for Ray": one["of_ray_s"]}
    return found


SUBJECTS: dict[str, Callable[[Path, list[str]], Durations]] = {
    "training": training,
    "allreduce": allreduce,
    "recovery": recovery,
    "start": start,
}


def bounds(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios, and the lower and upper 95 % bounds of it; at least two ratios."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, spread = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    t = T95[len(logs) - 2] if len(logs) - 2 < len(T95) else T95_NORMAL
    return math.exp(mean), math.exp(mean - t * spread), math.exp(mean + t * spread)


def main() -> None:
    """Run the pairs and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=[], help="models, bytes per vector, a number of kills, or seconds")
    wanted = parser.parse_args()
    if wanted.pairs < 2:
        parser.error("a bound needs at least two pairs")
    measure, ratios = SUBJECTS[wanted.subject], {}
    for number in range(wanted.pairs):
        order = (wanted.before, wanted.after) if number % 2 == 0 else (wanted.after, wanted.before)
        found = {checkout: measure(checkout.resolve(), wanted.only) for checkout in order}
        for name, duration_s in found[wanted.after].items():
            if name in found[wanted.before]:  # an older checkout may measure less
                ratios.setdefault(name, []).append(duration_s / found[wanted.before][name])
        print(f"pair {number + 1}: { ({name: round(each[-1], 3) for name, each in ratios.items()}) }", file=sys.stderr)
    for name, each in ratios.items():
        mean, low, high = bounds(each)
        print(f"{name:45} {mean:6.3f}  [{low:.3f}, {high:.3f}]  {len(each)} pairs")


if __name__ == "__main__":
    main()
