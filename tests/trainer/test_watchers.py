"""Who watches a run is told of it in the order in which things happen: its beginning, epochs, events, its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heliostat.trainer import RunPausedError, Trainer
from heliostat.trainer.driver.display import Display
from heliostat.trainer.events import EpochRecord, Event

pytestmark = pytest.mark.engine
X = np.linspace(0, 1, 48, dtype="float32").reshape(16, 3)


class Notes(Display):
    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        self.told.append(("begin", path.name, record["state"]))

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        self.told.append(("epoch", record.epoch, epochs))

    def event(self, event: Event) -> None:
        self.told.append(event.event)

    def end(self, record: Mapping[str, Any]) -> None:
        self.told.append(("end", record["state"]))


def build_model():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_run_is_told_from_its_beginning_to_its_end(tmp_path, monkeypatch):
    notes = Notes()
    monkeypatch.setattr("heliostat.trainer.run_making.display_for", lambda verbose: notes)
    with Trainer(build_model, workers=0, run_dir=tmp_path / "run") as trainer:
        trainer.fit(X, X[:, :1], batch_size=8, epochs=2)
    assert notes.told.count("checkpoint") == 2  # they count when they are written, beside the training
    assert [each for each in notes.told if each != "checkpoint"] == [
        "formed",
        ("begin", "run", "running"),
        "first_step",
        ("epoch", 0, 2),
        ("epoch", 1, 2),
        ("end", "finished"),
    ]


def test_a_pause_is_told_and_what_goes_on_begins_again(tmp_path, monkeypatch):
    notes = Notes()
    monkeypatch.setattr("heliostat.trainer.run_making.display_for", lambda verbose: notes)
    with Trainer(build_model, workers=0, run_dir=tmp_path / "run") as trainer:
        with pytest.raises(RunPausedError):
            trainer.fit(X, X[:, :1], batch_size=8, epochs=100_000, max_time_s=3.0)
    assert notes.told[-2:] == ["paused", ("end", "paused")]
