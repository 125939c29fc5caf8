"""When and how a run's steps are traced.

In Keras a step is traced when it is called first: after ``on_train_begin`` and the hooks before the first step, which
may have set Python attributes that it reads. So it is here, where a callback has such hooks; the others trace before
they join the group, which then need not wait for them. A worker that joins later is told what the callbacks have set
(`attributes`), and traces before it joins, too. So is a run that goes on from a checkpoint.

What a trace reads beside the model's state, such as a variable of the loss or one in a closure, is known from then on,
and followed like the state (`followed_state`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from heliostat.data import Dataset
from keras.callbacks import Callback

from ..engine import private_api, private_hooks
from ..engine.evaluate import Evaluator
from ..engine.labels import check_label_range
from ..engine.memory import OUT_OF_MEMORY, memory_exhausted
from ..engine.microbatches import Microbatches
from ..engine.model import BuiltModel
from ..engine.phase import phases_of
from ..engine.runtime import BUILD_LOCK
from ..engine.step import Step
from ..engine.times import StartTimes, TimeSplit
from ..errors import UnsupportedModelVariableError
from ..jobs import FitJob, StepsTraced, TraceAsked
from ..shipping import UserCode
from .attributes import Attributes, reached_from
from .callback_hooks import hooks_of
from .callback_relay import CallbackRelay
from .probing import probe_run
from .step_functions import StepToTrace, open_step, steps_of

# Hooks that come before the first step, and what else a callback may do by then.
_BEFORE_THE_STEP = {"on_train_begin", "on_epoch_begin", "on_train_batch_begin"}


def may_change_the_trace(callbacks: Sequence[Callback]) -> bool:
    """Whether callbacks may set what a trace reads; Keras's own assign variables at most."""
    own = [
        callback
        for callback in callbacks
        if not type(callback).__module__.startswith("keras.") or isinstance(callback, keras.callbacks.LambdaCallback)
    ]
    return any(hooks_of(each) & _BEFORE_THE_STEP or type(each).set_model is not Callback.set_model for each in own)


@dataclass(frozen=True, slots=True)
class Traced:
    """The steps of a run, traced.

    Attributes:
        engine: computes steps.
        evaluator: validates; None without validation data.
        beside: the variables that the traced functions read beside the model's state, in the order of the trace.
        steps: what was traced, and what computes it.
    """

    engine: Step
    evaluator: Evaluator | None
    beside: list[tf.Variable]
    steps: list[tuple[StepToTrace, Microbatches]]


@dataclass(frozen=True, slots=True)
class Tracing:
    """Traces the steps of a run.

    Attributes:
        built: its model.
        job: the run.
        dataset: its rows; those that it validates on are opened here.
        code: the user's steps.
        member: this worker's membership.
        opened: closes what is opened here.
        spent: where this worker's time goes once it computes steps.
    """

    built: BuiltModel
    job: FitJob
    dataset: Dataset
    code: UserCode
    member: Member
    opened: contextlib.ExitStack
    spent: TimeSplit = field(default_factory=TimeSplit)

    def trace(self, times: StartTimes) -> Traced:
        """Trace the steps, and let each be computed once, for nothing.

        Args:
            times: where the time for it is noted.

        Raises:
            UnsupportedStepError, UnsupportedModelError: a step does something that cannot be exact.
            MemoryExhaustedError: it does not fit into memory.
        """
        built, job, wanted = self.built, self.job, self.job.wanted
        train, valid = steps_of(built, wanted, self.code)
        with BUILD_LOCK, private_hooks.variables_read() as read:
            microbatches = self.opened.enter_context(closing(open_step(built, train, self.dataset, job, times)))
            phases = phases_of(microbatches, job.settings.gradient_dtype)
            engine = Step(phases, self.member, wanted.on_nonfinite, self.spent, job.numbering)
            evaluator, steps = None, [(train, microbatches)]
            if job.validation_data is not None:
                job.validation_data.check()  # it must be readable on this host as well
                check_label_range(built.model, job.validation_data, wanted.validation_columns)
                opened = closing(open_step(built, valid, job.validation_data, job, times))
                validated = self.opened.enter_context(opened)
                evaluator = Evaluator(validated)
                steps.append((valid, validated))
        with times.part("compile"):
            _warm_up(engine, evaluator, job)
        return Traced(engine, evaluator, variables_beside(built, read), steps)


