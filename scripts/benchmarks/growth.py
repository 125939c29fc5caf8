"""How overhead grows with the number of workers: measured on a tiny model, and carried on by a fitted model.

    python scripts/benchmarks/growth.py [--workers 1 2 4 8] [--json FILE]

What is measured is processor time, of every worker and of the driver, since here the workers share a few cores and
their elapsed times would mean nothing. Two fits with each number of workers: long epochs, whose cost is that of steps,
and short ones, from which the cost of an epoch's end follows. Every worker has one microbatch of one row, so that a
worker's own work is the same for any number of them: with a fixed number of microbatches their cost and that of peers
cannot be told apart. Then, by least squares over the numbers of workers:

    a worker's step         fixed + any_peer * (P > 1) + per_peer * (P - 1)
    the driver, per second  fixed + per_worker * P      (heartbeats: it is not asked in a step)
    the driver, per epoch   fixed + per_worker * P
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

MAX_WORKERS, NUM_FEATURES = 8, 8
LONG, SHORT = {"steps": 600, "epochs": 4}, {"steps": 8, "epochs": 40}
LOOK_EVERY_S = 0.02
MACHINES, GPUS_PER_MACHINE = (2, 4, 8, 16, 32, 64, 128, 256), 8


class Watch:
    """Notes the processor time of some processes again and again."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._looks: list[tuple[float, dict[str, float]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def between(self, name: str, began: float, ended: float) -> float:
        """Processor seconds of a process between two moments."""
        times = [at for at, _ in self._looks]
        used = [each[name] for _, each in self._looks]
        return float(np.interp(ended, times, used) - np.interp(began, times, used))

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            used = {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}
            self._looks.append((time.time(), used))


