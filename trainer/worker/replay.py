"""Computing one step of a run again, alone, to look at it."""

from __future__ import annotations

import numpy as np

from ..engine.metrics import MetricSums
from ..engine.nonfinite import parts_by_variable
from ..engine.step import Step
from ..engine.tensors import all_finite
from ..environment import ReplayWanted
from ..jobs import MicrobatchReplay, ReplayReport


def replay_step(engine: Step, epoch: int, step: int, wanted: ReplayWanted) -> ReplayReport:
    """Compute microbatches of `step` of `epoch` one by one, without applying them; the state must be that before it."""
    microbatches, plan = engine.microbatches, engine.plan
    present = [index for index, here in enumerate(plan.present(step)) if here]
    indices = present if wanted.microbatch is None else [wanted.microbatch]
    found = []
    for index in indices:
        for _, (*float_buckets, sums, maxima) in microbatches.computed(step, epoch * plan.num_steps + step, [index]):
            rows = plan.sizes(step)[index]
            metric_sums = MetricSums.start(engine.metrics.layout)
            metric_sums.add(np.array(sums), np.array(maxima), rows)
            norms, broken = {}, []
            for variable, part in parts_by_variable(engine.built, microbatches.gradients.layout, float_buckets):
                norms[variable.path] = float(np.linalg.norm(part.astype(np.float64)))
                if not all_finite(part):
                    broken.append(variable.path)
            found.append(
                MicrobatchReplay(
                    number=index,
                    row_ids=tuple(int(i) for i in microbatches.feed.row_ids(step, index)),
                    logs=engine.metrics.logs_of(metric_sums),
                    norms=norms,
                    nonfinite=tuple(broken),
                )
            )
    return ReplayReport(epoch=epoch, step=step, present=tuple(present), microbatches=tuple(found))
