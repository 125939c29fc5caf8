"""The settings of a trainer and of one `fit`, each in one class, checked when it is made, before anything starts.

`TrainerConfig` says where a trainer computes and what its results depend on, `FitConfig` what one `fit` does,
`PassConfig` what one `evaluate` or `predict` does. They are passed whole, and shipped to workers whole: no setting has
a second home.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xxhash
from heliostat.data import PlanError
from heliostat.data.order.window import Shuffle, parse_shuffle

from .columns import ColumnChoice, Columns
from .errors import ConfigurationError
from .shipping import InProcess, Shipped

LoopName = Literal["fit", "train_on_batch", "custom"]
OnNonfinite = Literal["raise", "skip"]
GradientDtype = Literal["bfloat16"]
Device = Literal["auto", "gpu", "cpu"]
MixedHardware = Literal["refuse", "allow"]
Resume = Literal["auto", False]


@dataclass(frozen=True, slots=True)
class EverySteps:
    """Make a checkpoint after every so many steps."""

    num: int


@dataclass(frozen=True, slots=True)
class EverySeconds:
    """Make a checkpoint every so many seconds."""

    seconds: float


CheckpointEvery = Literal["epoch"] | EverySteps | EverySeconds | None
MIN_DEADLINE_S, MAX_DEADLINE_S = 3.0, 7 * 24 * 3600.0
NO_CODE, DEFAULT_COLUMNS = InProcess(None), Columns()
LOOP_NAMES: tuple[LoopName, ...] = get_args(LoopName)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What each worker has of its machine.

    Attributes:
        replicas: its devices.
        threads: TensorFlow's intra-op threads.
        device: what its devices are.
    """

    replicas: int = 1
    threads: int = 1
    device: Literal["gpu", "cpu"] = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Where a trainer computes, and what its results depend on.

    Attributes:
        build_model: the user's function that makes the model.
        workers: number of workers; 0 computes in this process, without Ray.
        replicas_per_worker: devices of each worker; "auto" means all its GPUs, or one CPU device.
        num_microbatches: V; None means the smallest power of two that gives every replica one, "auto" the same or twice
            as many, again and again, until the first step finds the memory it needs.
        threads_per_worker: TensorFlow's intra-op threads per worker; None means an equal share of the cores at the
            first start of a run, 1 with `in_process`.
        device: what to compute on; "auto" means GPUs where there are some.
        mixed_hardware: what to do about a worker whose hardware selects other kernels.
        address: the Ray cluster; None for the job's, the connection's or that of `HELIOSTAT_ADDRESS`, else this machine
            alone; "auto" for the cluster this machine belongs to, "local" for this machine.
        seed: of initial weights, row order and random layers.
        deterministic: ask TensorFlow for deterministic kernels.
        min_workers: a run begins with so many and goes on with so many; None begins with all and goes on with one.
        max_workers: the most there can be; None for `workers`.
        gradient_dtype: how gradients are rounded before they are summed, "bfloat16" or None.
        balance: whether a slow worker gets fewer microbatches.
        in_process: run the workers as threads of this process, joined by real sockets.
        deadline_s: how long a worker may not answer; None for ten times the median step, at least five seconds.
        start_timeout_s: how long to wait for workers to start.
    """

    build_model: Shipped = NO_CODE
    workers: int = 1
    replicas_per_worker: int | Literal["auto"] = "auto"
    num_microbatches: int | Literal["auto"] | None = None
    threads_per_worker: int | None = None
    device: Device = "auto"
    mixed_hardware: MixedHardware = "refuse"
    address: str | None = None
    seed: int = 0
    deterministic: bool = True
    in_process: bool = False
    deadline_s: float | None = None
    start_timeout_s: float = 300.0
    min_workers: int | None = None
    max_workers: int | None = None
    gradient_dtype: GradientDtype | None = None
    balance: bool = True

    def __post_init__(self) -> None:
        _check_count("workers", self.workers, least=0)
        if self.replicas_per_worker != "auto":
            _check_count("replicas_per_worker", self.replicas_per_worker)
        if self.num_microbatches not in (None, "auto"):
            _check_count("num_microbatches", self.num_microbatches)
        if self.threads_per_worker is not None:
            _check_count("threads_per_worker", self.threads_per_worker)
        self._check_sizes()
        self._check_times()
        _check_choice("device", self.device, get_args(Device))
        _check_choice("mixed_hardware", self.mixed_hardware, get_args(MixedHardware))
        if self.gradient_dtype not in (None, "bfloat16"):
            raise ConfigurationError(f"gradient_dtype={self.gradient_dtype!r}; it takes 'bfloat16' or None.")
        if not isinstance(self.balance, bool):
            raise ConfigurationError(f"balance={self.balance!r}; it takes True or False.")
        _check_count("seed", self.seed, least=0)
        if self.seed >= 2**32:
            raise ConfigurationError(f"seed={self.seed} is too large: Keras and numpy take 32 bits.")
        if self.address is not None and not (isinstance(self.address, str) and self.address):
            raise ConfigurationError(
                f"address={self.address!r}; it takes 'auto', 'local', or host and port of a Ray cluster's head, "
                "such as '10.0.0.1:6379'."
            )
        if self.local and self.address is not None:
            raise ConfigurationError(
                f"workers=0 and in_process=True compute in this process, so address={self.address!r} has no use. Leave "
                "it out, or give workers=1 or more."
            )

    def _check_sizes(self) -> None:
        for name in ("min_workers", "max_workers"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        least, most = self.min_workers or 1, self.max_workers or self.group_size
        if self.workers == 0 and (self.min_workers or self.max_workers):
            raise ConfigurationError(
                "workers=0 computes in this process, so min_workers and max_workers have no use. Leave them out, or "
                "give workers=1 or more."
            )
        if not least <= self.group_size <= most:
            raise ConfigurationError(
                f"min_workers={self.min_workers}, workers={self.workers}, max_workers={self.max_workers}: it takes "
                "min_workers <= workers <= max_workers."
            )

    def _check_times(self) -> None:
        _check_seconds("start_timeout_s", self.start_timeout_s)
        if self.deadline_s is None:
            return
        _check_seconds("deadline_s", self.deadline_s)
        if not MIN_DEADLINE_S <= self.deadline_s <= MAX_DEADLINE_S:
            raise ConfigurationError(
                f"deadline_s={self.deadline_s!r}; it takes {MIN_DEADLINE_S:g} (healthy workers say every second that "
                f"they live) to {MAX_DEADLINE_S:g} seconds (seven days), or None for ten times the median step."
            )

    @property
    def local(self) -> bool:
        """Whether everything happens in this process, without Ray."""
        return self.workers == 0 or self.in_process

    @property
    def group_size(self) -> int:
        """Workers that train together, counting this process as one."""
        return max(1, self.workers)

    @property
    def threads(self) -> int:
        """TensorFlow's intra-op threads of each worker, once `threads_per_worker` is a number."""
        if self.threads_per_worker is None:
            raise RuntimeError("how many threads workers have is known when there are workers")
        return self.threads_per_worker

    @property
    def max_size(self) -> int:
        """The most workers there can be, counting this process as one."""
        return self.max_workers or self.group_size

    def rows_per_microbatch(self, global_batch_size: int) -> int:
        """The most rows of a microbatch, once `num_microbatches` is a number."""
        return -(-global_batch_size // self.total_microbatches)

    @property
    def replicas(self) -> int:
        """Replicas of each worker, once `replicas_per_worker` is a number."""
        if self.replicas_per_worker == "auto":
            raise RuntimeError("how many replicas there are is known when there are workers")
        return self.replicas_per_worker

    @property
    def total_microbatches(self) -> int:
        """V, once `for_run` has made it a number."""
        if not isinstance(self.num_microbatches, int):
            raise RuntimeError("how many microbatches there are is known when there are workers")
        return self.num_microbatches

    @property
    def for_equal_bits(self) -> dict[str, int]:
        """The arguments that a run of another size, or elsewhere, must be given for the bits of this one."""
        fixed = {"num_microbatches": self.total_microbatches}
        return fixed if self.device == "gpu" else fixed | {"threads_per_worker": self.threads}

    def with_share(self, share: WorkerShare) -> TrainerConfig:
        """These settings with the device as it turned out, and replicas and threads as numbers."""
        return replace(self, replicas_per_worker=share.replicas, threads_per_worker=share.threads, device=share.device)

    def for_run(self, share: WorkerShare, stored: int | None = None) -> TrainerConfig:
        """As `with_share`, and `num_microbatches` as a number; `stored` is that of the run that goes on, None without.

        Raises:
            ConfigurationError: fewer microbatches than replicas.
        """
        return replace(self.with_share(share), num_microbatches=self.microbatches(share.replicas, stored))

    def microbatches(self, replicas: int, stored: int | None = None) -> int:
        """V for `replicas` replicas per worker; `stored` is that of the run that goes on.

        Raises:
            ConfigurationError: fewer microbatches than replicas.
        """
        total = self.max_size * replicas
        if not isinstance(self.num_microbatches, int):
            if stored is not None:
                return stored
            return 1 << (total - 1).bit_length()
        if self.num_microbatches < total:
            raise ConfigurationError(
                f"num_microbatches={self.num_microbatches} is less than the {total} replicas ({self.max_size} "
                f"workers × {replicas}): some would have nothing to compute. Give at least {total}, or fewer workers."
            )
        return self.num_microbatches


@dataclass(frozen=True, slots=True, kw_only=True)
class PassConfig:
    """What one `evaluate` or `predict` does.

    Attributes:
        columns: which are read.
        global_batch_size: rows of a step, over all workers.
        steps: after which the pass ends; None takes all rows.
    """

    columns: Columns
    global_batch_size: int = 32
    steps: int | None = None

    def __post_init__(self) -> None:
        _make_plain(self)
        _check_count("global_batch_size", self.global_batch_size)
        if self.steps is not None:
            _check_count("steps", self.steps)

    def num_steps(self, num_rows: int) -> int:
        """Steps of the pass over so many rows."""
        natural = -(-num_rows // self.global_batch_size)
        return natural if self.steps is None else min(self.steps, natural)

    def num_rows(self, num_rows: int) -> int:
        """How many of so many rows the pass takes, the first ones."""
        return min(num_rows, self.num_steps(num_rows) * self.global_batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """What one `fit` does.

    Attributes:
        loop: the way to train.
        epochs: number of the last epoch; `initial_epoch` is the number of the first.
        global_batch_size: rows of one step, over all workers.
        steps_per_epoch: steps after which an epoch ends, and the next one goes on; None takes all rows.
        shuffle: the order of rows.
        columns: which are inputs, targets and weights.
        validation_sample_weight: the column of row weights, or one for each output, of the validation data; None
            without.
        validation_freq: the epochs after which the run validates: each of which that is a multiple of this number, or
            just these (both counted from 1).
        validation_steps: steps of a validation pass; None takes all rows.
        validation_batch_size: rows of such a step; None for `global_batch_size`.
        code: the user's steps and callbacks, a `shipping.UserCode`.
        prepare: the user's function that changes the model before the run; None changes nothing.
        code_digests: hashes of them, by what they are of; a run that goes on with others says so.
        initial_weights: arrays for ``model.set_weights``; None for those of `build_model`.
        checkpoint_every: when checkpoints are made; None makes none.
        checkpoint_dir: where they go, a path or URI; None for the run folder.
        keep: how many are kept.
        resume: whether to go on with the run in the folder, if there is one.
        take_over: whether to take the folder from a driver that has been silent for minutes.
        max_time_s: seconds after which the run is paused; None for never.
        on_nonfinite: what to do about a gradient that is not finite.
        record_rows: keep which rows every worker computed in every step (for proofs).
    """

    loop: LoopName = "fit"
    epochs: int = 1
    initial_epoch: int = 0
    global_batch_size: int = 32
    steps_per_epoch: int | None = None
    shuffle: Shuffle = "full"
    columns: Columns = DEFAULT_COLUMNS
    validation_sample_weight: ColumnChoice | None = None
    validation_freq: int | list[int] | tuple[int, ...] = 1
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    code: Shipped = NO_CODE
    prepare: Shipped | None = None
    code_digests: Mapping[str, str] = field(default_factory=dict)
    initial_weights: tuple[np.ndarray, ...] | None = None
    checkpoint_every: CheckpointEvery = "epoch"
    checkpoint_dir: str | Path | None = None
    keep: int = 3
    resume: Resume = "auto"
    take_over: bool = False
    max_time_s: float | None = None
    on_nonfinite: OnNonfinite = "raise"
    record_rows: bool = False

    def __post_init__(self) -> None:
        _make_plain(self)
        if self.loop not in LOOP_NAMES:
            raise ConfigurationError(f"loop={self.loop!r}; the three ways are {', '.join(map(repr, LOOP_NAMES))}.")
        for name in ("epochs", "global_batch_size", "keep"):
            _check_count(name, getattr(self, name))
        _check_count("initial_epoch", self.initial_epoch, least=0)
        if self.steps_per_epoch is not None:
            _check_count("steps_per_epoch", self.steps_per_epoch)
        if self.initial_epoch >= self.epochs:
            raise ConfigurationError(
                f"initial_epoch={self.initial_epoch} leaves nothing of epochs={self.epochs}; epochs is the number of "
                "the last one, as in Keras."
            )
        self._check_validation()
        self._check_checkpoints()
        if self.on_nonfinite not in get_args(OnNonfinite):
            raise ConfigurationError(f"on_nonfinite={self.on_nonfinite!r}; it takes 'raise' or 'skip'.")
        try:
            parse_shuffle(self.shuffle)
        except PlanError as error:
            raise ConfigurationError(str(error)) from error

    @property
    def validation_columns(self) -> Columns:
        """Which columns of the validation data are read; classes have no weights there, as in Keras."""
        return replace(self.columns, class_weight=(), sample_weight=self.validation_sample_weight)

    @property
    def validation_pass(self) -> PassConfig:
        """The validation pass."""
        return PassConfig(
            columns=self.validation_columns,
            global_batch_size=self.validation_batch_size or self.global_batch_size,
            steps=self.validation_steps,
        )

    def validates_after(self, epoch: int) -> bool:
        """Whether the run validates after an epoch (counted from 0), if it has data for that."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return epoch + 1 in self.validation_freq

    @property
    def initial_weights_digest(self) -> str | None:
        """Hash of the initial weights, None without."""
        if self.initial_weights is None:
            return None
        digest = xxhash.xxh3_128()
        for weight in self.initial_weights:
            digest.update(weight.tobytes())
        return digest.hexdigest()

    def num_steps(self, num_rows: int) -> int:
        """Steps of an epoch over so many rows; the last epoch of a pass may have fewer."""
        per_pass = -(-num_rows // self.global_batch_size)
        return per_pass if self.steps_per_epoch is None else min(self.steps_per_epoch, per_pass)

    def epochs_per_pass(self, num_rows: int) -> int:
        """Epochs that a pass over so many rows is cut into."""
        return -(-num_rows // (self.num_steps(num_rows) * self.global_batch_size))

    def _check_validation(self) -> None:
        freq = self.validation_freq
        if isinstance(freq, (list, tuple)):
            object.__setattr__(
                self, "validation_freq", tuple(int(each) if isinstance(each, np.integer) else each for each in freq)
            )
            for epoch in self.validation_freq if isinstance(self.validation_freq, tuple) else ():
                _check_count("an epoch in validation_freq", epoch)
        else:
            _check_count("validation_freq", freq)
        for name in ("validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))

    def _check_checkpoints(self) -> None:
        every = self.checkpoint_every
        if isinstance(every, EverySteps):
            _check_count("checkpoint_every=EverySteps(...)", every.num)
        elif isinstance(every, EverySeconds):
            _check_seconds("checkpoint_every=EverySeconds(...)", every.seconds)
        elif every not in ("epoch", None):
            raise ConfigurationError(
                f"checkpoint_every={every!r}; it takes 'epoch', EverySteps(n), EverySeconds(s) (both from "
                "heliostat.trainer), or None for no checkpoints."
            )
        if self.resume not in ("auto", False):
            raise ConfigurationError(
                f"resume={self.resume!r}; it takes 'auto' (go on with the run in run_dir, if there is one) or False."
            )
        if not isinstance(self.take_over, bool):
            raise ConfigurationError(f"take_over={self.take_over!r}; it takes True or False.")
        if self.max_time_s is not None:
            _check_seconds("max_time_s", self.max_time_s)


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name}={value!r}; it must be a positive number of seconds.")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name}={value!r}; it takes {' or '.join(map(repr, choices))}.")


def _make_plain(config: PassConfig | FitConfig) -> None:
    """Let the numbers of a configuration be Python's, which travel as JSON."""
    for each in fields(config):
        if isinstance(value := getattr(config, each.name), np.integer):
            object.__setattr__(config, each.name, _plain(value))


def _plain(value: int | np.integer) -> int:
    return int(value) if isinstance(value, np.integer) else value


def _check_count(name: str, value: object, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}; it must be an integer of at least {least}.")
