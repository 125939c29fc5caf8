"""What is said of a run before its first step, and after its first steps: how, where and from what, and how long.

Three lines, in the words that users of Keras know: who computes which batches; where data and checkpoints lie, and how
they get there; what to fix for the same bits elsewhere. A fourth, of memory, when a worker has built the model, and one
of time when some steps are measured. Nothing is guessed: what is not known yet is not said. Whatever could be better
otherwise is a line of its own, that says what to do.

Time is taken from the steps alone, by their median: the first ones, a checkpoint or a lost worker make a mean too long.
What lies between epochs (validation, callbacks, checkpoints) is counted once an epoch has shown it. What was not done:
a time that is said again and again (the live line has one for the epoch), and one for a run that is over in seconds.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from heliostat.cluster.assignment import assign, split
from heliostat.data import Dataset
from heliostat.data.remote.filesystem import is_uri

from ..checkpoints.store import shown_place
from ..config import EverySeconds, EverySteps, FitConfig
from ..errors.texts import memory_account
from ..jobs import FitJob, PassJob, Progress, Ready
from ..trainer_config import TrainerConfig
from .shown_text import masked

_MAX_HOSTS = 4  # by name, in a line
_MIN_STEPS, _MIN_S = 5, 3.0  # after so many and so long their median says something
_WORTH_S = 10.0  # what takes less needs no words


# -- before the first step --------------------------------------------------------------------------------------------


def plan_lines(job: FitJob, hosts: Mapping[int, str], here: str, scratch: str = "") -> Iterator[str]:
    """How a run is computed, where what it needs lies, and what its bits depend on.

    Args:
        job: the run, with replicas, threads and microbatches as numbers.
        hosts: of the workers that are up, by number.
        here: the driver's.
        scratch: a folder that stands for the run folder, where there is none.
    """
    settings, wanted = job.settings, job.wanted
    steps, epochs = wanted.num_steps(len(job.data)), wanted.epochs - wanted.initial_epoch
    yield (
        f"plan: {_workers(settings, hosts)}; {_count(epochs, 'epoch')} of {_count(steps, 'step')}; "
        f"{_batch(settings, wanted.global_batch_size)}"
    )
    own = tuple(filter(None, (job.run_dir, scratch)))
    valid = job.validation_data
    read = [_rows(job.data, own), *([] if valid is None else [f"validation on {_rows(valid, own)}"])]
    datasets = [each for each in (job.data, valid) if each is not None]
    checkpoints, travel = _checkpoints(wanted, own), _travel(job, datasets, hosts, here)
    yield f"data: {', '.join(read)}; {checkpoints}{travel}"
    yield f"the same bits on any workers with {', '.join(f'{k}={v}' for k, v in settings.for_equal_bits.items())}"
    yield from _advice(settings)


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
    rows = f"{_count(len(job.data), 'row')} in {where or _place(job.data.name, ())}"
    yield f"data: {rows}{_travel(job, [job.data], hosts, here)}"


def model_line(ready: Ready, replicas: int) -> str:
    """The model's size, what computes it, and what memory goes to; `replicas` are those of each worker."""
    device = ready.platform.get("gpu") or ready.platform.get("processor")
    line = f"the model has {_count(ready.num_weights, 'weight')}{f', on {device}' if device else ''}"
    who = "worker" if replicas == 1 else f"of a worker's {replicas} replicas"
    return f"{line}; each {who} holds about: {memory_account(ready.memory)}" if ready.memory else line


def _workers(settings: TrainerConfig, hosts: Mapping[int, str]) -> str:
    """Who computes, where, with what."""
    if settings.workers == 0:
        who, each = "this process", ""
    else:
        up = f", {len(hosts)} of them up," if 0 < len(hosts) < settings.workers else ""
        where = (
            " as threads of this process" if settings.in_process else f" on {_names(hosts.values())}" if hosts else ""
        )
        who, each = f"{_count(settings.workers, 'worker')}{up}{where}", "each " if settings.workers > 1 else ""
    replicas = _count(settings.replicas, f"{settings.device.upper()} replica")
    return f"{who}, {each}with {replicas} and {_count(settings.threads, 'thread')}"


def _names(hosts: Iterable[str]) -> str:
    """Names of machines, with how many workers are on each where they are not spread evenly."""
    counts = Counter(hosts)
    uneven = len(set(counts.values())) > 1
    shown = [f"{name} ({number})" if uneven else name for name, number in counts.items()]
    if len(shown) > _MAX_HOSTS:
        return f"{len(shown)} machines: {', '.join(shown[:_MAX_HOSTS])} and {len(shown) - _MAX_HOSTS} more"
    return _joined(shown)


def _batch(settings: TrainerConfig, rows: int) -> str:
    """The global batch, and what of it a replica and a microbatch have."""
    total, replicas = settings.total_microbatches, settings.group_size * settings.replicas
    sizes = [hi - lo for lo, hi in split(0, rows, total)]
    shares = [part for share in assign(total, settings.group_size) for part in split(*share, settings.replicas)]
    own = sorted({sum(sizes[lo:hi]) for lo, hi in shares})
    per_replica = f", {own[0]} per replica" if len(own) == 1 else f", {own[0]} to {own[-1]} per replica"
    return (
        f"global batch {rows}{per_replica if replicas > 1 else ''}, in {_count(total, 'microbatch')} of "
        f"{'' if rows % total == 0 else 'up to '}{settings.rows_per_microbatch(rows)}"
    )


def _rows(data: Dataset, own: Sequence[str]) -> str:
    return f"{_count(len(data), 'row')} in {_place(data.name, own)}"


