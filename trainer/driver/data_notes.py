"""What is said once, and kept in ``run.json``, of how a run's data become epochs."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.data.views.arriving import ArrivingDataset

from ..jobs import FitJob
from .streams import UNKNOWN, Stream

_FROZEN = "; augmentation in it is that of the first epoch (dataset.map(..., random=True) draws anew)"


def notes_on_data(job: FitJob, stream: Stream | None) -> Iterator[str]:
    """What a user should know of it, in lines.

    Args:
        job: the run.
        stream: what its rows come from; None where they are no stream's.
    """
    wanted, data = job.wanted, job.data
    steps, batches = job.num_steps, -(-len(data) // wanted.global_batch_size)
    if stream is not None:
        yield from _of_stream(job, stream)
    has_weights = wanted.columns.sample_weight is not None, wanted.validation_sample_weight is not None
    if job.validation_data is not None and has_weights == (True, False):
        yield "the rows to validate on have no sample_weight: each counts alike, as in Keras"
    if isinstance(data, ArrivingDataset) or wanted.steps_per_epoch is None:
        return
    if wanted.steps_per_epoch > batches:
        yield (
            f"steps_per_epoch={wanted.steps_per_epoch}, and the data have {batches} batches: an epoch ends after "
            "these, as in Keras"
        )
    elif steps < batches:
        rest = batches % steps
        short = f", the last of {rest}" if rest else ""
        yield (
            f"an epoch goes on where the one before has ended, as in Keras: the data are {-(-batches // steps)} epochs "
            f"of {steps} steps{short}"
        )


def _of_stream(job: FitJob, stream: Stream) -> Iterator[str]:
    rows = job.wanted.global_batch_size
    if isinstance(job.data, ArrivingDataset):
        batches = "batches" if job.wanted.is_open else f"{job.data.parts.num_batches} batches"
        all_of_it = "" if job.wanted.is_open else " in all"
        ends = "; should it end before, it is begun anew" if stream.num_batches == UNKNOWN else ""
        yield (
            f"{stream.kind} is read while it is trained on, {batches} of {rows} rows{all_of_it}{ends}; what lies "
            "before the oldest checkpoint is deleted"
        )
    else:
        is_repeated = job.wanted.epochs - job.wanted.initial_epoch > 1
        yield (
            f"{stream.kind} was read once: every epoch has its {len(job.data):,} rows, in their order"
            f"{_FROZEN if is_repeated else ''}"
        )
    if stream.batch_rows != rows:
        yield f"its batches of {stream.batch_rows} rows are put together anew, {rows} rows in a step"
