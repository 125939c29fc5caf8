"""Values that a run tells its trackers, for tests without a run."""

from __future__ import annotations

from heliostat.trainer.events import EpochRecord
from heliostat.trainer.samples import Sample, WorkerSample

RECORD = {
    "id": "news-1-0123abcd",
    "state": "running",
    "epochs": 3,
    "num_weights": 1234,
    "identity": {"seed": 7, "loop": "fit", "data": {"train": "f00d"}, "initial_weights": None, "columns": ["x", "y"]},
    "plan": {"workers": 2, "global_batch_size": 64, "balance": True},
    "data": {"train": {"path": "s3://me:secret@bucket/news", "rows": 1000}},
    "versions": {"keras": "3.15.1"},
}


def epoch(number: int = 0, **logs: object) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        logs={"loss": 0.5 - number / 10, "val_loss": 0.75, **logs},
        rows=1000,
        rows_by_worker={0: 600, 1: 400},
        seconds_by_worker={},
        time=1_700_000_000.0 + number,
    )


def worker(number: int, compute_s: float, wait_s: float, rows: int = 0) -> WorkerSample:
    return WorkerSample(
        worker=number,
        host=f"host-{number}",
        step=10,
        rows=rows,
        microbatches=4,
        seconds={"compute_s": compute_s, "wait_s": wait_s},
        hooks={"CSVLogger.on_epoch_end": 0.25} if number == 0 else {},
        memory={"host": 5 << 20},
    )


def sample(step: int, *workers: WorkerSample, rows: int = 0, at_s: float = 0.0) -> Sample:
    return Sample(epoch=0, step=step, rows=rows, logs={"loss": 0.625}, workers=workers, time=1_700_000_000.0 + at_s)
