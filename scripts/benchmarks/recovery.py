"""What the loss of a worker costs: real SIGKILLs of real worker processes, and what being ready for them costs.

    python scripts/benchmarks/recovery.py [--kills 60] [--stops 5] [--workers 3] [--model dense256] [--ray-train KILLS]

One run of the trainer on Ray actors of this machine. Every few seconds a random worker is killed; the next kill waits
until its replacement has joined. Each worker's process writes down when it reaches which point of a step. Reported for
each kill: detection (the driver knows), regroup (the next generation stands), the stall (until a survivor has finished
the step that was interrupted, and so the next one begins), the microbatches that were computed twice, and the time
until the replacement has joined. In undisturbed steps between kills: what `Member` adds to the all-reduce itself, and
what a checkpoint adds to the copy. After the kills, workers are stopped (SIGSTOP) instead: they must be noticed by a
deadline. With --ray-train the same kills under Ray Train's TensorflowTrainer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import instrument  # type: ignore[import-not-found]

ENDLESS_EPOCHS = 1_000_000
QUIET_S = 2.0


class Killer(threading.Thread):
    """Kills or stops a random worker again and again, each time after the group is complete and has worked a while."""

    def __init__(self, trainer: Any, num_workers: int, run_dir: Path, kills: int, stops: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._trainer, self._num_workers, self._run_dir = trainer, num_workers, run_dir
        self._left, self._random = [signal.SIGKILL] * kills + [signal.SIGSTOP] * stops, random.Random(seed)
        self.kills: list[dict[str, Any]] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Kill until enough."""
        while self._left:
            time.sleep(QUIET_S + self._random.random())
            members = self._members()
            infos = self._trainer._workers.infos
            if len(members) < self._num_workers or any(worker not in infos for worker in members):
                continue
            victim = self._random.choice(members)
            pid = infos[victim].pid
            fault = self._left.pop(0)
            chief = victim == members[0]
            self.kills.append({"worker": victim, "time": time.time(), "chief": chief, "signal": fault.name})
            os.kill(pid, fault)
            while not any(event["event"] == "lost" and event["worker"] == victim for event in events_of(self._run_dir)):
                time.sleep(0.1)
        time.sleep(QUIET_S)
        while len(self._members()) < self._num_workers:
            time.sleep(0.2)
        self.over.set()

    def _members(self) -> list[int]:
        formed = [event for event in events_of(self._run_dir) if event["event"] == "formed"]
        lost = {event["worker"] for event in events_of(self._run_dir) if event["event"] == "lost"}
        return [worker for worker in formed[-1]["workers"] if worker not in lost] if formed else []


def events_of(run_dir: Path) -> list[dict[str, Any]]:
    """The run's events so far."""
    path = run_dir / "events.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def measure(model: str, *, workers: int, kills: int, stops: int, seed: int) -> dict[str, Any]:
    """Train with kills; returns what each cost and what readiness costs."""
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND="tensorflow")
    import cloudpickle
    import models  # type: ignore[import-not-found]
    from heliostat.data import write_dataset
    from heliostat.trainer import RunPausedError, Trainer

    for module in (models, instrument):
        cloudpickle.register_pickle_by_value(module)  # workers cannot import a script's neighbour
    workload = models.WORKLOADS[model]
    x, y = models.make_data(model)
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        folder = Path(name)
        write_dataset(folder / "data", {"x": x, "y": y})
        build = partial(instrument.build_instrumented, partial(models.build_model, model), str(folder / "points"))
        with Trainer(build, workers=workers, run_dir=folder / "run", threads_per_worker=1) as trainer:
            killer = Killer(trainer, workers, folder / "run", kills, stops, seed)

            def pause() -> None:
                killer.over.wait()
                os.kill(os.getpid(), signal.SIGTERM)

            killer.start()
            threading.Thread(target=pause, daemon=True).start()
            with contextlib.suppress(RunPausedError):
                trainer.fit(
                    folder / "data", epochs=ENDLESS_EPOCHS, global_batch_size=workload.global_batch_size, verbose=2
                )
        points = instrument.read_points(folder / "points")
        return report(killer.kills, events_of(folder / "run"), points)