def run(workers: int) -> dict[str, Any]:
    """In a process of its own, the driver: both fits with so many Ray workers."""
    import keras
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    def build() -> Any:
        model = keras.Sequential([keras.Input((NUM_FEATURES,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    found: dict[str, Any] = {"workers": workers}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(LONG["steps"] * MAX_WORKERS, NUM_FEATURES)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as folder:
        write_dataset(Path(folder) / "data", {"x": x, "y": x[:, :1]})
        with Trainer(
            build, workers=workers, num_microbatches=workers, run_dir=Path(folder) / "run", threads_per_worker=1
        ) as trainer:
            fit = {"global_batch_size": workers, "checkpoint_every": None, "verbose": 0}
            first = trainer.fit(Path(folder) / "data", epochs=1, steps_per_epoch=1, **fit)  # type: ignore[arg-type]
            record = json.loads((first.run_dir / "run.json").read_text())
            pids = {str(each["worker"]): each["pid"] for each in record["workers"]}
            for name, size in (("long", LONG), ("short", SHORT)):
                watch = Watch(pids | {"driver": psutil.Process().pid})
                result = trainer.fit(
                    Path(folder) / "data",
                    epochs=size["epochs"],
                    steps_per_epoch=size["steps"],
                    **fit,  # type: ignore[arg-type]
                )
                watch.close()
                lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
                began, ended, epochs = lines[0]["time"], lines[-1]["time"], len(lines) - 1
                found[name] = {
                    "seconds": ended - began,
                    "epochs": epochs,
                    "steps": epochs * size["steps"],
                    "driver": watch.between("driver", began, ended),
                    "worker": float(np.mean([watch.between(pid, began, ended) for pid in pids])),
                }
    return found


def costs(found: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of processor time: of a worker's step, and of the driver per second and per epoch's end."""
    long, short = found["long"], found["short"]
    step_ms = 1000 * long["worker"] / long["steps"]
    second_ms = 1000 * long["driver"] / long["seconds"]
    epoch_ms = (1000 * short["driver"] - second_ms * short["seconds"]) / short["epochs"]
    return {"step": step_ms, "driver_second": second_ms, "driver_epoch": max(0.0, epoch_ms)}


def fitted(numbers: Sequence[int], measured: Sequence[float], terms: dict[str, Any]) -> dict[str, list[float]]:
    """Coefficient and standard error of every term, by least squares; nothing is left out that comes out negative."""
    matrix = np.array([[term(number) for term in terms.values()] for number in numbers], float)
    target = np.array(measured)
    solution = np.linalg.lstsq(matrix, target, rcond=None)[0]
    rest, freedom = target - matrix @ solution, len(numbers) - len(terms)
    variance = float(rest @ rest) / freedom if freedom > 0 else float("nan")
    errors = np.sqrt(np.diag(variance * np.linalg.inv(matrix.T @ matrix)))
    return {name: [float(c), float(e)] for name, c, e in zip(terms, solution, errors, strict=True)}


def model_of(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fitted coefficients with their standard errors, in milliseconds of processor time."""
    numbers = [each["workers"] for each in found]
    by_number = [costs(each) for each in found]
    step = {"fixed": lambda _: 1.0, "any_peer": lambda p: float(p > 1), "per_peer": lambda p: p - 1.0}
    driver = {"fixed": lambda _: 1.0, "per_worker": float}
    return {
        "step": fitted(numbers, [each["step"] for each in by_number], step),
        "driver_second": fitted(numbers, [each["driver_second"] for each in by_number], driver),
        "driver_epoch": fitted(numbers, [each["driver_epoch"] for each in by_number], driver),
    }


def carried_on(model: dict[str, Any], *, gradient_bytes: float, link_bytes_per_s: float) -> str:
    """What the model says of many machines with one worker each."""
    step, second, epoch = model["step"], model["driver_second"], model["driver_epoch"]
    lines = [
        f"Assumed, not measured: one worker per machine; {GPUS_PER_MACHINE} GPUs a machine, whose own sum is left out;",
        f"gradients of {gradient_bytes / 1e6:.0f} MB;",
        f"{link_bytes_per_s / 1e9:.1f} GB/s per machine each way, whoever it talks to; no overlap, no stragglers.",
        "Measured: the fixed cost, that of peers (with twice its standard error), and the driver's;",
        "beyond 8 workers they are carried on in a straight line.",
        "",
        f"{'machines':>8} {'GPUs':>6} {'fixed ms':>9} {'peers ms':>16} {'transfer ms':>12} "
        f"{'driver, of a core':>18} {'epoch end ms':>13}",
    ]
    for machines in MACHINES:
        peers, spread = (part * (machines - 1) for part in step["per_peer"])
        transfer = 1000 * 2 * (machines - 1) / machines * gradient_bytes / link_bytes_per_s
        driver = (second["fixed"][0] + second["per_worker"][0] * machines) / 1000
        end = epoch["fixed"][0] + epoch["per_worker"][0] * machines
        fixed = step["fixed"][0] + step["any_peer"][0]
        lines.append(
            f"{machines:8} {machines * GPUS_PER_MACHINE:6} {fixed:9.2f} {peers:8.2f} ± {2 * spread:5.2f} "
            f"{transfer:12.1f} {driver:18.1%} {end:13.1f}"
        )
    return "\n".join(lines)


def limits(model: dict[str, Any], *, gradient_bytes: float, link_bytes_per_s: float) -> str:
    """In words: which cost is the first to grow out of hand."""
    (per_peer, error), second = model["step"]["per_peer"], model["driver_second"]
    bandwidth_ms = 2000 * gradient_bytes / link_bytes_per_s
    found = []
    if per_peer > 2 * error:
        found.append(
            f"The cost per peer of a full mesh equals the transfer of the gradient ({bandwidth_ms:.0f} ms) at "
            f"{1 + bandwidth_ms / per_peer:.0f} machines."
        )
    else:
        found.append(f"The cost per peer ({per_peer:.3f} ± {2 * error:.3f} ms) cannot be told from nothing by this.")
    if second["per_worker"][0] > 2 * second["per_worker"][1]:
        most = (1000 - second["fixed"][0]) / second["per_worker"][0]
        found.append(f"The driver's heartbeats fill one core at {most:.0f} workers.")
    return "\n".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--gradient-mb", type=float, default=100.0)
    parser.add_argument("--link-gb-s", type=float, default=2.5, help="of one machine, each way")
    parser.add_argument("--json", type=Path, help="written after every number of workers, and read again")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        print(json.dumps(run(chosen.one)))
        return
    known: dict[int, Any] = {}
    if chosen.json and chosen.json.exists():
        known = {each["workers"]: each for each in json.loads(chosen.json.read_text())}
    for number in chosen.workers:
        if number not in known:
            command = [sys.executable, __file__, "--one", str(number)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            known[number] = json.loads(done.stdout.splitlines()[-1])
            if chosen.json:
                chosen.json.write_text(json.dumps(list(known.values()), indent=1))
    found = [known[number] for number in sorted(known)]
    print("milliseconds of processor time: a worker's step, the driver's second, the driver's end of an epoch")
    for each in found:
        cost, long = costs(each), each["long"]
        print(
            f"{each['workers']:3} workers  {cost['step']:7.3f}  {cost['driver_second']:7.2f}  "
            f"{cost['driver_epoch']:7.2f}   (elapsed per step {1000 * long['seconds'] / long['steps']:.2f})"
        )
    model = model_of(found)
    print(json.dumps(model, indent=1))
    sizes = {"gradient_bytes": chosen.gradient_mb * 1e6, "link_bytes_per_s": chosen.link_gb_s * 1e9}
    print(carried_on(model, **sizes))
    print(limits(model, **sizes))


if __name__ == "__main__":
    main()
