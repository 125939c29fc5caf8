"""A run as values: what the caller wants, and what follows for its workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from heliostat.cluster.disk.served import Root
from heliostat.cluster.pace import Dealing
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri

from ..beginning import Beginning, ModelState
from ..checkpoints.store import CheckpointStore
from ..config import FitConfig
from ..environment import Command
from ..errors import MemoryExhaustedError
from ..jobs import FitJob
from ..shortened import VerifyWanted, first_steps
from ..trainer_config import TrainerConfig, WorkerShare
from .dialogue import Dialogue
from .inputs import Data, open_input, opened
from .run_folder import DATA, FINAL_FOLDER, RunFolder
from .run_paths import make_new
from .stream_files import taken_by_fit, taken_by_pass
from .streams import Stream
from .trained import FitEnd, TrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The program that asks for a run, and can ask for it again.

    Attributes:
        argv: the script and its arguments.
        directory: where it runs.
        fit: which `fit` of the program makes the run, counted from 1.
    """

    argv: tuple[str, ...]
    directory: str
    fit: int

    @staticmethod
    def here(fit: int) -> Program:
        """This process."""
        return Program(argv=tuple(sys.argv), directory=os.getcwd(), fit=fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run that is to be made.

    Attributes:
        settings: the trainer's.
        wanted: those of the run itself.
        data: what to train on, as the caller gave it; likewise `validation_data`.
        path: its folder; `path_is_new` says whether that is to be a new one, which nobody else uses.
        begins: where it begins.
        program: what asks for it.
        key: names the state in which it ends, as `ModelState.key`.
        model: the trainer's; `code` are the hashes of the user's code that makes it.
        command: what a command of `heliostat` wants of it, or None.
        tried: numbers of microbatches for which there was not enough memory.
        stream: what the rows in the run folder come from; None where they are no stream's.
        dialogue: with the caller of a session; None without.
    """

    settings: TrainerConfig
    wanted: FitConfig
    data: Data
    validation_data: Data | None
    path: Path
    path_is_new: bool = False
    begins: Beginning
    program: Program
    key: str
    model: TrainedModel
    code: Mapping[str, str]
    command: Command | None
    tried: tuple[int, ...] = ()
    stream: Stream | None = None
    dialogue: Dialogue | None = None

    def opened(self) -> Run:
        """This run with its datasets opened; arrays and streams stay what they are.

        Raises:
            DataError, DatasetError: a dataset cannot be opened or lacks a column.
        """
        wanted, valid = self.wanted, self.validation_data
        return replace(
            self,
            data=opened(self.data, wanted.columns),
            validation_data=None if valid is None else opened(valid, wanted.validation_columns),
        )

    def open_folder(self) -> RunFolder:
        """The run folder."""
        path = make_new(self.path) if self.path_is_new else self.path
        resume = self.wanted.resume == "auto" or self.command is not None
        return RunFolder(path, resume=resume, is_new=self.path_is_new)

    def look_at_folder(self) -> RunFolder:
        """The run folder as it is now, or would be: nothing is made."""
        resume = self.wanted.resume == "auto" or self.command is not None
        return RunFolder(self.path, resume=resume, is_made=False)

    def open_store(self, folder: RunFolder) -> CheckpointStore | None:
        """The run's checkpoints, None without."""
        return None if self.wanted.checkpoint_every is None else self._place(folder)

    def shared_store(self) -> CheckpointStore | None:
        """Where this run and others keep their checkpoints, each in a folder; None if they are in the run folder.

        Runs of earlier versions had all of theirs there, without folders.
        """
        # With a command for all fits of a script each keeps its checkpoints in its own folder.
        elsewhere = self.wanted.checkpoint_dir if self.command is None or self.command.fit is not None else None
        return None if elsewhere is None else CheckpointStore(elsewhere)

    def final_store(self, folder: RunFolder) -> CheckpointStore:
        """Where the state is kept in which the run ends: where its checkpoints are, or would be."""
        return self._place(folder).below(FINAL_FOLDER)

    def _place(self, folder: RunFolder) -> CheckpointStore:
        shared = self.shared_store()
        return CheckpointStore(folder.checkpoints) if shared is None else shared.below(folder.run_id)

    def open_data(self, folder: RunFolder, scratch: Path | None = None) -> tuple[Dataset, Dataset | None]:
        """The datasets to train and to validate on; arrays and streams are written into the folder, or into another."""
        place, wanted, valid = scratch or folder.path / DATA, self.wanted, self.validation_data
        train = open_input(
            self.data, "train", wanted.columns, place, taken=taken_by_fit(wanted, arrives=True), began=folder.began
        )
        if valid is None:
            return train, None
        columns, taken = wanted.validation_columns, taken_by_pass(wanted.validation_pass)
        return train, open_input(valid, "valid", columns, place, taken=taken, began=folder.began)

    def job(
        self,
        share: WorkerShare,
        data: tuple[Dataset, Dataset | None],
        folder: RunFolder,
        store: CheckpointStore | None,
        final: CheckpointStore,
    ) -> FitJob:
        """What the workers are told.

        Args:
            share: what each worker has of its machine.
            data: from `open_data`.
            folder: the run folder.
            store: the run's checkpoints, None without.
            final: from `final_store`.
        """
        verify = None if self.command is None else self.command.verify
        wanted = self.wanted if verify is None else first_steps(self.wanted, verify, len(data[0]))
        return FitJob(
            settings=self.settings.for_run(share, self.microbatches(folder)),
            wanted=replace(wanted, checkpoint_dir=None if store is None else store.location),
            data=data[0],
            validation_data=data[1],
            run_dir=str(folder.path),
            begins=self.begins,
            first_generation=max(each.next_generation() for each in (store, final) if each is not None),
            key=self.key,
            final_dir=final.location,
            replay=None if self.command is None else self.command.replay,
            trace=None if self.command is None else self.command.trace,
            verify=verify,
        )

    def roots(self, data: tuple[Dataset, Dataset | None], folder: RunFolder, final: CheckpointStore) -> list[Root]:
        """What of the driver's disk the run's workers read and write.

        Args:
            data: from `open_data`.
            folder: the run folder.
            final: from `final_store`, where checkpoints are as well.
        """
        own = folder.path.absolute()
        written = [own] if is_uri(final.location) else [own, *_written_beside(own, Path(final.location))]
        return [*roots_of(data, self.begins.state), *(Root(path=str(each), is_writable=True) for each in written)]

    @property
    def fit_before(self) -> FitEnd | None:
        """The fit that this one goes on from, or that is tried again."""
        return self.model.end if self.begins.sha256 is not None else None

    def microbatches(self, folder: RunFolder) -> int | None:
        """V of the run in its folder, else of the fit before; twice what memory did not suffice for; None without."""
        if (fixed := self._fixed) is not None and fixed.num_microbatches is not None:
            return fixed.num_microbatches
        if self.tried:
            return min(2 * self.tried[-1], self.wanted.global_batch_size)
        before = self.fit_before
        return stored_microbatches(folder) or (None if before is None else before.num_microbatches)

    def threads(self, folder: RunFolder) -> int | None:
        """Threads per worker of the run in its folder, else of the fit before; None without either."""
        before, fixed = self.fit_before, self._fixed
        if fixed is not None and fixed.threads is not None:
            return fixed.threads
        return stored_threads(folder) or (None if before is None else before.threads)

    @property
    def _fixed(self) -> VerifyWanted | None:
        """What first steps are to be computed with, as those that they are held against."""
        return None if self.command is None else self.command.verify

    def smaller(self, error: MemoryExhaustedError, folder: RunFolder) -> Run | None:
        """This run with smaller microbatches; None if it may not have them.

        Args:
            error: what its workers, or the driver for them, have raised.
            folder: its folder.
        """
        if error.next_number is None or not self.can_shrink(folder):
            return None
        return replace(self, tried=(*self.tried, error.num_microbatches))

    def can_shrink(self, folder: RunFolder) -> bool:
        """Whether its number of microbatches is still to be found; once a step is done in its folder it is fixed."""
        return self.settings.num_microbatches == "auto" and "start_s" not in folder.record


def _written_beside(own: Path, final: Path) -> list[Path]:
    """Where checkpoints are if that is not in the run folder, or in there by a link alone; `final` is beside them."""
    if not final.is_relative_to(own):
        return [final.parent]
    real = Path(os.path.realpath(final))
    return [] if real.is_relative_to(os.path.realpath(own)) else [real.parent]


def roots_of(data: Iterable[Dataset | None], state: ModelState) -> list[Root]:
    """What of the driver's disk is read where these rows come and the model begins in this state."""
    folders = set[str]().union(*(each.folders() for each in data if each is not None))
    if state.location and not is_uri(state.location):
        folders.add(state.location)
    return [Root(path=each) for each in sorted(folders)]


def stored_microbatches(folder: RunFolder) -> int | None:
    """V of the run in a folder, None without."""
    found: int | None = folder.record.get("identity", {}).get("num_microbatches")
    return found


def stored_threads(folder: RunFolder) -> int | None:
    """Threads per worker of the run in a folder, None without."""
    found: int | None = folder.record.get("identity", {}).get("threads_per_worker")
    return found


def stored_share(settings: TrainerConfig, folder: RunFolder) -> WorkerShare:
    """What each worker had of its machine in the run in a folder, as far as `settings` do not say otherwise."""
    on_gpus = folder.record.get("platform", {}).get("device_type") == "GPU"
    threads = settings.threads_per_worker or stored_threads(folder) or 1
    return WorkerShare(threads=threads, device="gpu" if on_gpus else "cpu")


def dealing_of(settings: TrainerConfig) -> Dealing | None:
    """How the microbatches of a run are dealt out by the workers' pace; None where each worker keeps its own."""
    if not settings.balance:
        return None
    return Dealing(num_microbatches=settings.total_microbatches, num_replicas=settings.replicas)
