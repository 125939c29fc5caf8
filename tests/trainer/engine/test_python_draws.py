"""Draws from Python's and numpy's generators while a step is traced."""

from __future__ import annotations

import random

import numpy as np
from heliostat.trainer.engine.python_draws import drawn_from


def drawn():
    return random.random(), np.random.random()


def test_every_block_draws_alike_and_disturbs_nobody():
    random.seed(1)
    np.random.seed(1)
    wanted = [drawn() for _ in range(2)]

    random.seed(1)
    np.random.seed(1)
    got, inside = [], []
    for _ in range(2):
        got.append(drawn())
        with drawn_from(7):
            inside.append(drawn())
    assert got == wanted
    assert inside[0] == inside[1] not in wanted


def test_another_seed_draws_otherwise():
    with drawn_from(7):
        one = drawn()
    with drawn_from(2**32 + 7):
        other = drawn()
    assert one[0] != other[0], "Python's takes all of the seed"