def report(kills: list[dict[str, Any]], events: list[dict[str, Any]], points: list[dict[str, Any]]) -> dict[str, Any]:
    """Costs of all kills, and of the undisturbed steps, from what was written down; times in milliseconds."""
    applied = sorted((p for p in points if p["point"] == "applied"), key=lambda p: p["time"])
    steps = undisturbed_steps(applied, events)
    rows = {
        name: [
            row
            for kill in kills
            if kill["signal"] == name and (row := cost_of(kill, events, applied, points)) is not None
        ]
        for name in ("SIGKILL", "SIGSTOP")
    }
    waits = [(p["outer_s"] - p["inner_s"]) / p["outer_s"] for p in points if p["point"] == "cost"]
    copies = [p for p in points if p["point"] == "checkpoint"]
    return {
        "faults": len(kills),
        "of_the_chief": sum(kill["chief"] for kill in kills),
        "step_ms": summary(steps),
        **{
            fault: {"measured": len(found), **{name: summary(row[name] for row in found) for name in found[0]}}
            for fault, found in rows.items()
            if found
        },
        "ready_percent_of_a_step": summary(100 * wait for wait in waits),
        "checkpoint_beyond_copy_ms": summary(1000 * (p["outer_s"] - p["inner_s"]) for p in copies),
        "checkpoint_copy_ms": summary(1000 * p["inner_s"] for p in copies),
    }


def cost_of(
    kill: dict[str, Any],
    events: list[dict[str, Any]],
    applied: list[dict[str, Any]],
    points: list[dict[str, Any]],
) -> dict[str, float] | None:
    """What one kill cost; None if the run ended before it was over."""
    at = kill["time"]
    lost = next((e for e in events if e["event"] == "lost" and e["worker"] == kill["worker"]), None)
    formed = next((e for e in events if e["event"] == "formed" and e["time"] > at), None)
    joined = next((e for e in events if e["event"] == "formed" and e["time"] > at and e["joined"]), None)
    if lost is None or formed is None or joined is None:
        return None
    others = [p for p in applied if p["worker"] != kill["worker"]]
    first = next((p for p in others if p["time"] > formed["time"]), None)
    after_join = next((p for p in others if p["time"] > joined["time"]), None)
    before_join = [p for p in others if p["time"] <= joined["time"]]
    if first is None or after_join is None or not before_join:
        return None
    computed = sum(p["num"] for p in points if p["point"] == "computed" and p["step"] == first["step"])
    return {
        "detection_ms": 1000 * (lost["time"] - at),
        "regroup_ms": 1000 * (formed["time"] - lost["time"]),
        "stall_ms": 1000 * (first["time"] - at),
        "microbatches_computed_twice": computed - first["num"],
        "replacement_joined_s": joined["time"] - at,
        "stall_of_the_join_ms": 1000 * (after_join["time"] - before_join[-1]["time"]),
    }


def undisturbed_steps(applied: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[float]:
    """Durations of steps in milliseconds, away from any change of the group."""
    changes = [event["time"] for event in events if event["event"] in ("lost", "formed")]
    durations = []
    by_worker: dict[int, dict[str, Any]] = {}
    for point in applied:
        before = by_worker.get(point["worker"])
        by_worker[point["worker"]] = point
        if before is not None and not any(before["time"] - 1 < change < point["time"] + 1 for change in changes):
            durations.append(1000 * (point["time"] - before["time"]))
    return durations


def summary(values: Iterable[float]) -> dict[str, float]:
    """p50, p95 and the largest."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))
    return {
        name: round(v, 3)
        for name, v in (("p50", statistics.median(ordered)), ("p95", ordered[at]), ("max", ordered[-1]))
    }


def ray_train(model: str, workers: int, kills: int) -> dict[str, Any]:
    """The same under Ray Train, in a process of its own (legacy Keras)."""
    command = [sys.executable, str(Path(__file__).with_name("recovery_ray_train.py")), model, str(workers), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the Ray Train baseline failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run what the command line asks for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dense256")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray-train", type=int, default=0, metavar="KILLS", help="also so many kills under Ray Train")
    chosen = parser.parse_args()
    run: Callable[[], dict[str, Any]] = partial(
        measure, chosen.model, workers=chosen.workers, kills=chosen.kills, stops=chosen.stops, seed=chosen.seed
    )
    print(json.dumps({"heliostat": run()}, indent=1), flush=True)
    if chosen.ray_train:
        print(json.dumps({"ray_train": ray_train(chosen.model, chosen.workers, chosen.ray_train)}, indent=1))


if __name__ == "__main__":
    main()
