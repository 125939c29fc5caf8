"""A step computed again without being applied, its microbatches one by one, to look at them.

A phase of a step is computed from what the phases before it came to. So of those all microbatches are computed once
more, added up and written to where the next phase reads; the variables of the model keep what they hold. Where the
step has ended, because a phase was not finite, nothing after it was ever computed, and nothing is shown of it.
"""

from __future__ import annotations

import numpy as np

from ..environment import ReplayWanted
from ..single_steps import MicrobatchReplay, ReplayReport
from .layout import split_by_variable
from .metrics import MetricSums
from .phase import Phase
from .step import Step
from .tensors import all_finite


def replay_step(engine: Step, epoch: int, step: int, wanted: ReplayWanted) -> ReplayReport:
    """Compute microbatches of a step again; the model's state must be that before the step, and stays so.

    Args:
        engine: computes steps.
        epoch: number of the epoch.
        step: the step's number in it.
        wanted: which microbatch; all of the step if it names none.
    """
    present = [index for index, here in enumerate(engine.plan.present(step)) if here]
    numbers = present if wanted.microbatch is None else [wanted.microbatch]
    found = [_Found(engine, epoch, step, number) for number in numbers]
    for number, phase in enumerate(engine.phases):
        of_phase = f" (phase {number})" if len(engine.phases) > 1 else ""
        for each in found if phase.needs_sum else ():
            each.look_at(phase, of_phase)
        if phase is engine.phases[-1] or not _goes_on(engine, phase, step):
            break
    return ReplayReport(
        epoch=epoch,
        step=step,
        present=tuple(present),
        microbatches=tuple(each.report() for each in found),
        pass_number=engine.numbering.pass_of(epoch),
    )


def _goes_on(engine: Step, phase: Phase, step: int) -> bool:
    """Give the next phase what this one comes to; whether there is a next one: what is not finite ends a step."""
    total = engine.summed(phase, step) if phase.needs_sum else None
    goes_on = total is None or phase.may_be_applied(total)
    if goes_on:
        phase.apply(total)
    return goes_on


class _Found:
    """What is found out about one microbatch, phase by phase."""

    def __init__(self, engine: Step, epoch: int, step: int, number: int) -> None:
        self._engine, self._step, self._number = engine, step, number
        self._seed_step = engine.numbering.seed_step(epoch, step, engine.plan.num_steps)
        self._sums = MetricSums.start(engine.metrics.layout)
        self._norms: dict[str, float] = {}
        self._nonfinite: list[str] = []

    def look_at(self, phase: Phase, of_phase: str) -> None:
        """Compute it; `of_phase` stands behind the names of variables, which other phases may have as well."""
        layout, metrics = phase.microbatches.function.layout, self._engine.metrics.layout
        rows = phase.microbatches.read(self._step, [self._number])
        for _, (*float_buckets, sums, maxima) in phase.microbatches.computed(rows, self._seed_step):
            self._sums.add(sums[: metrics.num_sums], maxima[: metrics.num_maxima], rows=0)
            for part, values in split_by_variable(float_buckets, layout.variables_per_bucket, layout.parts):
                name = part.name + of_phase
                self._norms[name] = float(np.linalg.norm(values.astype(np.float64)))
                if not all_finite(values):
                    self._nonfinite.append(name)

    def report(self) -> MicrobatchReplay:
        """All that was found."""
        self._sums.rows = self._engine.plan.sizes(self._step)[self._number]
        return MicrobatchReplay(
            number=self._number,
            row_ids=tuple(int(i) for i in self._engine.microbatches.feed.row_ids(self._step, self._number)),
            logs=self._engine.metrics.logs_of(self._sums),
            norms=self._norms,
            nonfinite=tuple(self._nonfinite),
        )
