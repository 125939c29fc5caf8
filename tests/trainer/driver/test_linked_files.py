"""Files that callbacks have written to relative paths are found where the script looks for them, and named."""

from __future__ import annotations

import keras
import pytest
from heliostat.cluster.disk.served import TOKEN
from heliostat.trainer.driver.linked_files import link_files
from keras.callbacks import ModelCheckpoint

from ..conftest import dense_data
from ..models import linear


@pytest.fixture
def folders(tmp_path):
    run_dir, here = tmp_path / "run", tmp_path / "here"
    for folder in (run_dir / "logs" / "train", run_dir / "weights", run_dir / "checkpoints", here):
        folder.mkdir(parents=True)
    for path in ("run.json", "model.keras", "best.keras", "logs/worker-0.log", "logs/train/events", "weights/1.h5"):
        (run_dir / path).write_text(path)
    (run_dir / "checkpoints" / TOKEN).write_text("checkpoints lie on a disk of their own")
    return run_dir, here


def test_files_are_linked_and_the_runs_own_are_not(folders):
    run_dir, here = folders
    line = link_files(run_dir, here)
    assert line == f"callbacks' files are in {run_dir}; linked here: best.keras, logs/train, weights"
    assert (here / "best.keras").read_text() == "best.keras"
    assert (here / "logs" / "train" / "events").exists()
    assert not (here / "logs" / "worker-0.log").exists()
    assert {path.name for path in here.iterdir()} == {"best.keras", "logs", "weights"}
    assert link_files(run_dir, here) == line, "again: they are linked"


def test_what_is_here_stays_but_for_links_of_earlier_runs(folders):
    run_dir, here = folders
    (here / "weights").mkdir()
    (here / "weights" / "1.h5").write_text("mine")
    before = run_dir.parent / "before"
    before.mkdir()
    (before / "run.json").write_text("")
    (here / "best.keras").symlink_to(before / "best.keras")
    assert link_files(run_dir, here).endswith(
        "linked here: best.keras, logs/train; not linked: weights/1.h5 (a file of this name is here already)"
    )
    assert (here / "weights" / "1.h5").read_text() == "mine"
    assert (here / "best.keras").read_text() == "best.keras"


def test_nothing_is_said_where_callbacks_wrote_nothing(tmp_path):
    (tmp_path / "run.json").write_text("")
    assert link_files(tmp_path, tmp_path) == ""


@pytest.mark.engine
def test_a_models_file_of_a_callback_is_not_overwritten_by_the_runs_own(train, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    best = [ModelCheckpoint("model.keras", monitor="loss", mode="max", save_best_only=True)]  # the first epoch is best
    result = train(linear(), dense_data(rows=16), workers=0, callbacks=best, verbose=2)
    assert "linked here: model.keras" in capsys.readouterr().out
    first = train(linear(), dense_data(rows=16), workers=0, epochs=1).model().get_weights()
    assert all(map(lambda a, b: (a == b).all(), keras.models.load_model("model.keras").get_weights(), first))
    assert any(map(lambda a, b: (a != b).any(), result.model().get_weights(), first))
