"""What the loss of a worker costs: real SIGKILLs of real worker processes, and what being ready for them costs.

    python scripts/benchmarks/recovery.py [--kills 60] [--stops 5] [--workers 3] [--model dense256] [--save]

One run of the trainer on Ray actors of this machine. Every few seconds a random worker is killed; the next kill waits
until its replacement has joined. Each worker's process writes down when it reaches which point of a step. Reported for
each kill: detection (the driver knows), regroup (the next generation stands), the stall (until a survivor has finished
the step that was interrupted, and so the next one begins), the microbatches that were computed twice, and the time
until the replacement has joined. In undisturbed steps between kills: what `Member` adds to the all-reduce itself, and
what a checkpoint adds to the copy. After the kills, workers are stopped (SIGSTOP) instead: they must be noticed by a
deadline. (What the same kills cost under Ray Train's TensorflowTrainer is kept in
docs/explanation/benchmarks/ray_train.json.)
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import run  # type: ignore[import-not-found]
from disturb import Events, Kill, disturbed, events_of, formed_in, kill, lost_in, members, noted, wait_until  # type: ignore

if TYPE_CHECKING:
    from heliostat.trainer import Trainer

QUIET_S = 2.0


def disturb(
    kills: list[Kill], faults: Iterable[signal.Signals], seed: int, trainer: Trainer, run_dir: Path, notes: Path
) -> None:
    """Kill or stop a random worker again and again, each time after the group is complete and has worked a while."""
    chance, num_workers = random.Random(seed), len(trainer.hosts)

    def is_complete() -> bool:
        here = members(events_of(run_dir), kills)
        return len(here) == num_workers and set(here) <= set(trainer._runs.workers.infos)

    for fault in faults:
        wait_until(is_complete, "not all workers were replaced")
        time.sleep(QUIET_S + chance.random())
        here = members(events_of(run_dir), kills)
        victim = chance.choice(here)
        kills.append(kill(trainer, [victim], fault, chief=here[0]))
        wait_until(lambda victim=victim: victim in lost_in(events_of(run_dir)), "a lost worker was not noticed")
    wait_until(is_complete, "not all workers were replaced")
    time.sleep(QUIET_S)


def report(kills: list[Kill], run_dir: Path, notes: Path) -> run.Found:
    """Costs of all kills, and of the undisturbed steps, from what was written down; times in milliseconds."""
    events, applied, begun = events_of(run_dir), noted(notes, "applied"), noted(notes, "microbatch")
    costs = {name: list(costs_of(kills, name, events, applied, begun)) for name in ("SIGKILL", "SIGSTOP")}
    copies = [event for event in events if event["event"] == "checkpoint"]
    splits = [each for epoch in run.lines(run_dir / "metrics.jsonl") for each in epoch["seconds_by_worker"].values()]
    return {
        "faults": len(kills),
        "of_the_chief": sum(kill.of_chief for kill in kills),
        "step_ms": summary(undisturbed_steps(applied, events)),
        **{
            fault: {"measured": len(found), **{name: summary(row[name] for row in found) for name in found[0]}}
            for fault, found in costs.items()
            if found
        },
        "control_percent_of_a_step": summary(
            100 * (each["control_s"] + each.get("save_s", 0.0)) / sum(each.values()) for each in splits
        ),
        "checkpoint_copy_ms": summary(1000 * each["seconds"] for each in copies),
        "checkpoint_write_ms": summary(1000 * each["write_s"] for each in copies),
    }


def costs_of(
    kills: list[Kill], fault: str, events: Events, applied: Events, begun: Events
) -> Iterator[dict[str, float]]:
    """What each kill by a signal cost, of those that were over before the run was."""
    for each in kills:
        (victim,), at = each.workers, each.time
        lost = next((e for e in events if e["event"] == "lost" and e["worker"] == victim), None)
        formed = next((e for e in formed_in(events) if e["time"] > at), None)
        joined = next((e for e in formed_in(events) if e["time"] > at and e["joined"]), None)
        if each.signal != fault or lost is None or formed is None or joined is None:
            continue
        others = [p for p in applied if p["worker"] != victim]
        first = next((p for p in others if p["time"] > formed["time"]), None)
        after_join = next((p for p in others if p["time"] > joined["time"]), None)
        before_join = [p for p in others if p["time"] <= joined["time"]]
        if first is None or after_join is None or not before_join:
            continue
        of_steps = Counter(note["step"] for note in begun)
        yield {
            "detection_ms": 1000 * (lost["time"] - at),
            "regroup_ms": 1000 * (formed["time"] - lost["time"]),
            "stall_ms": 1000 * (first["time"] - at),
            "microbatches_computed_twice": of_steps[first["step"]] - statistics.mode(of_steps.values()),
            "replacement_joined_s": joined["time"] - at,
            "stall_of_the_join_ms": 1000 * (after_join["time"] - before_join[-1]["time"]),
        }


def undisturbed_steps(applied: Events, events: Events) -> list[float]:
    """Durations of steps in milliseconds, away from any change of the group."""
    changes = [event["time"] for event in events if event["event"] in ("lost", "formed")]
    durations = []
    by_worker: dict[int, run.Found] = {}
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


def main() -> None:
    """Train with kills; what each cost and what readiness costs."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--model", default="dense256")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    kills: list[Kill] = []
    faults = [signal.SIGKILL] * chosen.kills + [signal.SIGSTOP] * chosen.stops
    killing = partial(disturb, kills, faults, chosen.seed)
    with disturbed(chosen.model, killing, workers=chosen.workers) as (run_dir, notes):
        found = report(kills, run_dir, notes)
    run.finish(chosen, "recovery", {"heliostat": found})


if __name__ == "__main__":
    main()
