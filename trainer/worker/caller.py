"""A session's caller, as a worker knows it: before it goes on it asks what the caller's loop wants.

Every worker asks the driver by itself, and all hear the same: so what the caller sets is set everywhere before the same
step, and nothing has to be sent on from one worker to the others. A worker that waits for the answer holds the complete
state and takes part in changes of its group; so others may die, come back and be replaced, and the run may be paused,
however long the caller takes.

What was not done: a callback on the chief that asks and has its effects relayed. The chief would stand in a hook while
it waits, where nobody can regroup, and the state is none to save.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..caller_words import NOT_BEGUN, CallerAsked, CallerWants, Place
from ..engine.model import BuiltModel
from ..engine.step import Step
from ..engine.times import TimeSplit
from ..jobs import FitJob
from .epoch_logs import Logs
from .position import Position

THE_LOOP = "the session's loop"  # among hooks of callbacks


class Caller:
    """Asks what the caller of a session wants; in a run of `fit`, which has none, everything goes on.

    Args:
        job: what is trained.
        built: the model.
        member: this worker's membership in the group.
        position: where this worker is in the run.
        times: where this worker's time goes; the caller's loop counts as a hook.
        engine: gives what computes steps; None before they are traced.
    """

    def __init__(
        self,
        job: FitJob,
        built: BuiltModel,
        member: Member,
        position: Position,
        times: TimeSplit,
        engine: Callable[[], Step | None],
    ) -> None:
        self._job, self._built, self._member, self._position = job, built, member, position
        self._times, self._engine = times, engine
        self._is_there = job.wanted.is_stepwise

    def wants_epoch(self, epoch: int, logs: Logs) -> bool:
        """Before an epoch: whether it is to begin; otherwise the run is over.

        Args:
            epoch: its number.
            logs: of the epoch before.
        """
        return not self._is_there or not self._wants((epoch, NOT_BEGUN), logs).ends

    def before_step(self, step: int) -> None:
        """Wait for a step's turn, and set what it is to begin with; nothing for one that is not computed here."""
        epoch = self._position.epoch
        if self._is_there and self._position.computes(step) and step < self._job.steps_of(epoch):
            self._wants((epoch, step), self._logs())

    def after_steps(self) -> None:
        """After all steps of an epoch: hear whether it is to be validated."""
        if self._is_there and self._job.validation_data is not None:
            epoch = self._position.epoch
            self._position.validates = self._wants((epoch, self._job.steps_of(epoch)), self._logs()).validates

    def _wants(self, place: Place, logs: Logs) -> CallerWants:
        """What is wanted at a place; a rate is set, unless that was done before this state was copied."""
        told = (
            self._position.told is not None and place <= self._position.told
        )  # an epoch that goes on is asked for, too
        asked, began_s = self._asked(place, logs, told=told), time.perf_counter()
        with self._times.part("hooks", in_traces=False):
            wants: CallerWants = self._member.request(asked, Activity.AWAIT_CALLER)
        if self._member.is_chief:
            self._times.note_hook(THE_LOOP, time.perf_counter() - began_s)
        if wants.learning_rate is not None and not told:
            self._set_rate(wants.learning_rate)
        self._position.told = max(place, self._position.told or place)
        return wants

    def _asked(self, place: Place, logs: Logs, *, told: bool) -> CallerAsked:
        rate, is_scheduled = self._rate()
        valid, wanted = self._job.validation_data, self._job.wanted
        return CallerAsked(
            epoch=place[0],
            step=place[1],
            num_steps=self._job.steps_of(place[0]),
            num_validation_steps=0 if valid is None else wanted.validation_pass.num_steps(len(valid)),
            logs=dict(logs),
            learning_rate=rate,
            is_scheduled=is_scheduled,
            told=told,
        )

    def _logs(self) -> Logs:
        """The epoch's metrics until now; none before its first step here."""
        engine = self._engine()
        return {} if engine is None or not engine.metrics.sums.rows else engine.metrics.logs()

    def _rate(self) -> tuple[float | None, bool]:
        """The optimizer's learning rate, and whether something decides it that cannot be set from outside."""
        optimizer = getattr(self._built.model, "optimizer", None)
        if optimizer is None:
            return None, False
        rate = optimizer.learning_rate
        if isinstance(rate, keras.Variable):
            return float(self._built.components(rate)[0].numpy()), False
        if (engine := self._engine()) is not None:
            engine.sync_variables()  # a schedule looks at the number of steps
            rate = optimizer.learning_rate
        return float(rate), True

    def _set_rate(self, rate: float) -> None:
        for part in self._built.components(self._built.model.optimizer.learning_rate):
            part.assign(rate)
