"""A run as values: what the caller wants, what follows for its workers, and what ``run.json`` says of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heliostat.cluster.disk.served import Root
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pace import Dealing
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri
from heliostat.data.views.arriving import ArrivingDataset

from ..beginning import Beginning, ModelState
from ..checkpoints.manifest import check_identity
from ..checkpoints.model_record import ModelRecord
from ..checkpoints.store import CheckpointStore
from ..config import FitConfig
from ..environment import Command
from ..errors import ConfigurationError, MemoryExhaustedError, OtherBeginningError
from ..hardware import HARDWARE, Platform, differing, refusal, told
from ..jobs import FitJob, Ready
from ..trainer_config import TrainerConfig, WorkerShare
from .inputs import Data, open_input, opened
from .run_folder import DATA, FINAL_FOLDER, RunFolder
from .run_paths import make_new
from .shown_text import masked, masked_arguments
from .stream_files import taken_by_fit, taken_by_pass
from .streams import Stream
from .trained import FitEnd, TrainedModel

_IDENTITY = ("loop", "initial_epoch", "global_batch_size", "steps_per_epoch", "shuffle")
_PACKAGES = ("heliostat", "tensorflow", "keras", "numpy", "ray", "pyarrow")


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
        return FitJob(
            settings=self.settings.for_run(share, self.microbatches(folder)),
            wanted=replace(self.wanted, checkpoint_dir=None if store is None else store.location),
            data=data[0],
            validation_data=data[1],
            run_dir=str(folder.path),
            begins=self.begins,
            first_generation=max(each.next_generation() for each in (store, final) if each is not None),
            key=self.key,
            final_dir=final.location,
            replay=None if self.command is None else self.command.replay,
            trace=None if self.command is None else self.command.trace,
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
        if self.tried:
            return min(2 * self.tried[-1], self.wanted.global_batch_size)
        before = self.fit_before
        return stored_microbatches(folder) or (None if before is None else before.num_microbatches)

    def threads(self, folder: RunFolder) -> int | None:
        """Threads per worker of the run in its folder, else of the fit before; None without either."""
        before = self.fit_before
        return stored_threads(folder) or (None if before is None else before.threads)

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


def identity_of(job: FitJob) -> dict[str, object]:
    """What must be equal to go on with a run, as far as the driver knows it before workers start."""
    settings, wanted, columns = job.settings, job.wanted, job.wanted.columns
    datasets = {"train": job.data, "valid": job.validation_data}
    arrives, parts = isinstance(job.data, ArrivingDataset), job.numbering.epochs_per_pass
    return {
        **{name: getattr(wanted, name) for name in _IDENTITY},
        **({} if arrives or parts == 1 else {"epochs_per_pass": parts}),  # once each epoch began a new pass
        **_identity_of_validation(job),
        "seed": settings.seed,
        "num_microbatches": settings.num_microbatches,
        "threads_per_worker": settings.threads,
        "deterministic": settings.deterministic,
        "gradient_dtype": settings.gradient_dtype,
        "initial_weights": wanted.initial_weights_digest,
        "begins_from": job.begins.identity(),
        "columns": [str(columns.inputs), str(columns.targets), str(columns.sample_weight)],
        "data": {name: data.fingerprint for name, data in datasets.items() if data is not None},
    }


def _identity_of_validation(job: FitJob) -> dict[str, object]:
    """What of a run's arguments about classes and validation is not as it is without them."""
    wanted, found = job.wanted, dict[str, object]()
    if wanted.columns.class_weight:
        found["class_weight"] = [list(each) for each in wanted.columns.class_weight]
    if job.validation_data is None:
        return found
    if wanted.validation_freq != 1:
        freq = wanted.validation_freq
        found["validation_freq"] = freq if isinstance(freq, int) else list(freq)
    for name in ("validation_steps", "validation_batch_size"):
        if getattr(wanted, name) is not None:
            found[name] = getattr(wanted, name)
    if wanted.validation_sample_weight != wanted.columns.sample_weight:
        found["validation_sample_weight"] = str(wanted.validation_sample_weight)
    return found


def check_run(recorded: Mapping[str, Any], job: FitJob, run_dir: Path) -> None:
    """Compare the identity that a run has recorded with that of a job which is to go on with it.

    The threads of a worker that computes on GPUs are left out: what adds up floating-point numbers is on the GPU, and
    the sum over workers, on the host, is made by one thread in the tree's order.

    Raises:
        ConfigurationError: they differ; it names in what.
    """
    before, begins = recorded.get("begins_from"), job.begins
    if before != begins.identity():
        raise OtherBeginningError(run_dir, before, None if begins.sha256 is None else begins.epochs, begins.run_dir)
    now = identity_of(job)
    if job.settings.device == "gpu" and "threads_per_worker" in recorded:
        recorded = {**recorded, "threads_per_worker": now["threads_per_worker"]}
    check_identity(recorded, now, run_dir)


def check_ready(
    ready: Ready, model: ModelRecord, platform: Platform, job: FitJob, run_dir: Path, where: str = "where the run began"
) -> None:
    """Compare the model of a worker, and its hardware, with those that a run is computed with.

    Args:
        ready: what the worker has told.
        model: the run's, empty where it has none yet.
        platform: the run's, likewise; it is not compared if `mixed_hardware` allows others.
        job: the run.
        run_dir: its folder, for the message.
        where: that platform is, for the message.

    Raises:
        ConfigurationError: they differ; it names in what.
    """
    model.check(ready.model, ready.settings, run_dir, ready.platform.get("keras", ""))
    differences = differing(platform, ready.platform, HARDWARE)
    if differences and job.settings.mixed_hardware == "refuse":
        raise ConfigurationError(refusal(told(differences, where, "here")))


def run_record(job: FitJob, program: Program) -> dict[str, object]:
    """What ``run.json`` says of a run besides its state, and of the program that asks for it."""
    settings, wanted, arguments = job.settings, job.wanted, masked_arguments(program.argv)
    datasets = {"train": job.data, "valid": job.validation_data}
    return {
        "plan": {
            "workers": settings.workers,
            "min_workers": settings.min_workers,
            "max_workers": settings.max_workers,
            "replicas_per_worker": settings.replicas,
            "num_microbatches": settings.total_microbatches,
            "threads_per_worker": settings.threads,
            "rows_per_microbatch": settings.rows_per_microbatch(wanted.global_batch_size),
            "global_batch_size": wanted.global_batch_size,
            "for_equal_bits": settings.for_equal_bits,
            "balance": settings.balance,
        },
        "epochs": wanted.epochs,
        "identity": identity_of(job),
        "data": {
            name: {
                "path": masked(data.name),
                "rows": len(data),
                "skipped_rows": data.num_skipped,
                "fingerprint": data.fingerprint,
            }
            for name, data in datasets.items()
            if data is not None
        },
        "command": {
            "argv": arguments,
            "directory": program.directory,
            "fit": program.fit,
            "masked": tuple(arguments) != program.argv,
        },
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def workers_record(group: WorkerGroup) -> list[dict[str, object]]:
    """Where the workers that are up run, for ``run.json``."""
    return [{"worker": info.worker, "host": info.host, "pid": info.pid} for info in group.infos.values()]


def _version(name: str) -> str:
    """The version of a package that results depend on."""
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"
