"""A finished epoch, and its line in ``metrics.jsonl`` and in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """A finished epoch, as the driver publishes it.

    Attributes:
        epoch: its number, from 0.
        logs: global training and validation metrics.
        rows: rows trained on, over all workers.
        rows_by_worker: the same by worker, those that were lost meanwhile included.
        times_by_worker: seconds by part of a step, by worker.
        row_ids: per step the rows of each worker, in order of rank, if recorded.
        stopped: whether callbacks ended the run with it.
    """

    epoch: int
    logs: dict[str, Any]
    rows: int
    rows_by_worker: dict[int, int]
    times_by_worker: dict[int, dict[str, float]]
    row_ids: tuple[tuple[tuple[int, ...], ...], ...] = ()
    stopped: bool = False


def line_of(record: EpochRecord, *, proofs: bool = False) -> dict[str, Any]:
    """An epoch as a line of ``metrics.jsonl``; with `proofs` its row ids as well, if they were recorded."""
    line = {
        "epoch": record.epoch,
        **record.logs,
        "rows": record.rows,
        "rows_by_worker": {str(worker): rows for worker, rows in record.rows_by_worker.items()},
        "seconds_by_worker": {str(worker): times for worker, times in record.times_by_worker.items()},
        "stopped": record.stopped,
    }
    return line | {"row_ids": record.row_ids} if proofs and record.row_ids else line


def record_of(line: Mapping[str, Any]) -> EpochRecord:
    """The epoch of a line."""
    known = ("epoch", "time", "rows", "rows_by_worker", "seconds_by_worker", "stopped", "row_ids")
    return EpochRecord(
        epoch=line["epoch"],
        logs={name: value for name, value in line.items() if name not in known},
        rows=line["rows"],
        rows_by_worker={int(worker): rows for worker, rows in line["rows_by_worker"].items()},
        times_by_worker={int(worker): times for worker, times in line["seconds_by_worker"].items()},
        row_ids=tuple(tuple(tuple(ids) for ids in step) for step in line.get("row_ids", ())),
        stopped=line["stopped"],
    )


def history_of(epochs: list[EpochRecord]) -> dict[str, list[Any]]:
    """Metric name -> values by epoch; None where an epoch lacks a metric that others have."""
    names = dict.fromkeys(name for record in epochs for name in record.logs)
    return {name: [record.logs.get(name) for record in epochs] for name in names}
