"""A fit with less to do: its first steps alone, or a little of everything.

What a fit is asked for is a value, and so is what becomes of it here: the steps that are left are those that the whole
run begins with, on the same rows, with the same callbacks before them. Only epochs end earlier.
"""

from __future__ import annotations

from dataclasses import replace

from .config import FitConfig, PassConfig
from .environment import QuickWanted, VerifyWanted


def first_steps(wanted: FitConfig, verify: VerifyWanted, num_rows: int | None = None) -> FitConfig:
    """What a fit is asked for, but for its first steps alone; it validates on as many.

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
