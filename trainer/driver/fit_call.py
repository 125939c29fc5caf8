"""One call of `fit`: what it asks for, checked, and the job that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.data import Dataset

from ..checkpoints.store import CheckpointStore
from ..columns import Columns
from ..config import FitConfig, check_step
from ..engine.private_names import check_private_names
from ..environment import Command
from ..errors import ConfigurationError, RunPausedError
from ..jobs import FitJob, GradientDtype, ModelJob
from ..shipping import Shipped
from .inputs import Data, Inputs
from .run_folder import RunFolder
from .streams import is_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCall:
    """What a call of `fit` asks for.

    Attributes:
        config: its settings.
        columns: which columns are inputs, targets and weights.
        data: what to train on, as the caller gave it; likewise `validation_data`.
        code: steps and callbacks, for the workers.
        has_callbacks: whether there are callbacks; `afresh` names those whose state cannot be carried.
        checkpoint_dir: where checkpoints go; None for the run folder.
        initial_weights: weights to begin with, or None.
        record_rows: keep which rows every worker computed.
        number: which fit of this process it is, counted from 1.
        command: what a command of `heliostat` wants of it, or None.
        began_s: when it began (monotonic clock).
    """

    config: FitConfig
    columns: Columns
    data: Data
    validation_data: Data | None
    code: Shipped
    has_callbacks: bool
    afresh: tuple[str, ...]
    checkpoint_dir: str | Path | None
    initial_weights: Sequence[np.ndarray] | None
    record_rows: bool
    number: int
    command: Command | None
    began_s: float

    @property
    def replays(self) -> bool:
        """Whether a step is to be computed again, instead of training."""
        return self.command is not None and self.command.replay is not None

    @property
    def has_streams(self) -> bool:
        """Whether data is written into the run folder first."""
        return is_stream(self.data) or is_stream(self.validation_data)

    def is_done(self, folder: RunFolder) -> bool:
        """Whether the folder holds a run that has done all that is asked for."""
        record = folder.record
        enough = record.get("epochs_done", 0) >= self.config.epochs or record.get("stopped_early", False)
        return not self.replays and folder.resumes and record.get("state") == "finished" and enough

    def open_folder(self, path: Path) -> RunFolder:
        """The run folder."""
        return RunFolder(path, resume=self.config.resume == "auto" or self.command is not None)

    def open_data(self, folder: RunFolder) -> tuple[Dataset, Dataset | None]:
        """The datasets to train and to validate on."""
        inputs = Inputs(folder.path / "data")
        train = inputs.dataset(self.data, "train", self.columns)
        if self.validation_data is None:
            return train, None
        return train, inputs.dataset(self.validation_data, "valid", self.columns)

    def open_store(self, folder: RunFolder) -> CheckpointStore | None:
        """The run's checkpoints, None without."""
        if self.config.checkpoint_every is None:
            return None
        # With a command for all fits of a script each keeps its checkpoints in its own folder.
        elsewhere = self.checkpoint_dir if self.command is None or self.command.fit is not None else None
        return CheckpointStore(folder.checkpoints if elsewhere is None else elsewhere)

    def job(
        self,
        model: ModelJob,
        data: tuple[Dataset, Dataset | None],
        folder: RunFolder,
        store: CheckpointStore | None,
        gradient_dtype: GradientDtype | None,
    ) -> FitJob:
        """What the workers are told."""
        config, command = self.config, self.command
        return FitJob(
            model=model,
            loop=config.loop,
            data=data[0],
            validation_data=data[1],
            columns=self.columns,
            epochs=config.epochs,
            initial_epoch=config.initial_epoch,
            global_batch_size=config.global_batch_size,
            steps_per_epoch=config.steps_per_epoch,
            shuffle=config.shuffle,
            user_code=self.code,
            has_callbacks=self.has_callbacks,
            run_dir=str(folder.path),
            record_rows=self.record_rows,
            checkpoints=None if store is None else store.location,
            checkpoint_every=config.checkpoint_every,
            first_generation=0 if store is None else store.next_generation(),
            on_nonfinite=config.on_nonfinite,
            gradient_dtype=gradient_dtype,
            replay=None if command is None else command.replay,
            trace=None if command is None else command.trace,
        )

    @contextmanager
    def failure_recorded(self, folder: RunFolder) -> Iterator[None]:
        """Note in the run's record when the block fails.

        A replay leaves the record as it is, and so does a mistake that is found before a run goes on.
        """
        try:
            yield
        except RunPausedError:
            raise
        except BaseException as error:
            if not self.replays and not (folder.resumes and folder.record.get("state") != "running"):
                state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                folder.update(state=state, error=f"{type(error).__name__}: {error}")
            raise


def check_steps(loop: str, train_step: Any, valid_step: Any, *, weighted: bool) -> None:
    """Raise `ConfigurationError` for steps that the loop does not take, or that take other arguments."""
    if loop != "custom" and (train_step is not None or valid_step is not None):
        raise ConfigurationError(
            f"train_step and valid_step belong to loop='custom', and loop is {loop!r}. To change the step of the other "
            "two ways, override train_step in a keras.Model subclass."
        )
    weight = ("sample_weight",) if weighted else ()
    check_step("train_step", train_step, ("model", "optimizer", "x", "y", *weight))
    check_step("valid_step", valid_step, ("model", "x", "y", *weight))


def checked_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks as a tuple; raises `ConfigurationError` for what is none."""
    if not callbacks:
        return ()
    check_private_names()
    from ..worker.callbacks import check_callbacks  # not before the check; who has callbacks has loaded Keras

    found = tuple(callbacks) if isinstance(callbacks, (list, tuple)) else (callbacks,)
    check_callbacks(found)
    return found


def begin_afresh(callbacks: Sequence[Any]) -> tuple[str, ...]:
    """Names of the callbacks whose state cannot be carried to another worker."""
    if not callbacks:
        return ()
    from ..worker.callback_state import carried_how

    return tuple(type(callback).__name__ for callback in callbacks if carried_how(callback) == "afresh")
