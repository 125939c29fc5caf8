"""What a run says of itself when it begins, in as few words as a user of Keras needs; a plan says more (`plan_lines`).

One line once its workers are known: what computes it, the batch and what each device has of it, the steps, the folder.
One when the model is built, since compiling may take a while, and one when its first step is through. Microbatches are
told of only where a device has more than one. What stands in the folder besides, its checkpoints and where the time of
the start went, is in `run.json`; only what is not as usual is said. A line that says that something could be faster is
worth its place; one that explains what is well is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from heliostat.cluster.cores import usable_cores

from ..jobs import FitJob, Ready
from ..trainer_config import TrainerConfig
from .plan_lines import advice, cut_into, rows_of_replicas, shown_location, travel
from .words import count, machine_names

_BETWEEN = " · "


def start_lines(job: FitJob, hosts: Mapping[int, str], here: str) -> Iterator[str]:
    """How a run is computed; what travels to other machines for it; what of it could be faster.

    Args:
        job: the run, with replicas, threads and microbatches as numbers.
        hosts: of the workers that are up, by number.
        here: the driver's.
    """
    settings, wanted = job.settings, job.wanted
    parts = (
        devices(settings, hosts, here),
        _batch(settings, wanted.global_batch_size),
        f"{count(wanted.num_steps(len(job.data)), 'step')} per epoch",
        _checkpoints(job),
        f"run folder {shown_path(Path(job.run_dir))}",
    )
    yield _BETWEEN.join(filter(None, parts))
    datasets = [each for each in (job.data, job.validation_data) if each is not None]
    if line := travel(job, datasets, hosts, here):
        yield line
    yield from advice(settings)


def model_built(ready: Ready) -> str:
    """A worker has built the model."""
    return f"the model has {count(ready.num_weights, 'weight')}; compiling its step"


def first_step(total_s: float) -> str:
    """The first step is through, so many seconds after the call of `fit`."""
    return f"first step after {total_s:.1f} s"


def devices(settings: TrainerConfig, hosts: Mapping[int, str], here: str) -> str:
    """What computes: "2 GPUs", "8 GPUs in 2 workers, on a and b", "2 workers on CPU", "this process on CPU"."""
    num_workers, num_devices = settings.group_size, settings.group_size * settings.replicas
    workers = count(num_workers, "worker")
    if settings.workers == 0 and settings.device == "cpu" and num_devices == 1:
        return "this process on CPU"
    if settings.device == "cpu" and settings.replicas == 1:
        who = f"{workers} on CPU"
    else:
        who = count(num_devices, "GPU" if settings.device == "gpu" else "CPU device")
        who += f" in {workers}" if num_workers > 1 else ""
    if settings.workers == 0 or settings.in_process:
        return f"{who}, in this process"
    up = f", {len(hosts)} of them up" if 0 < len(hosts) < num_workers else ""
    where = "" if set(hosts.values()) <= {here} else f", on {machine_names(hosts.values())}"
    return f"{who}{up}{where}"


def shown_path(path: Path) -> str:
    """A path as a user would write it: from the current directory where it lies below that."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (OSError, ValueError):  # elsewhere; or that directory is gone
        return os.fspath(path)


def _batch(settings: TrainerConfig, rows: int) -> str:
    """The global batch, what a device has of it, and its microbatches where they are not the devices' shares."""
    shares, num_devices = rows_of_replicas(settings, rows), settings.group_size * settings.replicas
    if len(shares) == 1:
        each = f" ({shares[0]} each)"
    else:
        each = f" ({shares[0]} {'or' if shares[-1] == shares[0] + 1 else 'to'} {shares[-1]} each)"
    parts = "" if settings.total_microbatches == num_devices else f" in {cut_into(settings, rows)}"
    return f"batch {rows}{each if num_devices > 1 else ''}{parts}"


def _checkpoints(job: FitJob) -> str:
    """Where checkpoints are if not in the run folder."""
    place = job.wanted.checkpoint_dir
    if job.wanted.checkpoint_every is None or place is None:
        return "no checkpoints"
    inside = Path(str(place)).is_relative_to(job.run_dir)
    return "" if inside else f"checkpoints in {shown_location(str(place), ())}"


# -- cores of a machine ----------------------------------------------------------------------------------------------


def shared_cores_line(workers: int, threads: int) -> str:
    """What to say if workers of this machine have more threads than it has cores; else nothing."""
    cores = usable_cores()
    if workers * threads <= cores:
        return ""
    who = f"{count(workers, 'worker')} with {count(threads, 'thread')}{' each' if workers > 1 else ''}"
    return f"{who} share{'' if workers > 1 else 's'} the {count(cores, 'core')} of this machine"


def idle_cores_line(threads: int, cores: int) -> str:
    """What to say of a run that goes on where its workers leave at least half of the cores idle; else nothing.

    A new run takes all cores, and who has given `threads_per_worker` needs no word.

    Args:
        threads: that a worker has.
        cores: that it could have.
    """
    if 2 * threads > cores:
        return ""
    return (
        f"{threads} of {count(cores, 'core')} per worker: a run keeps the number of threads that it began with, for "
        "results depend on it; a new run uses all"
    )
