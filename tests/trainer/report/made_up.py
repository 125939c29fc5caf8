"""Runs that were never made, as a run folder would tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from heliostat.trainer.events import (
    CheckpointCommitted,
    EpochRecord,
    Event,
    FirstStepDone,
    GroupFormed,
    Paused,
    Rebalanced,
    WorkerLost,
)
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.samples import Sample, WorkerSample

BEGAN_S = 1_764_448_000.0
# Seconds of a step by part, for a worker that has nothing of its own to wait for.
PARTS = {"input_s": 0.004, "compute_s": 0.06, "local_sum_s": 0.002, "wait_s": 0.004, "all_reduce_s": 0.006}
PARTS |= {"apply_s": 0.012, "control_s": 0.0, "rest_s": 0.002, "hooks_s": 0.001, "save_s": 0.001, "validate_s": 0.006}
STEP_S = sum(PARTS.values())


def logs_of(epoch: float, metrics: int = 2) -> dict[str, Any]:
    """Metrics that get better."""
    rng = np.random.default_rng(int(epoch * 1000))
    noise = rng.normal(0, 0.01, 2 * metrics)
    found = {}
    for number in range(metrics):
        name = ("loss", "accuracy")[number] if number < 2 else f"metric_{number}"
        value = 2.2 * np.exp(-epoch / 4) + 0.3 if name != "accuracy" else 1 - 0.9 * np.exp(-epoch / 3)
        found[name] = float(value + noise[number])
        found[f"val_{name}"] = float(value * (1.05 if name != "accuracy" else 0.96) + noise[metrics + number])
    return found


def record(state: str = "finished", **fields: object) -> dict[str, Any]:
    """What ``run.json`` says."""
    return {
        "format_version": 3,
        "id": "mnist-20261129-203000-5f3a9c21",
        "state": state,
        "epochs": 12,
        "plan": {"workers": 3, "global_batch_size": 256, "num_microbatches": 8, "balance": True},
        "identity": {"loop": "fit", "seed": 7, "steps_per_epoch": None, "initial_epoch": 0},
        "data": {"train": {"path": "data/train", "rows": 5120, "fingerprint": "a1b2"}},
        "versions": {"heliostat": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1"},
        "workers": [{"worker": number, "host": "abc"[number], "pid": 1} for number in range(3)],
        "notes": ["The optimizer is compiled."],
        "seconds": 31.5,
        "sha256": {"weights": "ab" * 32, "optimizer": "cd" * 32},
        **fields,
    }


def sample(step: int, workers: Mapping[int, Mapping[str, float]], *, rows: int = 256, **fields: object) -> Sample:
    """After so many steps of workers whose steps take these seconds by part."""
    told = tuple(
        WorkerSample(
            worker=number,
            host="abc"[number % 3],
            step=step,
            rows=step * rows // len(workers),
            microbatches=8 // len(workers) if len(workers) <= 8 else 1,
            seconds={"first_step_s": 1.5} | {part: step * seconds for part, seconds in parts.items()},
            computed=step * 3,
            hooks={"Log.on_epoch_end": 0.001 * step} if number == 0 else {},
            memory={"host": 900_000_000 + 10_000_000 * number},
        )
        for number, parts in workers.items()
    )
    made = {"time": BEGAN_S + 3 + STEP_S * step, "epoch": step // 20, "rows": step * rows, "logs": {}} | fields
    return Sample(step=step, workers=told, **made)


def run(
    *, num_epochs: int = 12, num_workers: int = 3, metrics: int = 2, every: int = 5, **fields: object
) -> RecordedRun:
    """A run of 20 steps an epoch: worker 2 waits for its rows, worker 1 is lost in the fifth epoch."""
    workers = {number: dict(PARTS) for number in range(num_workers)}
    if num_workers > 2:
        workers[2] |= {"input_s": 0.05, "wait_s": 0.0}
    steps = 20 * num_epochs
    samples = [sample(step, workers, logs=logs_of(step / 20, metrics)) for step in range(0, steps + 1, every)]
    epochs = [
        EpochRecord(
            epoch=number,
            logs=logs_of(number + 1, metrics),
            rows=5120,
            rows_by_worker=dict.fromkeys(workers, 5120 // num_workers),
            seconds_by_worker={each: {part: 20 * value for part, value in workers[each].items()} for each in workers},
            time=BEGAN_S + 3 + STEP_S * 20 * (number + 1),
        )
        for number in range(num_epochs)
    ]
    return RecordedRun(
        record=record(**{"epochs": num_epochs} | fields),
        epochs=tuple(epochs),
        events=tuple(events(num_epochs)),
        samples=tuple(samples),
    )


def events(num_epochs: int) -> list[Event]:
    """What happens in such a run."""

    def at(epoch: float) -> float:
        return BEGAN_S + 3 + STEP_S * 20 * epoch

    hosts = dict(enumerate("abc"))
    found: list[Event] = [
        GroupFormed(generation=0, workers=(0, 1, 2), joined=(0, 1, 2), restarted=False, hosts=hosts, time=BEGAN_S),
        FirstStepDone(worker=0, seconds={"trace": 1.0}, after_s=3.0, time=at(0)),
        WorkerLost(worker=1, host="b", step=83, reason="killed by signal 9", left=2, time=at(4.15)),
        GroupFormed(generation=1, workers=(0, 2), joined=(), restarted=False, time=at(4.16)),
        Rebalanced(
            before={0: 4, 2: 4},
            after={0: 5, 2: 3},
            hosts={0: "a", 2: "c"},
            compute_s={0: 0.06, 2: 0.09},
            step_s=0.14,
            expected_s=0.11,
            time=at(6.5),
        ),
        Paused(reason="SIGTERM", checkpoint="000009-00000000.g1", time=at(9)),
    ]
    found += [
        CheckpointCommitted(
            name=f"{number:06d}-00000000.g0", epoch=number, step=0, seconds=0.01, write_s=0.1, time=at(number)
        )
        for number in range(1, num_epochs + 1)
    ]
    return sorted(found, key=lambda event: event.time)
