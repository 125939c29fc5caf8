"""The trained model as a file in the run folder, from machines that see it and from one that does not."""

from __future__ import annotations

import errno
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import TOKEN, Root
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.errors import StorageError
from heliostat.trainer.jobs import model_name
from heliostat.trainer.worker.model_file import write_model


@pytest.fixture
def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])


@pytest.fixture
def unseen(ray_here, tmp_path):
    """The run folder and how a machine reaches it that has another folder at its path: the token is another's."""
    (tmp_path / "run").mkdir()
    disk = start_disk()
    served = disk.serving(Root(path=f"{tmp_path}/run", is_writable=True))
    (tmp_path / "run" / TOKEN).write_text("of another disk")
    yield tmp_path / "run", Reach(served)
    stop_disk(served)


def same(model, path: Path) -> bool:
    loaded = keras.models.load_model(path)
    return all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


@pytest.mark.engine
def test_the_driver_puts_the_model_in_place_and_deletes_what_dead_workers_left(tmp_path, model):
    folder = RunFolder(tmp_path / "run", resume=False)
    (folder.path / model_name(3)).write_bytes(b"of a worker that died")
    write_model(model, folder.path / model_name(4), Reach(None))
    folder.take_model(model_name(4))
    assert same(model, folder.path / "model.keras")
    assert not list(folder.path.glob(".*"))
    with pytest.raises(StorageError, match=r"model\.keras' cannot be written: No such file"):
        folder.take_model(model_name(5))
    assert same(model, folder.path / "model.keras"), "what was there stays"


@pytest.mark.engine
def test_a_model_that_cannot_be_written_leaves_no_part_of_it(tmp_path, model):
    with pytest.raises(FileNotFoundError):
        write_model(model, tmp_path / "none" / model_name(0), Reach(None))
    (tmp_path / model_name(0)).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as full:
        write_model(model, tmp_path / model_name(0), Reach(None))
    assert full.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
def test_where_the_run_folder_is_not_seen_the_model_goes_through_the_driver(unseen, model):
    run, reach = unseen
    assert not reach.sees(str(run))
    write_model(model, run / model_name(0), reach)
    assert same(model, (run / model_name(0)).rename(run / "model.keras"))
