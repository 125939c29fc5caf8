"""Training speed, side by side: Heliostat against what a Keras user could run instead on the same two cores.

    python scripts/benchmarks/training.py [--models chapter dense256 ...] [--rounds 3] [--seconds 5] [--json FILE]

In every round each way runs once, in alternating order, in fresh processes: Heliostat with two workers of one thread;
plain Keras `fit` in one process with two threads, jit off and on; `MultiWorkerMirroredStrategy` with two processes of
one thread, by a hand-written Keras 3 loop and by `fit` of legacy tf_keras. First traces are excluded, input included.
Ratios are of medians over rounds; `spread` is (largest - smallest) / median. For the overhead of the engine alone:
`--workers 0 --threads 2 --ways keras keras_jit`. The other two loops beside `fit`: `--ways train_on_batch custom`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from baselines import BASELINES, BaselineError, run_baseline  # type: ignore[import-not-found]
from models import WORKLOADS  # type: ignore[import-not-found]

KERAS = ("keras", "keras_jit")
MIRRORED = ("mirrored_custom", "mirrored_tf_keras")
LOOPS = ("train_on_batch", "custom")
OURS = ("heliostat", *LOOPS)


def run_heliostat(model: str, seconds: float, *, workers: int, threads: int, way: str) -> dict[str, Any]:
    """One run in a fresh process, in one of our ways."""
    script = Path(__file__).with_name("heliostat_process.py")
    command = [sys.executable, str(script), model, "--workers", str(workers), "--threads", str(threads)]
    command += ["--seconds", str(seconds), "--loop", way if way in LOOPS else "fit"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith('{"steps_per_s"')]
    if not results:
        raise BaselineError(f"Heliostat on {model} printed no result:\n{done.stderr[-3000:]}")
    return dict(json.loads(results[-1]))


def measure(model: str, ways: list[str], rounds: int, seconds: float, workers: int, threads: int) -> dict[str, Any]:
    """Rates of every way on one model, by round."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            if way in OURS:
                found = run_heliostat(model, seconds, workers=workers, threads=threads, way=way)
            else:
                found = run_baseline(way, model, seconds)
            runs[way].append(found)
            print(f"  {model:10} {way:18} {found['samples_per_s']:10,.0f} samples/s", file=sys.stderr, flush=True)
    return summary(model, runs)


def summary(model: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, spreads and the two ratios."""
    rates = {way: [run["samples_per_s"] for run in found] for way, found in runs.items() if found}
    medians = {way: statistics.median(values) for way, values in rates.items()}
    spreads = {way: (max(values) - min(values)) / medians[way] for way, values in rates.items()}
    return {
        "model": model,
        "samples_per_s": {way: round(value) for way, value in medians.items()},
        "spread": {way: round(value, 3) for way, value in spreads.items()},
        "to_mirrored": ratio(medians, MIRRORED),
        "to_keras": ratio(medians, KERAS),
        "to_our_other_ways": {way: round(medians["heliostat"] / medians[way], 2) for way in OURS[1:] if way in medians},
        "mirrored_to_keras": round(best(medians, MIRRORED) / best(medians, KERAS), 2)
        if best(medians, MIRRORED) and best(medians, KERAS)
        else None,
        "step_ms": runs["heliostat"][-1]["step_ms"],
    }


def best(medians: dict[str, float], ways: tuple[str, ...]) -> float:
    """The fastest of some ways; 0 where none ran."""
    return max((medians[way] for way in ways if way in medians), default=0.0)


def ratio(medians: dict[str, float], ways: tuple[str, ...]) -> float | None:
    """Heliostat's rate over the fastest of some ways."""
    other = best(medians, ways)
    return round(medians["heliostat"] / other, 2) if other else None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--ways", nargs="+", choices=[*BASELINES, *OURS[1:]], default=list(BASELINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = []
    for model in chosen.models:
        ways = ["heliostat", *chosen.ways]
        found.append(measure(model, ways, chosen.rounds, chosen.seconds, chosen.workers, chosen.threads))
        print(json.dumps(found[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
