"""What a plan says of a run: who computes which batches; where data and checkpoints lie, and how they get there; and
what to fix for the same bits elsewhere.

Three lines, in the words that users of Keras know, and one of memory, when a worker has built the model. Nothing is
guessed: what is not known yet is not said. Whatever could be better otherwise is a line of its own, that says what to
do. A run itself begins with fewer words (`start_lines`); all of these are numbers of its ``run.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from heliostat.cluster.assignment import assign, split
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri

from ..checkpoints.place import shown_place
from ..config import EverySeconds, EverySteps, FitConfig
from ..errors.texts import memory_account
from ..jobs import FitJob, PassJob, Ready
from ..trainer_config import TrainerConfig
from .shown_text import masked
from .words import count, machine_names


def plan_lines(job: FitJob, hosts: Mapping[int, str], here: str, scratch: str = "") -> Iterator[str]:
    """How a run is computed, where what it needs lies, and what its bits depend on.

    Args:
        job: the run, with replicas, threads and microbatches as numbers.
        hosts: of the workers that are up, by number.
        here: the driver's.
        scratch: a folder that stands for the run folder, where there is none.
    """
    settings, wanted = job.settings, job.wanted
    steps, epochs = wanted.num_steps(len(job.data)), count(wanted.epochs - wanted.initial_epoch, "epoch")
    yield (
        f"plan: {_workers(settings, hosts)}; {'epochs' if wanted.is_open else epochs} of {count(steps, 'step')}; "
        f"{_batch(settings, wanted.global_batch_size)}"
    )
    own = tuple(filter(None, (job.run_dir, scratch)))
    valid = job.validation_data
    read = [_rows(job.data, own), *([] if valid is None else [f"validation on {_rows(valid, own)}"])]
    datasets = [each for each in (job.data, valid) if each is not None]
    said = [", ".join(read), _checkpoints(wanted, own), travel(job, datasets, hosts, here)]
    yield f"data: {'; '.join(filter(None, said))}"
    yield f"the same bits on any workers with {', '.join(f'{k}={v}' for k, v in settings.for_equal_bits.items())}"
    yield from advice(settings)
    yield from _room_for_balancing(settings)


def pass_lines(method: str, job: PassJob, hosts: Mapping[int, str], here: str, where: str = "") -> Iterator[str]:
    """How an evaluation or a prediction is computed.

    Args:
        method: which of them.
        job: the pass, with numbers as for `plan_lines`, and likewise `hosts` and `here`.
        hosts: see `job`.
        here: see `job`.
        where: what to call the place of the rows; empty for its name.
    """
    batch = _batch(job.settings, job.wanted.global_batch_size)
    yield f"plan: {_workers(job.settings, hosts)}; {method}: {batch}"
    rows = f"{count(len(job.data), 'row')} in {where or shown_location(job.data.name, ())}"
    yield f"data: {'; '.join(filter(None, [rows, travel(job, [job.data], hosts, here)]))}"


def model_line(ready: Ready, replicas: int) -> str:
    """The model's size, what computes it, and what memory goes to; `replicas` are those of each worker."""
    device = ready.platform.get("gpu") or ready.platform.get("processor")
    line = f"the model has {count(ready.num_weights, 'weight')}{f', on {device}' if device else ''}"
    who = "worker" if replicas == 1 else f"of a worker's {replicas} replicas"
    return f"{line}; each {who} holds about: {memory_account(ready.memory)}" if ready.memory else line


def _workers(settings: TrainerConfig, hosts: Mapping[int, str]) -> str:
    """Who computes, where, with what."""
    if settings.workers == 0:
        who, each = "this process", ""
    else:
        up = f", {len(hosts)} of them up," if 0 < len(hosts) < settings.workers else ""
        where = (
            " as threads of this process"
            if settings.in_process
            else f" on {machine_names(hosts.values())}"
            if hosts
            else ""
        )
        who, each = f"{count(settings.workers, 'worker')}{up}{where}", "each " if settings.workers > 1 else ""
    replicas = count(settings.replicas, f"{settings.device.upper()} replica")
    return f"{who}, {each}with {replicas} and {count(settings.threads, 'thread')}"


