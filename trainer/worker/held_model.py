"""The model of one worker: made as a task wants it, put into the state that the task begins with, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from heliostat.data import Dataset

from ..beginning import ModelState
from ..checkpoints.snapshot import Snapshot, restore_state
from ..checkpoints.store import CheckpointStore
from ..columns import Columns, sample_rows
from ..engine.build_model import BuildModel
from ..engine.labels import check_label_range, check_targets
from ..engine.model import BuiltModel, build_keras_model, prepare_model, without_optimizers
from ..engine.optimizers import holds_others, with_applied_optimizers
from ..engine.runtime import Runtime
from ..errors import CheckpointError
from ..jobs import FitJob, PassJob
from ..shipping import Shipped, UserCode, unship
from .step_functions import steps_of

# Functions traced for evaluate and predict that are kept; each is for rows of one shape.
MAX_TRACED = 8
T = TypeVar("T")


@dataclass(slots=True)
class HeldModel:
    """The model that a worker keeps between tasks.

    Attributes:
        runtime: what it is computed on.
        key: of the state that it is in (`ModelState.key`); None while it is built and trained.
    """

    runtime: Runtime
    key: str | None = None
    _built: BuiltModel | None = None
    _traced: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def for_pass(self, job: PassJob, dataset: Dataset) -> tuple[BuiltModel, str]:
        """The model that is to answer; and why it is not in the state that is wanted, empty if it is."""
        targets, built = job.wanted.columns.targets is not None, self._built
        if built is None or job.model.key != self.key or (targets and not built.knows_targets):
            built = _for_passes(self._build(job, dataset, job.model.prepared))
            return built, _load(built, job.model) if job.model.key else ""
        if targets:
            check_label_range(built.model, dataset, job.wanted.columns)
        return _for_passes(built), ""

    def for_run(self, job: FitJob, dataset: Dataset, build_model: BuildModel | None = None) -> tuple[BuiltModel, str]:
        """The model with which a run begins; and why it is not in the state of the fit before, empty if it is.

        Args:
            job: the run.
            dataset: its rows.
            build_model: the user's function, where it was unpacked already, with what it shares with callbacks.
        """
        built = self._build(job, dataset, job.begins.state.prepared, job.wanted.initial_weights, build_model)
        lacking = "" if job.begins.sha256 is None else _load(built, job.begins.state)
        if job.wanted.prepare is not None:
            built = self._prepared(built, job, dataset, job.wanted.prepare)
        return built, lacking

    def once(self, what: str, columns: Columns, sample: Mapping[str, np.ndarray], trace: Callable[[], T]) -> T:
        """What `trace` makes of the present model, kept for the next pass over rows of these shapes."""
        shapes = tuple((name, str(rows.dtype), rows.shape[1:]) for name, rows in sample.items())
        key = (what, repr(columns), shapes)
        if key not in self._traced:
            if len(self._traced) >= MAX_TRACED:
                del self._traced[next(iter(self._traced))]
            self._traced[key] = trace()
        return self._traced[key]

    def _build(
        self,
        job: FitJob | PassJob,
        dataset: Dataset,
        prepared: Sequence[Shipped],
        weights: Sequence[np.ndarray] | None = None,
        build_model: BuildModel | None = None,
    ) -> BuiltModel:
        """A new model, with these weights, or its own, and what the fits before have changed of it."""
        self._built, self.key = None, None  # one model at a time in the device's memory
        self._traced.clear()
        if build_model is None:
            build_model = unship(job.settings.build_model, "build_model")
        columns, seed = job.wanted.columns, job.settings.seed
        sample = sample_rows(dataset, columns)
        built = build_keras_model(build_model, self.runtime, seed, sample, columns, weights)
        for each in prepared:
            built = self._prepared(built, job, dataset, each)
        if isinstance(job, PassJob) or job.wanted.loop != "custom":
            check_targets(built.model, columns)
        if isinstance(job, FitJob):
            built = self._with_applied_optimizers(built, job, dataset)
        if columns.targets is not None:
            check_label_range(built.model, dataset, columns)
        self._built = built
        return built

    def _with_applied_optimizers(self, built: BuiltModel, job: FitJob, dataset: Dataset) -> BuiltModel:
        """The model with the optimizers that the step applies, where it holds others than its compiled one."""
        if not holds_others(built):
            return built
        wanted = job.wanted
        code: UserCode = unship(wanted.code, "callbacks and steps")
        step, _ = steps_of(built, wanted, code)
        sample = sample_rows(dataset, wanted.columns)
        return with_applied_optimizers(built, step.function, wanted.columns, sample, step.reduction)

    def _prepared(self, built: BuiltModel, job: FitJob | PassJob, dataset: Dataset, prepare: Shipped) -> BuiltModel:
        function, columns = unship(prepare, "prepare"), job.wanted.columns
        self._built = built = prepare_model(built, function, job.settings.seed, sample_rows(dataset, columns), columns)
        return built


def _for_passes(built: BuiltModel) -> BuiltModel:
    """The model as passes see it: which optimizers its step applies is known only where the step is."""
    return without_optimizers(built) if holds_others(built) else built


def _load(built: BuiltModel, state: ModelState) -> str:
    """Put a model into a state that is kept; returns why that cannot be, empty if it is."""
    if not state.name:
        return "it was not kept"
    try:
        _, tensors = CheckpointStore(state.location).load(state.name)
    except CheckpointError as error:
        return str(error)
    restore_state(built, Snapshot(epoch=0, step=0, begun=False, tensors=tensors, extra={}))
    return ""
