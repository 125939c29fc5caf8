"""The probe of a run's steps, before the first: which rows it looks at, and what the driver hears of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..columns import row_weigher
from ..engine.logs import StepLogs
from ..engine.microbatches import Microbatches
from ..engine.probe import NUM_ROWS, Probed, probe
from ..engine.probe_look import Observer
from ..engine.scoped_step import to_floatx
from ..engine.times import StartTimes
from ..events import ProbeSlow, StepProbed
from ..jobs import FitJob
from .step_functions import StepToTrace


def probe_run(
    job: FitJob, steps: Sequence[tuple[StepToTrace, Microbatches]], member: Member, times: StartTimes
) -> None:
    """Look at the steps of a run that begins, on every worker alike; the chief tells what there is to say.

    Args:
        job: the run.
        steps: those that it is made of, and their microbatches.
        member: this worker's membership.
        times: where the time for it is noted.

    Raises:
        UnsupportedStepError: a step computes what microbatches cannot.
    """
    if not job.wanted.probe or job.settings.total_microbatches == 1 or job.replay is not None:
        return
    began_s = time.perf_counter()
    member.note_activity(Activity.SET_UP)

    def say_slow(line: str) -> None:
        if member.is_chief:
            member.send(ProbeSlow(line=line))

    notes: list[str] = []
    with times.part("probe"):
        for step, microbatches in steps:
            notes += probe(microbatches.built, _probed(step, microbatches), say_slow)
    if member.is_chief:
        member.send(StepProbed(seconds=round(time.perf_counter() - began_s, 4), notes=tuple(notes)))


def _probed(step: StepToTrace, microbatches: Microbatches) -> Probed:
    gradients = microbatches.gradients
    columns, trains = gradients.columns, step.kind == "train"

    def run(rows: Mapping[str, tf.Tensor]) -> StepLogs:
        batch = {name: to_floatx(values) for name, values in rows.items()}
        return step.function(*columns.assemble(batch))

    logged = {name for name, _ in gradients.layout.metrics.logged}
    return Probed(
        observer=Observer(microbatches.built, run, trains=trains, logged=logged),
        kind="training step" if trains else "validation step",
        rows=_some_rows(microbatches),
        reduction=step.reduction,
        weigh=row_weigher(columns) if step.reduction == "mean_with_sample_weight" else None,
        batch_rows=microbatches.feed.plan.global_batch_size,
    )


def _some_rows(microbatches: Microbatches) -> dict[str, np.ndarray]:
    """Rows of the first batch, from as few of its microbatches as hold enough."""
    sizes, wanted = microbatches.feed.plan.sizes(0), 2 * NUM_ROWS
    num = next((num for num in range(1, len(sizes) + 1) if sum(sizes[:num]) >= wanted), len(sizes))
    read = microbatches.read(0, range(num))
    columns = read[0].batch
    return {name: np.concatenate([np.array(each.batch[name]) for each in read])[:wanted] for name in columns}
