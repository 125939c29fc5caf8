"""From a step and a dataset to what computes its microbatches."""

from __future__ import annotations

from typing import Any

from heliostat.data import BatchPlan, Dataset, Shuffle

from ..columns import Columns, sample_rows
from ..config import FitConfig, TrainerConfig
from ..engine.feed import Feed
from ..engine.gradients import GradientFunction, Kind
from ..engine.microbatches import Microbatches
from ..engine.model import BuiltModel
from ..engine.times import StartTimes


class Runners:
    """Makes microbatch runners for one model, and closes their feeds.

    Args:
        built: the model.
        columns: which columns are read.
        settings: the trainer's.
        times: where the time for opening and tracing is noted.
    """

    def __init__(
        self,
        built: BuiltModel,
        settings: TrainerConfig,
        columns: Columns,
        times: StartTimes | None = None,
    ) -> None:
        self._built, self._settings, self._columns = built, settings, columns
        self._times = times or StartTimes()
        self._feeds: list[Feed] = []

    def __enter__(self) -> Runners:
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self._feeds:
            feed.close()

    def make(
        self, step: Any, kind: Kind, dataset: Dataset, reduction: str, wanted: FitConfig, *, only_returned: bool
    ) -> Microbatches:
        """Trace a step, and read a dataset for it."""
        with self._times.part("trace"):
            gradients = GradientFunction(
                self._built,
                step,
                kind=kind,
                columns=self._columns,
                sample=sample_rows(dataset, self._columns),
                reduction=reduction,
                only_returned_logs=only_returned,
            )
        if kind == "train":
            steps, shuffle = wanted.steps_per_epoch, wanted.shuffle
            return self.run(
                gradients, dataset, reduction, wanted.global_batch_size, steps_per_epoch=steps, shuffle=shuffle
            )
        return self.run(gradients, dataset, reduction, wanted.global_batch_size)

    def run(
        self,
        gradients: GradientFunction,
        dataset: Dataset,
        reduction: str,
        global_batch_size: int,
        *,
        steps_per_epoch: int | None = None,
        shuffle: Shuffle = False,
    ) -> Microbatches:
        """Read a dataset for a traced step."""
        plan = BatchPlan(
            num_rows=len(dataset),
            global_batch_size=global_batch_size,
            num_microbatches=self._settings.total_microbatches,
            steps_per_epoch=steps_per_epoch,
        )
        with self._times.part("open"):
            feed = Feed(dataset, self._columns, plan, seed=self._settings.seed, shuffle=shuffle, reduction=reduction)
            self._feeds.append(feed)
        return Microbatches(self._built, gradients, feed, self._settings.seed)
