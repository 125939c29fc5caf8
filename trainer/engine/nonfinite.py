"""Microbatches of a step computed again, one by one: to find one that is not finite, or to look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from heliostat.cluster.assignment import Range

from ..environment import ReplayWanted
from ..jobs import MicrobatchReplay, Numbering, ReplayReport
from .layout import split_by_variable
from .metrics import EpochMetrics, MetricSums
from .microbatches import Microbatches
from .tensors import all_finite


def nonfinite_microbatch(
    microbatches: Microbatches, seed_step: int, step: int, ranges: Sequence[Range]
) -> tuple[int, tuple[str, ...]] | None:
    """Compute microbatches of a step again, one by one, until one is not finite.

    Args:
        microbatches: computes them.
        seed_step: the step of the run, from which random seeds come.
        step: the step of the epoch.
        ranges: those to look at.

    Returns:
        the index of the first that is not finite, and the paths of the variables concerned; None if all are finite.
    """
    layout = microbatches.function.layout
    for lo, hi in sorted(ranges):
        rows = microbatches.read(step, range(lo, hi))
        for (_, index), (*float_buckets, _, _) in microbatches.computed(rows, seed_step):
            if not all(map(all_finite, float_buckets)):
                parts = split_by_variable(float_buckets, layout.variables_per_bucket, layout.parts)
                return index, tuple(part.name for part, values in parts if not all_finite(values))
    return None


def replay_step(
    microbatches: Microbatches,
    metrics: EpochMetrics,
    numbering: Numbering,
    epoch: int,
    step: int,
    wanted: ReplayWanted,
) -> ReplayReport:
    """Compute microbatches of a step again without applying them; the model's state must be that before the step.

    Args:
        microbatches: computes them.
        metrics: tells what of their vectors are metrics.
        numbering: of epochs and steps.
        epoch: number of the epoch; `step` is the step's number in it.
        step: see `epoch`.
        wanted: which microbatch; all of the step if it names none.
    """
    plan = microbatches.feed.plan
    present = [index for index, here in enumerate(plan.present(step)) if here]
    found, seed_step = [], numbering.seed_step(epoch, step, plan.num_steps)
    for index in present if wanted.microbatch is None else [wanted.microbatch]:
        rows = microbatches.read(step, [index])
        for _, (*float_buckets, sums, maxima) in microbatches.computed(rows, seed_step):
            metric_sums = MetricSums.start(metrics.layout)
            metric_sums.add(np.array(sums), np.array(maxima), plan.sizes(step)[index])
            norms, broken = {}, []
            layout = microbatches.function.layout
            for part, values in split_by_variable(float_buckets, layout.variables_per_bucket, layout.parts):
                norms[part.name] = float(np.linalg.norm(values.astype(np.float64)))
                if not all_finite(values):
                    broken.append(part.name)
            found.append(
                MicrobatchReplay(
                    number=index,
                    row_ids=tuple(int(i) for i in microbatches.feed.row_ids(step, index)),
                    logs=metrics.logs_of(metric_sums),
                    norms=norms,
                    nonfinite=tuple(broken),
                )
            )
    return ReplayReport(
        epoch=epoch,
        step=step,
        present=tuple(present),
        microbatches=tuple(found),
        pass_number=numbering.pass_of(epoch),
    )
