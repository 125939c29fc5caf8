"""The settings of one `fit`, `evaluate` or `predict`: a class each, checked when it is made, before anything starts.

`FitConfig` says what one `fit` does, `PassConfig` what one `evaluate` or `predict` does; those of the trainer are in
`trainer_config`. They are passed whole, and shipped to workers whole: no setting has a second home.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xxhash
from heliostat.data import PlanError
from heliostat.data.order.window import Shuffle, parse_shuffle

from .checked import check_count, check_seconds
from .columns import ColumnChoice, Columns
from .errors import ConfigurationError
from .shipping import Shipped
from .trainer_config import NO_CODE

LoopName = Literal["fit", "train_on_batch", "custom"]
OnNonfinite = Literal["raise", "skip"]
Resume = Literal["auto", False]


@dataclass(frozen=True, slots=True)
class EverySteps:
    """Make a checkpoint after every so many steps.

    Example:
        >>> result = trainer.fit(x, y, batch_size=2, checkpoint_every=EverySteps(2), keep=5, verbose=0)
        >>> len(list(result.run_dir.glob("checkpoints/*/manifest.json")))
        2
    """

    num: int


@dataclass(frozen=True, slots=True)
class EverySeconds:
    """Make a checkpoint every so many seconds.

    Example:
        >>> result = trainer.fit(x, y, checkpoint_every=EverySeconds(600), verbose=0)
        >>> result.seconds < 600
        True
    """

    seconds: float


CheckpointEvery = Literal["epoch"] | EverySteps | EverySeconds | None
DEFAULT_COLUMNS = Columns()
OPEN_END = 1 << 40  # epochs of a run whose caller has not said how many there will be: a number that nobody asks for
LOOP_NAMES: tuple[LoopName, ...] = get_args(LoopName)


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
        check_count("global_batch_size", self.global_batch_size)
        if self.steps is not None:
            check_count("steps", self.steps)

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
        probe: look, before the first step, whether what the step computes follows from microbatches.
        record_rows: keep which rows every worker computed in every step (for proofs).
        is_stepwise: a loop of the caller's asks for every step, and says when the run ends (`Trainer.session`).
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
    probe: bool = True
    record_rows: bool = False
    is_stepwise: bool = False

    def __post_init__(self) -> None:
        _make_plain(self)
        if self.loop not in LOOP_NAMES:
            raise ConfigurationError(f"loop={self.loop!r}; the three ways are {', '.join(map(repr, LOOP_NAMES))}.")
        for name in ("epochs", "global_batch_size", "keep"):
            check_count(name, getattr(self, name))
        check_count("initial_epoch", self.initial_epoch, least=0)
        if self.steps_per_epoch is not None:
            check_count("steps_per_epoch", self.steps_per_epoch)
        if self.initial_epoch >= self.epochs:
            raise ConfigurationError(
                f"initial_epoch={self.initial_epoch} leaves nothing of epochs={self.epochs}; epochs is the number of "
                "the last one, as in Keras."
            )
        self._check_validation()
        self._check_checkpoints()
        if self.on_nonfinite not in get_args(OnNonfinite):
            raise ConfigurationError(f"on_nonfinite={self.on_nonfinite!r}; it takes 'raise' or 'skip'.")
        if not isinstance(self.probe, bool):
            raise ConfigurationError(f"probe={self.probe!r}; it takes True or False.")
        try:
            parse_shuffle(self.shuffle)
        except PlanError as error:
            raise ConfigurationError(str(error)) from error

    @property
    def is_open(self) -> bool:
        """Whether nobody knows yet how many epochs there will be."""
        return self.epochs >= OPEN_END

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
        return None if self.initial_weights is None else weights_digest(self.initial_weights)

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
                check_count("an epoch in validation_freq", epoch)
        else:
            check_count("validation_freq", freq)
        for name in ("validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))

    def _check_checkpoints(self) -> None:
        every = self.checkpoint_every
        if isinstance(every, EverySteps):
            check_count("checkpoint_every=EverySteps(...)", every.num)
        elif isinstance(every, EverySeconds):
            check_seconds("checkpoint_every=EverySeconds(...)", every.seconds)
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
            check_seconds("max_time_s", self.max_time_s)


def weights_digest(weights: Iterable[np.ndarray]) -> str:
    """xxh3_128 over the bytes of weights, one after the other, hexadecimal."""
    digest = xxhash.xxh3_128()
    for weight in weights:
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _make_plain(config: PassConfig | FitConfig) -> None:
    """Let the numbers of a configuration be Python's, which travel as JSON."""
    for each in fields(config):
        if isinstance(value := getattr(config, each.name), np.integer):
            object.__setattr__(config, each.name, _plain(value))


def _plain(value: int | np.integer) -> int:
    return int(value) if isinstance(value, np.integer) else value
