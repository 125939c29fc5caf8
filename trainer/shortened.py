"""A fit with less to do: its first steps alone, or a little of everything.

What a fit is asked for is a value, and so is what becomes of it here: the steps that are left are those that the whole
run begins with, on the same rows, with the same callbacks before them. Only epochs end earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from .config import FitConfig, PassConfig
from .errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyWanted:
    """Train the first steps of a run alone, and tell what every variable holds after each.

    Attributes:
        steps: so many.
        num_microbatches: of a step, where the script does not say; None as for any run.
        threads: of a worker, likewise.
        kills: end the first chief's process by SIGKILL, before the step in the middle.
        plain: in one process, hold each step against plain Keras's from the same state.

    Raises:
        ConfigurationError: there are no steps.
    """

    FORM: ClassVar[str] = "STEPS, or STEPS:MICROBATCHES:THREADS, or one of them and :kill or :plain"
    PATTERN: ClassVar[str] = "([0-9]+)(?::([1-9][0-9]*):([1-9][0-9]*))?(?::(kill|plain))?"

    steps: int
    num_microbatches: int | None = None
    threads: int | None = None
    kills: bool = False
    plain: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"{self.steps} steps are none to look at.")

    @property
    def killed_before(self) -> int:
        """The step before which a worker is killed, counted from the first."""
        return self.steps // 2

    def text(self) -> str:
        """This as text of the form `FORM`; `of` reads it."""
        fixed = [] if self.num_microbatches is None else [self.num_microbatches, self.threads or 1]
        how = ["kill"] if self.kills else ["plain"] if self.plain else []
        return ":".join(map(str, [self.steps, *fixed, *how]))

    @staticmethod
    def of(steps: str, num_microbatches: str | None, threads: str | None, how: str | None) -> VerifyWanted:
        """What a text says, from the groups of `PATTERN`."""
        return VerifyWanted(
            steps=int(steps),
            num_microbatches=None if num_microbatches is None else int(num_microbatches),
            threads=None if threads is None else int(threads),
            kills=how == "kill",
            plain=how == "plain",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickWanted:
    """Do a little of everything that a run does: two epochs of so many steps, the second from a checkpoint."""

    steps: int


def first_steps(wanted: FitConfig, verify: VerifyWanted, num_rows: int | None = None) -> FitConfig:
    """What a fit is asked for, its first steps alone; it validates on as many.

    Args:
        wanted: what it is asked for.
        verify: how many steps.
        num_rows: of its data; None while that is not known: then epochs may be left that are not needed.
    """
    steps = _fewer(wanted.steps_per_epoch, verify.steps)
    epoch_steps = 1 if num_rows is None else _with_steps(wanted, steps).num_steps(num_rows)
    num_epochs = -(-verify.steps // epoch_steps)
    return replace(
        _with_steps(wanted, steps),
        epochs=min(wanted.epochs, wanted.initial_epoch + num_epochs),
        validation_steps=_fewer(wanted.validation_steps, verify.steps),
        max_time_s=None,
    )


def a_little(wanted: FitConfig, quick: QuickWanted, num_epochs: int) -> FitConfig:
    """What a fit is asked for, cut to a few steps of everything.

    Args:
        wanted: what it is asked for.
        quick: how many steps of an epoch, and of a validation.
        num_epochs: how many epochs there are.
    """
    return replace(
        _with_steps(wanted, _fewer(wanted.steps_per_epoch, quick.steps)),
        epochs=wanted.initial_epoch + num_epochs,
        validation_steps=_fewer(wanted.validation_steps, quick.steps),
        validation_freq=1,
        checkpoint_every=None if wanted.checkpoint_every is None else "epoch",
        max_time_s=None,
    )


def a_little_of_a_pass(wanted: PassConfig, quick: QuickWanted) -> PassConfig:
    """What an evaluation is asked for, cut to a few steps."""
    return replace(wanted, steps=_fewer(wanted.steps, quick.steps))


def _with_steps(wanted: FitConfig, steps: int) -> FitConfig:
    """The same with epochs of so many steps, or of a whole pass over the data where that has fewer."""
    return replace(wanted, steps_per_epoch=steps)


def _fewer(own: int | None, steps: int) -> int:
    return steps if own is None else min(own, steps)