def rows_of_replicas(settings: TrainerConfig, rows: int) -> list[int]:
    """How many rows of a global batch of so many a replica has: the different numbers, the least first."""
    sizes = [hi - lo for lo, hi in split(0, rows, settings.total_microbatches)]
    shares = assign(settings.total_microbatches, settings.group_size)
    parts = [part for share in shares for part in split(*share, settings.replicas)]
    return sorted({sum(sizes[lo:hi]) for lo, hi in parts})


def cut_into(settings: TrainerConfig, rows: int) -> str:
    """Into what a global batch is cut."""
    total, most = settings.total_microbatches, settings.rows_per_microbatch(rows)
    return f"{count(total, 'microbatch')} of {'' if rows % total == 0 else 'up to '}{most}"


def _batch(settings: TrainerConfig, rows: int) -> str:
    """The global batch, and what of it a replica and a microbatch have."""
    own = rows_of_replicas(settings, rows)
    per_replica = f", {own[0]} per replica" if len(own) == 1 else f", {own[0]} to {own[-1]} per replica"
    shown = per_replica if settings.group_size * settings.replicas > 1 else ""
    return f"global batch {rows}{shown}, in {cut_into(settings, rows)}"


def _rows(data: Dataset, own: Sequence[str]) -> str:
    return f"{count(len(data), 'row')} in {shown_location(data.name, own)}"


def shown_location(location: str, own: Sequence[str]) -> str:
    """A place without credentials; "the run folder" for what lies in there."""
    if any(Path(location).is_relative_to(folder) for folder in own):
        return "the run folder"
    return masked(shown_place(location))


def _checkpoints(wanted: FitConfig, own: Sequence[str]) -> str:
    every = wanted.checkpoint_every
    if every is None or wanted.checkpoint_dir is None:
        return "no checkpoints"
    when = "epoch"
    if isinstance(every, EverySteps):
        when = f"{every.num} steps" if every.num > 1 else "step"
    elif isinstance(every, EverySeconds):
        when = f"{every.seconds:g} s"
    place = shown_location(str(wanted.checkpoint_dir), own)
    kept = "the last" if wanted.keep == 1 else f"the last {wanted.keep}"
    return f"a checkpoint every {when}, {kept} kept in {place}"


def travel(job: FitJob | PassJob, data: Sequence[Dataset], hosts: Mapping[int, str], here: str) -> str:
    """How other machines reach the data, and where they bring checkpoints; empty where there is nothing to bring."""
    others = len({*hosts.values()} - {here})
    if job.disk is None or not others:
        return ""
    found = []
    if any(each.folders() for each in data):
        found.append(f"feeds {count(others, 'other machine')}, once each, unless they have the same files")
    place = job.wanted.checkpoint_dir if isinstance(job, FitJob) else None
    if place is not None and not is_uri(str(place)):
        found.append("gets the checkpoints that they write")
    return f"the disk of {here} {' and '.join(found)}" if found else ""


def advice(settings: TrainerConfig) -> Iterator[str]:
    """What of a run's replicas stands idle, and what would use them."""
    num_microbatches, num_replicas = settings.total_microbatches, settings.group_size * settings.replicas
    if num_microbatches < num_replicas:
        yield (
            f"the run began with {num_microbatches} microbatches, and keeps them; with {num_replicas} replicas "
            f"{num_replicas - num_microbatches} of them have nothing to compute. Fewer workers are as fast, and a new "
            f"run with num_microbatches={num_replicas} uses them all"
        )
        return
    most = -(-num_microbatches // num_replicas)
    if most * num_replicas >= 1.25 * num_microbatches:
        yield (
            f"{num_replicas} replicas share {num_microbatches} microbatches, so a step takes as long as on "
            f"{-(-num_microbatches // most)}; a new run with num_microbatches={num_replicas} uses all of them (results "
            "depend on that number)"
        )


def _room_for_balancing(settings: TrainerConfig) -> Iterator[str]:
    num_microbatches, num_replicas = settings.total_microbatches, settings.group_size * settings.replicas
    if num_replicas <= num_microbatches < 2 * num_replicas and settings.group_size > 1 and settings.balance:
        yield (
            f"a slow worker has as many microbatches as the others, {num_microbatches} on {num_replicas} replicas; "
            f"num_microbatches={4 * num_replicas} gives room for balancing, and costs some time per step (results "
            "depend on the number: batch statistics are those of a microbatch)"
        )
