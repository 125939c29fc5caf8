"""What ``run.json`` says of a run, and whether a job that is to go on with a run is that of the same run.

A run has an identity: all that its result follows from, as far as it is known before the workers start. It is recorded
when the run begins, and compared by whoever goes on with it. The model and the hardware are compared later, when a
worker has told what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.data.views.arriving import ArrivingDataset

from ..checkpoints.manifest import check_identity
from ..checkpoints.model_record import ModelRecord
from ..errors import ConfigurationError, OtherBeginningError
from ..hardware import HARDWARE, Platform, differing, refusal, told
from ..jobs import FitJob, Ready
from .plan import Program
from .shown_text import masked, masked_arguments

_IDENTITY = ("loop", "initial_epoch", "global_batch_size", "steps_per_epoch", "shuffle")


_PACKAGES = ("heliostat", "tensorflow", "keras", "numpy", "ray", "pyarrow")


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
        "epochs": None if wanted.is_open else wanted.epochs,
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