class RunSteps:
    """The steps of a run on one worker: when they are traced, and with what.

    Args:
        tracing: traces them.
        callbacks: the user's.
        relay: knows what they have set, and follows what the steps read.
        attributes: sets it here.
        times: where the time of the first trace is noted.

    Attributes:
        traced: the steps; there once they are traced.
        traced_with: the Python values that callbacks had set by then; None before.
        has_stepped: the first step here has begun.
        late_s: seconds that tracing took in the loop.
    """

    traced: Traced

    def __init__(
        self,
        tracing: Tracing,
        callbacks: Sequence[Callback],
        relay: CallbackRelay,
        attributes: Attributes,
        times: StartTimes,
    ) -> None:
        self._tracing, self._member, self._callbacks = tracing, tracing.member, tuple(callbacks)
        self._relay, self._attributes, self._times = relay, attributes, times
        self._late = may_change_the_trace(callbacks)
        self.traced_with: dict[str, Any] | None = None  # Any: plain values
        self.has_stepped, self.late_s = False, 0.0

    @property
    def is_traced(self) -> bool:
        """Whether the steps are traced."""
        return self.traced_with is not None

    def early(self) -> None:
        """Before this worker joins: trace, unless hooks of a new run may still change what the steps read."""
        told = self._member.request(TraceAsked()) if self._late else {}
        self._member.note_activity(Activity.SET_UP)
        if told is not None:
            self._trace(told)

    def go_on(self, traced_with: dict[str, Any] | None) -> None:
        """Before the loop, in a run that has begun elsewhere: trace as it was there, unless that is done.

        Args:
            traced_with: the Python values that callbacks had set there; None if nothing was traced yet.
        """
        if traced_with is not None and self.traced_with != traced_with:
            self._member.note_activity(Activity.SET_UP)
            self._trace(traced_with)
            self._member.request(StepsTraced(attributes=traced_with), Activity.AWAIT_TRACES)

    def before_first(self, epoch: int, *, resumed: bool) -> None:
        """Before the first step here: in a new run trace with what hooks have set, and wait until all have.

        Whether to wait is the same on all workers; some may have traced already, where all were lost at the start.

        Args:
            epoch: of the step.
            resumed: the run has begun elsewhere.
        """
        if self.has_stepped:
            return
        self.has_stepped, attributes = True, dict(self._relay.set_attributes)
        if self.is_traced and resumed:
            return
        is_traced, began = self.traced_with == attributes, time.perf_counter()
        waits = self._late or not is_traced
        if not is_traced:
            self._member.note_activity(Activity.SET_UP)
            self._trace(attributes)
        if waits and self._member.is_chief:
            check_no_twin(self._callbacks, self.traced.beside, self._tracing.built)
        if waits:
            self._relay.follow_beside(self.traced.beside)
        if not resumed:
            probe_run(self._tracing.job, self.traced.steps, self._member, self._times)
        self.traced.engine.start_epoch(epoch)
        if waits:
            self._member.request(StepsTraced(attributes=attributes), Activity.AWAIT_TRACES)
        self.late_s = time.perf_counter() - began

    def _trace(self, attributes: dict[str, Any]) -> None:
        self._attributes.apply(attributes)
        self.traced, self.traced_with = self._tracing.trace(self._times), dict(attributes)
        self._relay.engine = self.traced.engine
        self._relay.followed.add(self.traced.beside)
        self._attributes.follow(self.traced.beside)


def check_no_twin(callbacks: Sequence[Callback], beside: Sequence[tf.Variable], built: BuiltModel) -> None:
    """Raise `UnsupportedModelVariableError` where callbacks reach another copy of a variable than the steps read.

    Args:
        callbacks: this worker's.
        beside: the variables that its steps read beside the model's state.
        built: the model.
    """
    own = {id(variable) for variable in [*beside, *map(private_api.tf_variable, built.model.variables)]}
    twins = {(variable.name, tuple(variable.shape)) for variable in beside}
    for path, found, _ in reached_from((type(callback).__name__, callback) for callback in callbacks):
        if isinstance(found, keras.Variable | tf.Variable):
            variable = private_api.tf_variable(found) if isinstance(found, keras.Variable) else found
            if variable is None or id(variable) in own or (variable.name, tuple(variable.shape)) not in twins:
                continue
            raise UnsupportedModelVariableError(variable.name.partition(":")[0], path)


def variables_beside(built: BuiltModel, read: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Those of the variables that were read which are no part of the model's state, metrics or seeds."""
    generators = [generator.state for generator in built.generators]
    metrics = [metric.variable for metric in built.metrics]
    known = set[int]()
    for variable in [*built.model.variables, *built.state, *metrics, *generators]:
        known.add(id(private_api.tf_variable(variable)))
        known.update(map(id, built.components(variable)))
    return [variable for variable in read if id(variable) not in known]


def _warm_up(engine: Step, evaluator: Evaluator | None, job: FitJob) -> None:
    """Let a step be computed once, for nothing; raises MemoryExhaustedError."""
    try:
        engine.warm_up()
        if evaluator is not None:
            evaluator.warm_up()
    except OUT_OF_MEMORY as error:
        raise memory_exhausted(engine.built, job.settings.total_microbatches, job.rows_per_microbatch, error) from error
