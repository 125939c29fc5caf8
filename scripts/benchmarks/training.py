"""Training speed, side by side: Heliostat against what a Keras user could run instead on the same two cores.

    python scripts/benchmarks/training.py [--models chapter dense256 ...] [--rounds 3] [--seconds 5] [--save]

In every round each way runs once, in changing order, in fresh processes: Heliostat with two workers of one thread;
plain Keras `fit` in one process with two threads, jit off and on; `MultiWorkerMirroredStrategy` with two processes of
one thread, by a hand-written Keras 3 loop. First traces are excluded, input included. Ratios are of medians over
rounds; `spread` is (largest - smallest) / median. For the overhead of the engine alone: `--workers 0 --threads 2 --ways
keras keras_jit`. The other two loops beside `fit`: `--ways train_on_batch custom`.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from models import WORKLOADS  # type: ignore[import-not-found]
from run import (  # type: ignore[import-not-found]
    HERE,
    Found,
    child,
    finish,
    free_ports,
    in_turn,
    median,
    parser_of,
    spread,
    together,
)

LOOPS = ("train_on_batch", "custom")
PROCESSES_OF = {"keras": 1, "keras_jit": 1, "mirrored": 2}
# Imports, traces and compilation of the largest model on a busy machine, before the timed part.
START_LIMIT_S = 180.0


def baseline(way: str, model: str, seconds: float) -> Found:
    """Time another way on a model for about `seconds` after its warm-up."""
    command = [sys.executable, str(HERE / "baseline_process.py"), way, model, "--seconds", str(seconds)]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(PROCESSES_OF[way])]
    clusters = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})
        for rank in range(len(addresses))
    ]
    commands = [[*command, *(["--tf-config", each] if len(clusters) > 1 else [])] for each in clusters]
    return together(commands, "steps_per_s", f"{way} on {model}", limit_s=START_LIMIT_S + 10 * seconds)


def measure(chosen: argparse.Namespace, model: str, way: str) -> Found:
    """One run of one way on a model."""
    if way in PROCESSES_OF:
        return baseline(way, model, chosen.seconds)
    options = ("--workers", chosen.workers, "--threads", chosen.threads, "--seconds", chosen.seconds)
    loop = way if way in LOOPS else "fit"
    return child("heliostat_process.py", model, *options, "--loop", loop, key="steps_per_s")


def row(model: str, runs: dict[str, list[Found]]) -> Found:
    """Rows per second of every way, spreads, and how many times as fast Heliostat is."""
    rates = {way: median(found, "samples_per_s") for way, found in runs.items()}
    found: Found = {"model": model, "rows/s": round(rates["heliostat"])}
    found["spread"] = round(spread(runs["heliostat"], "samples_per_s"), 2)
    for way in rates.keys() - {"heliostat"}:
        found |= {way: round(rates[way]), f"{way} spread": round(spread(runs[way], "samples_per_s"), 2)}
        found[f"to {way}"] = round(rates["heliostat"] / rates[way], 2)
    return found


def main() -> None:
    """Time the models one after another."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--ways", nargs="+", choices=[*PROCESSES_OF, *LOOPS], default=list(PROCESSES_OF))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    found: Found = {"rows": [], "step_ms": []}
    for model in chosen.models:
        runs = in_turn(["heliostat", *chosen.ways], chosen.rounds, partial(measure, chosen, model))
        found["rows"].append(row(model, runs))
        found["step_ms"].append({"model": model, **runs["heliostat"][-1]["step_ms"]})
        finish(chosen, "training", found)


if __name__ == "__main__":
    main()