def _place(location: str, own: Sequence[str]) -> str:
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
    place = _place(str(wanted.checkpoint_dir), own)
    kept = "the last" if wanted.keep == 1 else f"the last {wanted.keep}"
    return f"a checkpoint every {when}, {kept} kept in {place}"


def _travel(job: FitJob | PassJob, data: Sequence[Dataset], hosts: Mapping[int, str], here: str) -> str:
    """How other machines reach the data, and where they bring checkpoints; empty where there is nothing to bring."""
    others = len({*hosts.values()} - {here})
    if job.disk is None or not others:
        return ""
    found = []
    if any(each.folders() for each in data):
        found.append(f"feeds {_count(others, 'other machine')}, once each, unless they have the same files")
    place = job.wanted.checkpoint_dir if isinstance(job, FitJob) else None
    if place is not None and not is_uri(str(place)):
        found.append("gets the checkpoints that they write")
    return f"; the disk of {here} {' and '.join(found)}" if found else ""


def _advice(settings: TrainerConfig) -> Iterator[str]:
    """What would be faster with other numbers of workers or microbatches."""
    num_microbatches, num_replicas = settings.total_microbatches, settings.group_size * settings.replicas
    if num_microbatches < num_replicas:
        yield (
            f"the run began with {num_microbatches} microbatches, and keeps them; with {num_replicas} replicas "
            f"{num_replicas - num_microbatches} of them have nothing to compute. Fewer workers are as fast, and a new "
            f"run with num_microbatches={num_replicas} uses them all"
        )
    elif num_microbatches < 2 * num_replicas and settings.group_size > 1 and settings.balance:
        yield (
            f"a slow worker has as many microbatches as the others, {num_microbatches} on {num_replicas} replicas; "
            f"num_microbatches={4 * num_replicas} gives room for balancing, and costs some time per step (results "
            "depend on the number: batch statistics are those of a microbatch)"
        )


# -- after the first steps --------------------------------------------------------------------------------------------


class ExpectedTime:
    """How long the rest of a run takes, said once: when its first steps are measured.

    Args:
        epochs: number of the run's last epoch.
        steps: of an epoch.
        validates: whether a validation follows each epoch.
    """

    def __init__(self, epochs: int, steps: int, *, validates: bool) -> None:
        self._epochs, self._steps = epochs, steps
        self._validates = validates
        self._said = False
        self._last: tuple[int, int, float] | None = None  # epoch, step, when
        self._ended: tuple[int, float] | None = None  # epoch, when
        self._measured: list[float] = []  # seconds of a step
        self._num_steps, self._seconds = 0, 0.0  # of what was measured

    def after_steps(self, progress: Progress, at_s: float) -> str:
        """The line, once there is enough to say it; else nothing.

        Args:
            progress: of the running epoch.
            at_s: when it was told, in seconds of a clock that only goes forward.
        """
        if self._said:
            return ""
        epoch, step = progress.epoch, progress.step
        if self._last is not None and self._last[0] == epoch and step > self._last[1]:
            seconds, steps = at_s - self._last[2], step - self._last[1]
            self._measured.append(seconds / steps)
            self._num_steps, self._seconds = self._num_steps + steps, self._seconds + seconds
        self._last = epoch, step, at_s
        if step >= self._steps or self._num_steps < _MIN_STEPS or self._seconds < _MIN_S:
            return ""  # at an epoch's last step: soon more is known
        steps = self._left_after(epoch) * self._steps + self._steps - step
        step_s = statistics.median(self._measured)
        more = ", validation not included" if self._validates else ""
        return self._line(steps * step_s, f"{_parts(steps, 'step', step_s)}{more}")

    def after_epoch(self, epoch: int, at_s: float) -> str:
        """Likewise when an epoch is over with all that follows its steps."""
        before, self._ended = self._ended, (epoch, at_s)
        left = self._left_after(epoch)
        if self._said or self._last is None or self._last[0] != epoch:
            return ""
        if self._measured:
            steps, step_s, between_s = left * self._steps, statistics.median(self._measured), at_s - self._last[2]
            between = _parts(left, "validation" if self._validates else "epoch end", between_s)
            return self._line(steps * step_s + left * between_s, f"{_parts(steps, 'step', step_s)} and {between}")
        if before is None or before[0] != epoch - 1:
            return ""  # epochs of one step: the first one says nothing of how long it took
        epoch_s = at_s - before[1]
        return self._line(left * epoch_s, _parts(left, "epoch", epoch_s))

    def _left_after(self, epoch: int) -> int:
        return self._epochs - epoch - 1

    def _line(self, rest_s: float, what: str) -> str:
        self._said = True
        return f"expected: {_duration(rest_s)} more: {what}" if rest_s >= _WORTH_S else ""


def _parts(number: int, what: str, seconds: float) -> str:
    return f"{_count(number, what)} of {_duration(seconds)}"


def _duration(seconds: float) -> str:
    """A time as people say it: 12 ms, 3.4 s, 2 min 10 s, 5 h 20 min, 3 d 4 h."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(number for number, (_, size) in enumerate(units) if seconds >= size)
    (large, large_s), (small, small_s) = units[first], units[first + 1]
    whole = round(seconds / small_s) * small_s
    rest = whole % large_s // small_s
    return f"{whole // large_s:,} {large}" + (f" {rest} {small}" if rest else "")


def _count(number: int, what: str) -> str:
    ending = "" if number == 1 else "es" if what.endswith("batch") else "s"
    return f"{number:,} {what}{ending}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
