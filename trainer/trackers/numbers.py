"""What trackers send of a run, as pure functions of what it records: parameters, metrics, texts.

Names are those of the run folder and of Keras's history (``loss``, ``val_loss``), so that whoever knows one finds it in
the other. Workers tell sums of seconds since the run began; a curve wants to know what happened lately, so shares of
time are those between two samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from ..driver.event_lines import EventLines
from ..driver.run_folder import read_run
from ..driver.shown_text import masked
from ..errors import TrainerError
from ..events import CheckpointCommitted, EpochRecord, Event
from ..report.verdict import verdict_of
from ..samples import Sample, WorkerSample

MAX_LETTERS = 500  # of a parameter or text; what MLflow and W&B take differs, and nobody reads more
_CONFIGURATION = ("identity", "plan", "data", "versions", "platform")

Value = str | int | float | bool


def parameters(record: Mapping[str, Any]) -> dict[str, Value]:
    """How a run is computed, flat, by name; two things of one name are equal in a run.

    Args:
        record: what ``run.json`` says.
    """
    found: dict[str, Value] = {}
    for part in _CONFIGURATION:
        prefix = "" if part in ("identity", "plan") else f"{part}."
        found |= {f"{prefix}{name}": value for name, value in _flat(record.get(part, {}))}
    for name in ("epochs", "num_weights"):
        if name in record:
            found[name] = record[name]
    return found


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Value]]:  # JSON
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, str):
        yield name, masked(value)[:MAX_LETTERS]
    elif isinstance(value, bool | int | float):
        yield name, value
    elif value is not None:
        yield name, masked(json.dumps(value))[:MAX_LETTERS]


def epoch_metrics(record: EpochRecord, seconds: float) -> dict[str, float]:
    """The numbers of an epoch by name: training and validation metrics, its length, rows per second.

    Args:
        record: the epoch.
        seconds: how long it took.
    """
    found = plain_numbers(record.logs)
    if seconds > 0:
        found |= {"epoch_s": seconds, "samples_per_s": record.rows / seconds}
    return found


def plain_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch's logs is a number; callbacks may put anything there."""
    flat: dict[str, float] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": each for key, each in plain_numbers(value).items()}
        elif isinstance(value, Real) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat


def sample_metrics(now: Sample, before: Sample | None) -> dict[str, float]:
    """Speed and, by worker, where the time went between two samples, memory and microbatches.

    Args:
        now: the later sample.
        before: the earlier one; None counts from the beginning.
    """
    found: dict[str, float] = {}
    if before is not None and now.time > before.time and now.rows >= before.rows:
        found["samples_per_s"] = (now.rows - before.rows) / (now.time - before.time)
    earlier = {} if before is None else {each.worker: each for each in before.workers}
    for worker in now.workers:
        at = f"workers/{worker.worker}"
        found |= {f"{at}/{part}": share for part, share in shares(worker, earlier.get(worker.worker)).items()}
        found |= {f"{at}/memory_{where}_bytes": float(size) for where, size in worker.memory.items()}
        found[f"{at}/microbatches"] = float(worker.microbatches)
    return found


def shares(now: WorkerSample, before: WorkerSample | None) -> dict[str, float]:
    """The share of each part in a worker's time between two samples: "wait_share" for `wait_s`; they add up to 1.

    Args:
        now: the later one.
        before: the earlier one; None, or that of a worker that has begun anew since, counts from its beginning.
    """
    spent = now.spent_since(before)
    total = sum(spent.values())
    return {f"{part.removesuffix('_s')}_share": seconds / total for part, seconds in spent.items()} if total else {}


def event_text(event: Event) -> str:
    """What is said of an event, in one line or more; empty where that is nothing."""
    if isinstance(event, CheckpointCommitted):
        return f"checkpoint {event.name}: epoch {event.epoch + 1}, step {event.step}"
    return masked(EventLines().line_of(event))


def verdict_in(path: Path) -> str:
    """The verdict on the run in a folder, in one sentence; empty where the folder cannot be read."""
    try:
        return masked(verdict_of(read_run(path)).sentence)
    except (TrainerError, OSError):
        return ""
