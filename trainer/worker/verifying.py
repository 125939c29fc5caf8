"""What ``heliostat verify-run`` wants of a worker: each step told variable by variable, and held against plain Keras.

Nothing of the run is changed. Before a step its state is copied; after it plain Keras, in the same process, makes the
step from that copy, and what both have come to is compared (`step_states`). Metrics go on in both over an epoch, so
that one which adds up in another way from some step on is seen there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import xxhash
from heliostat.cluster.group.worker_process import WorkerKilled

from ..engine.metrics import Logs, MetricSums, logged_values, plain_numbers
from ..engine.model import BuiltModel
from ..engine.plain import OneDevice, PlainKeras
from ..engine.private_api import trainable_variables
from ..engine.private_hooks import layers_in
from ..engine.private_models import compute_dtypes
from ..engine.probe_draws import rows_alike
from ..engine.state import state_arrays
from ..engine.step import Step
from ..jobs import FitJob
from ..shipping import UserCode
from ..shortened import VerifyWanted
from ..step_states import (
    PRECISIONS,
    Difference,
    Part,
    Precision,
    StateChange,
    StepCompared,
    StepSeen,
    number_differences,
    state_differences,
)
from .attributes import Attributes
from .held_model import HeldModel
from .position import Position
from .step_functions import steps_of
from .tracing import Traced, Tracing, variables_beside


class Verifying:
    """Looks at each step of a run on one worker.

    Args:
        wanted: what to do besides telling steps.
        tracing: of the run.
    """

    def __init__(self, wanted: VerifyWanted, tracing: Tracing) -> None:
        self._wanted, self._tracing, self._member = wanted, tracing, tracing.member
        self._names = names_of(tracing.built)
        self._plain: _AgainstPlain | None = None
        if wanted.plain:
            tracing.opened.enter_context(rows_alike(everywhere=True))  # steps are traced later

    def before(self, traced: Traced, position: Position, set_attributes: Mapping[str, object]) -> None:
        """Before a step: die, if it is this worker's turn; or keep what plain Keras is to begin with.

        Args:
            traced: the run's steps.
            position: of the run.
            set_attributes: the Python values that callbacks have set.
        """
        job = self._tracing.job
        number = position.of_run - job.wanted.initial_epoch * job.num_steps
        if self._wanted.kills and self._member.worker == 0 and number == self._wanted.killed_before:
            _die(job)
        if self._wanted.plain:
            if self._plain is None:
                self._plain = _AgainstPlain(self._tracing, traced, set_attributes)
            self._plain.before(traced.engine, position)

    def after(self, traced: Traced, position: Position) -> None:
        """After a step, before it counts in `position`: tell what it has come to.

        Every worker does: what one has told that dies then may never arrive.
        """
        engine = traced.engine
        engine.sync_variables()
        if self._plain is not None:
            self._member.send(self._plain.after(engine, position))
            return
        arrays = state_arrays(self._tracing.built)
        digests = {name: _digest(value) for name, value in zip(self._names, arrays, strict=True)}
        self._member.send(StepSeen(step=position.of_run, digests=digests, numbers=engine.metrics.logs()))


@dataclass(slots=True)
class _Before:
    """What a step began with: the run's state, and what metrics had added up."""

    state: list[np.ndarray] = field(default_factory=list)
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))


class _AgainstPlain:
    """Plain Keras beside a run, step by step."""

    def __init__(self, tracing: Tracing, traced: Traced, set_attributes: Mapping[str, object]) -> None:
        self._tracing, self._beside, job, code = tracing, traced.beside, tracing.job, tracing.code
        for phase in traced.engine.phases:
            phase.microbatches.draws_alike = True
        built = _built_plain(job, tracing, code)
        Attributes(built.model, (code.train_step, code.valid_step), built.state).apply(dict(set_attributes))
        step, _ = steps_of(built, job.wanted, code)
        adds_metrics = not step.only_returned_logs
        self._plain = PlainKeras(built, step.function, job.wanted.columns, adds_metrics=adds_metrics)
        self._parts, self._precision = parts_of(tracing.built), precision_of(tracing.built.model)
        self._before = _Before()

    def before(self, engine: Step, position: Position) -> None:
        """Keep what the step begins with."""
        if position.step == 0 or self._is_short(engine, position):
            self._plain.begin_epoch()
        engine.sync_variables()
        self._before = _Before(state_arrays(self._tracing.built), engine.metrics.sums.sums.copy())

    def after(self, engine: Step, position: Position) -> StepCompared:
        """Make the same step by plain Keras, and compare."""
        self._plain.assign(self._before.state)
        self._follow_beside()
        seed_step = engine.numbering.seed_step(position.epoch, position.step, engine.plan.num_steps)
        theirs = self._plain.step(_batch(engine, position.step), self._tracing.job.settings.seed, seed_step)
        change = StateChange(
            before=self._before.state, ours=state_arrays(self._tracing.built), theirs=self._plain.state()
        )
        of_run = position.of_run
        found = [*state_differences(of_run, self._parts, change, self._precision)]
        ours = self._numbers(engine, position)
        found += self._of_numbers(of_run, ours, {name: theirs[name] for name in ours if name in theirs})
        return StepCompared(
            step=of_run,
            precision=self._precision.name,
            num_variables=len(self._parts),
            num_weights=sum(part.kind == "weight" for part in self._parts),
            numbers=tuple(ours),
            differences=tuple(found),
            without_float64=other_layers(self._tracing.built.model),
            by_design=batch_normalizations(self._tracing.built.model),
        )

    def _of_numbers(self, step: int, ours: Logs, theirs: Logs) -> list[Difference]:
        return list(number_differences(step, ours, theirs, self._precision))

    def _numbers(self, engine: Step, position: Position) -> Logs:
        """Loss and metrics as plain Keras tells them after a step: of the epoch; of the step what no metric holds.

        A metric that Keras gives one number per batch counts a short batch as a full one, and a run counts rows. So
        those of a short batch are compared by themselves.
        """
        layout, sums = engine.metrics.layout, engine.metrics.sums
        rows = sum(engine.plan.sizes(position.step))
        of_step = MetricSums(sums.sums - self._before.sums, sums.maxima, rows)
        found = engine.metrics.logs_of(of_step) if self._is_short(engine, position) else engine.metrics.logs()
        return {**found, **plain_numbers(logged_values(layout, of_step))}

    def _is_short(self, engine: Step, position: Position) -> bool:
        return sum(engine.plan.sizes(position.step)) < self._tracing.job.wanted.global_batch_size

    def _follow_beside(self) -> None:
        """Variables that the step reads beside the model's state have the values that they have in the run."""
        theirs = variables_beside(self._plain.built, self._plain.beside)
        ours = self._beside[: len(theirs)]  # those of validation come after them
        if [tuple(each.shape) for each in ours] == [tuple(each.shape) for each in theirs]:
            for variable, own in zip(theirs, ours, strict=True):
                if variable is not own:
                    variable.assign(own)


