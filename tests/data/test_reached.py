"""Datasets that another machine has opened: read in place where the same content is, else fetched into the cache.

The other machine's disk is a folder of this one, under a path that is not there under its own name.
"""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from heliostat.data import Dataset, mix, open_dataset, write_dataset
from heliostat.data.remote.cache import FOLDER_NAME
from heliostat.data.remote.files import RemoteFiles
from heliostat.data.stored import StoredDataset

pytestmark = pytest.mark.filterwarnings("ignore:A full shuffle of:UserWarning")

NUM_ROWS, ROWS_PER_SHARD = 1000, 130


@pytest.fixture
def disks(tmp_path):
    """(what a dataset at a path is made on, where that disk is moved to when others look)."""
    return tmp_path / "home", tmp_path / "elsewhere"


def rows(start: int = 0) -> dict[str, object]:
    ids = np.arange(start, start + NUM_ROWS)
    return {"id": ids, "x": (ids[:, None] * np.arange(5)).astype(np.float32), "text": [f"row {one}" for one in ids]}


def sent(dataset: Dataset) -> Dataset:
    return pickle.loads(pickle.dumps(dataset))


def read(dataset: Dataset, **options) -> list[dict[str, object]]:
    return [
        {name: values.to_list() if hasattr(values, "to_list") else values.tolist() for name, values in batch.items()}
        for batch in dataset.batches(64, seed=3, epoch=1, **options)
    ]


def fetched(dataset: Dataset) -> bool:
    return isinstance(dataset, StoredDataset) and not dataset._is_of_a_host


def test_what_is_the_same_here_stays_and_what_is_not_is_fetched(disks):
    home, elsewhere = disks
    dataset = write_dataset(home / "set", rows(), rows_per_shard=ROWS_PER_SHARD)
    expected = read(dataset)

    def uri_of(path: str) -> str:
        return f"file://{path.replace(str(home), str(elsewhere))}"

    assert sent(dataset).reached(uri_of)._is_of_a_host
    shutil.move(home, elsewhere)
    there = sent(dataset).reached(uri_of)
    there.check()
    assert fetched(there)
    assert isinstance(there._files, RemoteFiles)
    assert (there.fingerprint, there.name, len(there)) == (dataset.fingerprint, dataset.name, len(dataset))
    assert read(there) == expected
    # A folder of the same name with other rows is another one.
    write_dataset(home / "set", rows(7), rows_per_shard=ROWS_PER_SHARD)
    assert read(sent(dataset).reached(uri_of)) == expected
    shutil.rmtree(home)
    shutil.copytree(elsewhere, home)
    assert not fetched(sent(dataset).reached(uri_of))


def test_who_has_the_disk_reads_what_lies_there(disks):
    home, elsewhere = disks
    dataset = write_dataset(home / "set", rows())
    shutil.move(home, elsewhere)
    assert sent(dataset).reached(lambda path: path)._is_of_a_host


def test_views_hand_it_down(disks):
    home, elsewhere = disks
    one = write_dataset(home / "one", rows(), rows_per_shard=ROWS_PER_SHARD)
    other = write_dataset(home / "other", rows(5000), rows_per_shard=ROWS_PER_SHARD)
    first, _ = one.split(0.7, seed=2)
    views = {
        "selection": first.filter(lambda batch: batch["id"] % 3 > 0, ["id"]).take(400),
        "map": one.map(lambda batch: batch["x"] * 2, ["x"], "x").select_columns(["x", "id"]).rename({"id": "number"}),
        "joined": one.concatenate(other),
        "mix": mix([one, other], seed=4),
        "windows": one.windows("x", 2, stride=1),
        "cache": one.map(lambda batch: batch["id"] + 1, ["id"], "id").cache(home / "cache"),
    }
    expected = {name: read(view) for name, view in views.items()}
    folders = {name: view.folders() for name, view in views.items()}
    shutil.move(home, elsewhere)
    for name, view in views.items():
        moved = sent(view).reached(lambda path: f"file://{path.replace(str(home), str(elsewhere))}")
        moved.check()
        assert moved.fingerprint == view.fingerprint, name
        assert read(moved) == expected[name], name
        assert moved.folders() == frozenset(), name
    both = {str(home / "one"), str(home / "other")}
    assert folders["joined"] == folders["mix"] == both
    assert folders["cache"] == {str(home / "cache" / "shard-00000.arrow")}
    assert folders["selection"] == {str(home / "one")}


def test_the_settings_of_the_cache_go_with_it(disks, tmp_path):
    home, elsewhere = disks
    write_dataset(home / "set", rows(), rows_per_shard=ROWS_PER_SHARD)
    dataset = open_dataset(home / "set", cache_dir=tmp_path / "cache", cache_bytes=1 << 20)
    shutil.move(home, elsewhere)
    there = sent(dataset).reached(lambda path: f"file://{elsewhere}/set")
    read(there)
    assert len(list((tmp_path / "cache" / FOLDER_NAME).glob("*.arrow"))) == -(-NUM_ROWS // ROWS_PER_SHARD)
