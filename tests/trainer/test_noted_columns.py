"""What a conversion noted of a dataset's columns is what a model is fed with, unless the caller says otherwise."""

from __future__ import annotations

import numpy as np
from heliostat.data import DatasetWriter, open_dataset
from heliostat.trainer.driver.inputs import noted_columns


def test_columns_are_those_that_the_conversion_noted(tmp_path):
    metadata = {"model": {"inputs": "image", "targets": "label"}}
    with DatasetWriter(tmp_path / "set", metadata=metadata) as writer:
        writer.write({"image": np.zeros((4, 2)), "label": np.arange(4)})
    place, stored = str(tmp_path / "set"), open_dataset(tmp_path / "set")
    data, *chosen = noted_columns(place, None, None)
    assert chosen == ["image", "label"]
    assert data.fingerprint == stored.fingerprint
    assert noted_columns(stored.skip(1).take(2), None, None)[1:] == ("image", "label")
    assert noted_columns(stored.select_columns(["label"]), None, None)[1:] == ("x", "label")
    assert noted_columns(place, ["image"], {"a": "label"}) == (place, ["image"], {"a": "label"})
    assert noted_columns(place, ["image"], None)[1:] == (["image"], "label")


def test_without_a_note_they_are_x_and_y(tmp_path):
    arrays = (np.zeros(3), np.zeros(3))
    assert noted_columns(arrays, None, None) == (arrays, "x", "y")
    nowhere = str(tmp_path / "none")
    assert noted_columns(nowhere, None, None) == (nowhere, "x", "y")
