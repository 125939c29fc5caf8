"""The hosted object of a worker: builds the model, and runs the tasks fit, evaluate and predict."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from heliostat.cluster.assignment import split
from heliostat.cluster.host import TaskContext
from heliostat.data import BatchPlan, Dataset, open_dataset

from .callbacks import check_callbacks, has_batch_hooks
from .columns import Columns, sample_rows
from .compute import Compute
from .engine import Evaluator, MicrobatchRunner, TrainEngine
from .errors import ModelError, WorkersDisagreeError
from .feed import Feed
from .jobs import FitJob, FitReport, ModelJob, PassJob, PredictPart, Ready, ValidationPart, WorkerSetup
from .loops import run_loop
from .predict import Predictor
from .runtime import Runtime, platform_of, set_up
from .session import Session
from .shipping import unship
from .state import assign_state, num_state_bytes, shapes_digest, state_bytes, state_digest, state_sha256
from .steps import custom_steps, keras_steps, step_reduction
from .trainee import Trainee, build_trainee, check_can_be_saved, check_label_range


def make_worker(setup: WorkerSetup, rank: int) -> Worker:
    """Set up TensorFlow in this process and make the worker of a rank; raises RuntimeSetupError."""
    runtime = set_up(
        replicas=setup.replicas,
        threads=setup.threads,
        deterministic=setup.deterministic,
        first_device=rank * setup.devices_per_worker,
        num_devices=setup.num_devices,
    )
    return Worker(runtime)


@dataclass(slots=True)
class Worker:
    """One worker: one `MirroredStrategy`, one model, kept between tasks."""

    runtime: Runtime
    _trainee: Trainee | None = None
    _session: Session | None = None

    def position(self) -> int | None:
        """The step of the run it is at, for error messages."""
        return None if self._session is None else self._session.position

    def fit(self, job: FitJob, context: TaskContext) -> FitReport:
        """Train a whole run."""
        self._session = None
        dataset = open_dataset(job.data)
        trainee = self._build(job.model, dataset, job.columns, context)
        check_can_be_saved(trainee.model)
        user_train, user_valid, callbacks = unship(job.user_code, "callbacks and steps")
        check_callbacks(callbacks)
        train, valid = (
            custom_steps(trainee, user_train, user_valid, weighted=job.columns.sample_weight is not None)
            if job.loop == "custom"
            else keras_steps(trainee)
        )
        reduction = step_reduction(trainee, user_train, "train_step")
        valid_reduction = step_reduction(trainee, user_valid, "valid_step")
        batch_hooks = _agree(has_batch_hooks(callbacks), context) if job.has_callbacks else False
        folder = Path(job.run_dir)
        with _Runners(trainee, job.columns, job.model) as runners:
            only_returned = job.loop != "custom"
            runner = runners.make(train, "train", dataset, reduction, job, only_returned=only_returned)
            engine = TrainEngine(runner, context.collective, context.numbers)
            evaluator = None
            if job.validation_data is not None:
                valid_data = open_dataset(job.validation_data)
                check_label_range(trainee.model, valid_data, job.columns)
                made = runners.make(valid, "evaluate", valid_data, valid_reduction, job, only_returned=only_returned)
                evaluator = Evaluator(made)
            self._session = Session(job, trainee, engine, evaluator, context, batch_hooks)
            with _working_directory(folder if context.rank == 0 and job.has_callbacks else None):
                run_loop(job.loop, self._session, callbacks)
        model_file = _saved(trainee.model) if context.rank == 0 else None
        return FitReport(sha256=state_sha256(trainee), model_file=model_file)

    def evaluate(self, job: PassJob, context: TaskContext) -> dict[str, Any]:
        """Global metrics of a dataset, the same on every worker."""
        self._session = None
        dataset = open_dataset(job.data)
        trainee = self._current(job, dataset, context)
        _, valid = keras_steps(trainee)
        with _Runners(trainee, job.columns, job.model) as runners:
            runner = runners.make(valid, "evaluate", dataset, trainee.reduction, job, only_returned=True)
            evaluator = Evaluator(runner)
            for ticket in evaluator.start(context.rank, context.num_workers):
                evaluator.step(int(ticket[0]))
            nodes, rows = evaluator.finish()
            total = context.channel.ask(ValidationPart(nodes=nodes, num_leaves=evaluator.num_leaves, rows=rows))
            _, sums, extrema = total.vector
            return evaluator.logs(sums, extrema, total.rows)

    def predict(self, job: PassJob, context: TaskContext) -> PredictPart:
        """Predictions of this worker's contiguous share of the rows."""
        self._session = None
        dataset = open_dataset(job.data)
        trainee = self._current(job, dataset, context)
        rows_at_once = -(-job.global_batch_size // job.model.num_microbatches)
        # Cut alike for every number of workers: the same rows at once give the same bits.
        cuts = -(-len(dataset) // rows_at_once)
        mine = split(0, cuts, context.num_workers)[context.rank]
        start, stop = (min(cut * rows_at_once, len(dataset)) for cut in mine)
        return Predictor(trainee, dataset, job.columns).rows(start, stop, rows_at_once)

    def _current(self, job: PassJob, dataset: Dataset, context: TaskContext) -> Trainee:
        targets = job.columns.targets is not None
        if self._trainee is None or job.fresh or (targets and not self._trainee.knows_targets):
            return self._build(job.model, dataset, job.columns, context)
        if targets:
            check_label_range(self._trainee.model, dataset, job.columns)
        return self._trainee

    def _build(self, job: ModelJob, dataset: Dataset, columns: Columns, context: TaskContext) -> Trainee:
        """Build the model, then copy rank 0's state and compare."""
        self._trainee = None  # one model at a time in the device's memory
        build_model: Callable[[], keras.Model] = unship(job.build_model, "build_model")
        trainee = build_trainee(build_model, self.runtime, job.seed, sample_rows(dataset, columns), columns)
        if columns.targets is not None:
            check_label_range(trainee.model, dataset, columns)
        if job.initial_weights is not None:
            _set_initial_weights(trainee, job.initial_weights)
        if context.num_workers > 1:
            _check_shapes(trainee, context)
            own = state_bytes(trainee) if context.rank == 0 else None
            limit = num_state_bytes(trainee)
            assign_state(trainee, context.collective.broadcast(context.numbers(), own, max_bytes=limit))
        ready = Ready(
            digest=state_digest(trainee),
            num_weights=sum(int(np.prod(v.shape)) for v in trainee.trainable),
            platform=platform_of(self.runtime),
        )
        if not context.channel.ask(ready):
            raise WorkersDisagreeError("The driver found different initial states on the workers.")
        self._trainee = trainee
        return trainee


class _Runners:
    """Makes microbatch runners for one model, and closes their feeds."""

    def __init__(self, trainee: Trainee, columns: Columns, model: ModelJob) -> None:
        self._trainee, self._columns, self._model = trainee, columns, model
        self._feeds: list[Feed] = []

    def __enter__(self) -> _Runners:
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self._feeds:
            feed.close()

    def make(
        self, step: Any, kind: Any, dataset: Dataset, reduction: str, job: FitJob | PassJob, *, only_returned: bool
    ) -> MicrobatchRunner:
        training = kind == "train"
        plan = BatchPlan(
            num_rows=len(dataset),
            global_batch_size=job.global_batch_size,
            num_microbatches=self._model.num_microbatches,
            steps_per_epoch=job.steps_per_epoch if training and isinstance(job, FitJob) else None,
        )
        shuffle = job.shuffle if training and isinstance(job, FitJob) else False
        feed = Feed(dataset, self._columns, plan, seed=self._model.seed, shuffle=shuffle, reduction=reduction)
        self._feeds.append(feed)
        compute = Compute(
            self._trainee,
            step,
            kind=kind,
            columns=self._columns,
            sample=sample_rows(dataset, self._columns),
            reduction=reduction,
            only_returned_logs=only_returned,
        )
        return MicrobatchRunner(self._trainee, compute, feed, self._model.seed)


def _set_initial_weights(trainee: Trainee, weights: Sequence[Any]) -> None:
    try:
        trainee.model.set_weights(list(weights))
    except ValueError as error:
        raise ModelError(f"initial_weights do not fit the model that build_model returns: {error}") from error


def _check_shapes(trainee: Trainee, context: TaskContext) -> None:
    """Raise `WorkersDisagreeError` when this worker's model has other shapes than the chief's."""
    own = shapes_digest(trainee)
    chiefs = context.collective.broadcast(context.numbers(), own if context.rank == 0 else None, max_bytes=len(own))
    if own != chiefs:
        shapes = ", ".join(str(tuple(weight.shape)) for weight in trainee.trainable)
        raise WorkersDisagreeError(
            f"Worker {context.rank} has a model of other shapes than the chief's (here {shapes}): build_model makes "
            "different models on different workers. It must not depend on the host, the time or the environment."
        )


def _agree(value: bool, context: TaskContext) -> bool:
    """The chief's value, on all workers."""
    own = bytes([value]) if context.rank == 0 else None
    return bool(context.collective.broadcast(context.numbers(), own, max_bytes=1)[0])


def _saved(model: keras.Model) -> bytes:
    """The model as the bytes of a ``.keras`` file."""
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


class _working_directory:
    """Callbacks' relative paths are relative to the run folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._before = os.getcwd()
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
