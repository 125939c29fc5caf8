"""One call of `fit`: what it asks for, checked, and the job that follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heliostat.data import Dataset

from ..checkpoints.store import CheckpointStore
from ..config import FitConfig, TrainerConfig
from ..engine.private_names import check_private_names
from ..environment import Command
from ..errors import RunPausedError
from ..jobs import FitJob
from .inputs import Data, Inputs
from .run_folder import RunFolder
from .streams import is_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCall:
    """What a call of `fit` asks for.

    Attributes:
        wanted: its settings.
        data: what to train on, as the caller gave it; likewise `validation_data`.
        number: which fit of this process it is, counted from 1.
        command: what a command of `heliostat` wants of it, or None.
        began_s: when it began (monotonic clock).
    """

    wanted: FitConfig
    data: Data
    validation_data: Data | None
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
        enough = record.get("epochs_done", 0) >= self.wanted.epochs or record.get("stopped_early", False)
        return not self.replays and folder.resumes and record.get("state") == "finished" and enough

    def open_folder(self, path: Path) -> RunFolder:
        """The run folder."""
        return RunFolder(path, resume=self.wanted.resume == "auto" or self.command is not None)

    def open_data(self, folder: RunFolder) -> tuple[Dataset, Dataset | None]:
        """The datasets to train and to validate on."""
        inputs = Inputs(folder.path / "data")
        train = inputs.dataset(self.data, "train", self.wanted.columns)
        if self.validation_data is None:
            return train, None
        return train, inputs.dataset(self.validation_data, "valid", self.wanted.columns)

    def open_store(self, folder: RunFolder) -> CheckpointStore | None:
        """The run's checkpoints, None without."""
        if self.wanted.checkpoint_every is None:
            return None
        # With a command for all fits of a script each keeps its checkpoints in its own folder.
        elsewhere = self.wanted.checkpoint_dir if self.command is None or self.command.fit is not None else None
        return CheckpointStore(folder.checkpoints if elsewhere is None else elsewhere)

    def job(
        self,
        settings: TrainerConfig,
        data: tuple[Dataset, Dataset | None],
        folder: RunFolder,
        store: CheckpointStore | None,
    ) -> FitJob:
        """What the workers are told."""
        return FitJob(
            settings=settings,
            wanted=replace(self.wanted, checkpoint_dir=None if store is None else store.location),
            data=data[0],
            validation_data=data[1],
            run_dir=str(folder.path),
            first_generation=0 if store is None else store.next_generation(),
            replay=None if self.command is None else self.command.replay,
            trace=None if self.command is None else self.command.trace,
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


def checked_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks as a tuple; raises `ConfigurationError` for what is none."""
    if not callbacks:
        return ()
    check_private_names()
    from ..worker.callback_hooks import check_callbacks  # not before the check; who has callbacks has loaded Keras

    found = tuple(callbacks) if isinstance(callbacks, (list, tuple)) else (callbacks,)
    check_callbacks(found)
    return found
