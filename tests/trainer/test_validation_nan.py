"""Rows to validate on that are not finite are told once for a pass, with their number and the first of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from .conftest import dense_data
from .faults import events_of
from .helpers import local_trainer

pytestmark = pytest.mark.engine


def regression():
    model = keras.Sequential([keras.layers.Dense(1)])  # without relu, which makes a number of NaN
    model.compile("sgd", "mse")
    return model


def test_nan_in_a_validation_pass_is_one_warning_with_the_rows(tmp_path, capfd):
    x, y = dense_data(rows=32)
    bad = x.copy()
    bad[[3, 17, 30], 2] = [np.nan, np.inf, np.nan]
    with local_trainer(regression, tmp_path, workers=2) as trainer:
        result = trainer.fit((x, y), epochs=2, global_batch_size=8, verbose=2, validation_data=(bad, y))
        trainer.evaluate((bad, y), global_batch_size=8, verbose=2)
    printed = " ".join(capfd.readouterr().out.split())
    assert printed.count("warning: metrics of 3 row(s) of") == 3
    assert printed.count("are NaN or infinite: rows 3, 17, 30") == 3
    told = events_of(result.run_dir, "validation_not_finite")
    assert [(event["epoch"], event["num_rows"], event["first_rows"]) for event in told] == [
        (0, 3, [3, 17, 30]),
        (1, 3, [3, 17, 30]),
    ]
