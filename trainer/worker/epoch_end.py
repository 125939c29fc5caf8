"""The meeting of all workers at an epoch's end: validation is shared out, and everybody gets the same numbers.

The workers meet at the driver, not in a call between them: validation needs no step in common, so each asks for a shard
of it, computes it at its own pace, and hands it in. What a worker that dies had not handed in goes to the others,
who are told when they ask again. The driver answers with the sum over the whole pass once it has all parts. Each worker
makes the numbers of it by itself, from the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..config import FitConfig
from ..engine.evaluate import Evaluator
from ..engine.state import state_digest
from ..engine.step import Step
from ..events import ValidationNotFinite
from ..jobs import EpochPart
from ..pass_messages import NonfiniteRows, PassSum, Shard, ShardResult
from .callback_relay import CallbackRelay
from .epoch_logs import Logs
from .pass_told import PassTold
from .position import Position

StepIndex = np.ndarray  # int64 [1]: the number of a step, which stands for the rows of its batch


def index_of(batch: StepIndex | tuple[StepIndex, ...]) -> int:
    """The number of the step that a batch stands for; Keras may have put it into a tuple."""
    return int(np.ravel(batch[0] if isinstance(batch, tuple) else batch)[0])


class EpochEnd:
    """What a worker does between an epoch's last step and its callbacks.

    Args:
        engine: has trained the epoch.
        evaluator: validates; None without validation data.
        member: this worker's membership in the group.
        relay: the user's callbacks.
        position: where this worker is in the run.
        wanted: says after which epochs it validates.
    """

    def __init__(
        self,
        engine: Step,
        evaluator: Evaluator | None,
        member: Member,
        relay: CallbackRelay,
        position: Position,
        wanted: FitConfig,
    ) -> None:
        self._engine, self._any_evaluator, self._member = engine, evaluator, member
        self._relay, self._position, self._wanted = relay, position, wanted
        self._answer: object = None  # of the driver
        self._told = PassTold(member)

    @property
    def validates(self) -> bool:
        """Whether the present epoch is followed by a validation pass."""
        return self._evaluator is not None

    @property
    def _evaluator(self) -> Evaluator | None:
        """What validates after the present epoch; None if nothing does."""
        wants = self._position.validates and self._wanted.validates_after(self._position.epoch)
        return self._any_evaluator if wants else None

    def meet(self) -> None:
        """Tell the driver how the epoch's training ended; it answers with a shard of validation, or its sum."""
        self._relay.after_steps()
        self._engine.times.enter("epoch_end")  # until the next step
        began = time.perf_counter()
        self._engine.sync_variables()
        part = EpochPart(
            epoch=self._position.epoch,
            logs=self._engine.metrics.logs(),
            digest=state_digest(self._engine.built),
            rows=self._engine.metrics.sums.rows,
            rows_by_worker=dict(self._engine.rows_by_worker),
            times=self._engine.times.since_mark(),
            num_microbatches=0 if self._evaluator is None else self._evaluator.num_microbatches,
            row_ids=tuple(self._position.row_ids),
        )
        instruments.note("metrics and digest", began)
        self._answer = self._member.request(part, Activity.MEET)

    def batches(self) -> Iterator[StepIndex]:
        """Batches of this worker's shards of the validation pass; more if another worker is lost meanwhile."""
        answer = self._answer
        while isinstance(answer, Shard) and self._evaluator is not None:
            yield from self._evaluator.start(answer.lo, answer.hi)
            nodes, rows = self._evaluator.finish()
            result = ShardResult(shard=answer, nodes=nodes, rows=rows, nonfinite=self._evaluator.nonfinite)
            answer = self._member.request(result, Activity.AWAIT_VALIDATION)
        self._answer = answer

    def test(self, batch: StepIndex | tuple[StepIndex, ...]) -> Logs:
        """Compute a batch of validation. Returns no logs: they are known when all workers have met."""
        if self._evaluator is not None:
            self._member.poll()
            instruments.fault_point("validation", self._member.step)
            began = time.perf_counter()
            self._member.note_activity(Activity.READ)
            rows = self._evaluator.read(index_of(batch))
            self._member.note_activity(Activity.VALIDATE)
            self._told.add(self._evaluator.step(index_of(batch), rows))
            instruments.note("validation", began)
        return {}

    def validated(self) -> Logs:
        """The global numbers of the validation, once all of it is done; none without."""
        if self._evaluator is None or not isinstance(self._answer, PassSum):
            return {}
        _, sums, maxima = self._answer.vector
        return self._evaluator.logs(sums, maxima, self._answer.rows)

    def finish(self) -> Logs:
        """The epoch's global logs, after training and validation; those of validation are named ``val_...``."""
        if self._evaluator is None:
            self.meet()
        elif isinstance(self._answer, PassSum) and self._answer.nonfinite.num_rows and self._member.is_chief:
            self._tell_nonfinite(self._answer.nonfinite)
        return self._engine.metrics.logs() | {f"val_{name}": value for name, value in self.validated().items()}

    def _tell_nonfinite(self, found: NonfiniteRows) -> None:
        """Tell the driver that rows to validate on, or the model's outputs for them, are not finite."""
        self._member.send(
            ValidationNotFinite(
                epoch=self._position.epoch,
                dataset="" if self._evaluator is None else self._evaluator.dataset,
                num_rows=found.num_rows,
                first_rows=found.first,
            )
        )
