"""What a fit is asked for, with less to do."""

from __future__ import annotations

import pytest
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import FitConfig, PassConfig
from heliostat.trainer.errors import ConfigurationError
from heliostat.trainer.shortened import QuickWanted, VerifyWanted, a_little, a_little_of_a_pass, first_steps


@pytest.mark.parametrize(
    ("given", "rows", "epochs", "steps"),
    [
        (FitConfig(epochs=9), 320, 1, 4),  # ten steps in an epoch
        (FitConfig(epochs=9), 64, 2, 2),  # two: it takes two epochs
        (FitConfig(epochs=9), 96, 2, 3),
        (FitConfig(epochs=1), 64, 1, 2),  # there are no more
        (FitConfig(epochs=9, steps_per_epoch=1), 320, 4, 1),
        (FitConfig(epochs=9, initial_epoch=5), 320, 6, 4),
        (FitConfig(epochs=9, steps_per_epoch=100), 320, 1, 4),
    ],
)
def test_the_first_steps_are_those_of_the_whole_run(given, rows, epochs, steps):
    wanted = VerifyWanted(steps=4)
    for found in (first_steps(given, wanted, rows), first_steps(first_steps(given, wanted), wanted, rows)):
        assert (found.epochs, found.num_steps(rows)) == (epochs, steps)


def test_all_else_is_as_it_was_but_for_the_end():
    given = FitConfig(epochs=9, max_time_s=60.0, validation_steps=2)
    found = first_steps(given, VerifyWanted(steps=4), 320)
    assert (found.max_time_s, found.validation_steps) == (None, 2)
    assert first_steps(FitConfig(), VerifyWanted(steps=4), 320).validation_steps == 4


def test_a_little_of_everything_validates_and_makes_checkpoints():
    given = FitConfig(epochs=90, initial_epoch=3, validation_freq=10, checkpoint_every="epoch", max_time_s=1.0)
    found = a_little(given, QuickWanted(steps=2), 2)
    assert (found.initial_epoch, found.epochs, found.steps_per_epoch) == (3, 5, 2)
    assert (found.validation_freq, found.validation_steps, found.max_time_s) == (1, 2, None)
    assert a_little(FitConfig(checkpoint_every=None), QuickWanted(steps=2), 2).checkpoint_every is None
    assert a_little(FitConfig(steps_per_epoch=1), QuickWanted(steps=2), 1).steps_per_epoch == 1


def test_a_little_of_a_pass():
    assert a_little_of_a_pass(PassConfig(columns=Columns()), QuickWanted(steps=2)).steps == 2
    assert a_little_of_a_pass(PassConfig(columns=Columns(), steps=1), QuickWanted(steps=2)).steps == 1


def test_the_worker_is_killed_in_the_middle():
    assert [VerifyWanted(steps=steps).killed_before for steps in (2, 3, 4, 9)] == [1, 1, 2, 4]
    with pytest.raises(ConfigurationError, match="0 steps"):
        VerifyWanted(steps=0)