def names_of(built: BuiltModel) -> list[str]:
    """A name for each variable of a model's state: its path, with a number behind it where others have the same."""
    found: list[str] = []
    for variable in built.state:
        path, number = variable.path, 2
        while path in found:
            path, number = f"{variable.path} ({number})", number + 1
        found.append(path)
    return found


def parts_of(built: BuiltModel) -> list[Part]:
    """What each variable of a model's state is."""
    kept = {
        id(weight)
        for optimizer in built.optimizers
        if any(len(variable.shape) > 0 for variable in optimizer.variables)
        for weight in trainable_variables(optimizer)
    }
    num_weights = len(built.trainable)
    num_state = num_weights + len(built.non_trainable)
    parts = []
    for number, (name, variable) in enumerate(zip(names_of(built), built.state, strict=True)):
        if number < num_weights:
            parts.append(Part(kind="weight", name=name, weight=name, divided=id(variable) in kept))
        elif number < num_state:
            parts.append(Part(kind="state", name=name))
        else:
            parts.append(Part(kind="optimizer", name=name, weight=_kept_of(name, built.trainable)))
    return parts


def _kept_of(name: str, weights: Sequence[keras.Variable]) -> str:
    """Path of the weight that an optimizer keeps a variable of, which has it in its name; empty for a counter."""
    paths = [weight.path for weight in weights if weight.path.replace("/", "_") in name]
    return max(paths, key=len, default="")


def precision_of(model: keras.Model) -> Precision:
    """That of the coarsest dtype in which a layer computes."""
    dtypes = [each for each in PRECISIONS if each in compute_dtypes(model)]
    return PRECISIONS[dtypes[-1] if dtypes else "float32"]


def other_layers(model: keras.Model) -> tuple[str, ...]:
    """The layers that compute in another float type than Keras's, since they say so themselves."""
    floats = [each for each in PRECISIONS if each != keras.config.floatx()]
    return tuple(layer.name for layer in model.layers if str(layer.compute_dtype) in floats)


def batch_normalizations(model: keras.Model) -> tuple[str, ...]:
    """The layers that take statistics of a microbatch by design, and are compared with their moving averages."""
    return tuple(each.name for each in layers_in(model) if isinstance(each, keras.layers.BatchNormalization))


def _built_plain(job: FitJob, tracing: Tracing, code: UserCode) -> BuiltModel:
    """The same model anew, on one device and without a strategy."""
    built, _ = HeldModel(OneDevice.of(tracing.built.runtime)).for_run(job, tracing.dataset, code.build_model)
    return built


def _batch(engine: Step, step: int) -> dict[str, np.ndarray]:
    """All rows of a step in their order, by column."""
    present = [index for index, here in enumerate(engine.plan.present(step)) if here]
    read = engine.microbatches.read(step, present)
    return {name: np.concatenate([np.array(each.batch[name]) for each in read]) for name in read[0].batch}


def _digest(value: np.ndarray) -> str:
    return xxhash.xxh3_128(np.ascontiguousarray(value).reshape(-1).view(np.uint8)).hexdigest()


def _die(job: FitJob) -> None:
    """End this worker as SIGKILL does; a worker that is a thread ends alone."""
    if job.settings.local:
        raise WorkerKilled("heliostat verify-run")
    os.kill(os.getpid(), signal.SIGKILL)
