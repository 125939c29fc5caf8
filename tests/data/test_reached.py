"""Datasets that another machine has opened: read in place where the same content is, else fetched into the cache.

The other machine's disk is a folder of this one, under a path that is not there under its own name.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import Dataset, ShardError, mix, open_dataset, write_dataset
from heliostat.data.remote.cache import FOLDER_NAME
from heliostat.data.remote.files import RemoteFiles
from heliostat.data.stored import StoredDataset

from .counted_disk import mounted

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


def parquet(folder: Path) -> None:
    for number in range(3):
        (folder / f"part={number}").mkdir(parents=True)
        part = {"id": np.arange(number * 300, number * 300 + 300), "text": [f"{number}"] * 300}
        pq.write_table(pa.table(part), folder / f"part={number}" / "a.parquet", row_group_size=100)


def arrow(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, type in enumerate((pa.int32(), pa.int64())):  # which is widened
        ids = pa.array(range(number * 400, number * 400 + 400), type)
        pyarrow.feather.write_feather(pa.table({"id": ids}), folder / f"{number}.arrow", compression="lz4")


def tfrecord(folder: Path, compression: str = "") -> None:
    import tensorflow as tf

    folder.mkdir(parents=True)
    for number in range(2):
        options = tf.io.TFRecordOptions(compression_type=compression)
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord"), options) as file:
            for row in range(200):
                values = tf.train.Int64List(value=range(row % 3 + 1))
                features = tf.train.Features(feature={"tokens": tf.train.Feature(int64_list=values)})
                file.write(tf.train.Example(features=features).SerializeToString())


def packed_tfrecord(folder: Path) -> None:
    tfrecord(folder, "GZIP")


def own_parquet(folder: Path) -> None:
    parquet(folder)
    for path in sorted(folder.rglob("*.parquet")):
        path.rename(folder / f"{path.parent.name}.parquet")
        path.parent.rmdir()
    open_dataset(folder, write_manifest=True)


@pytest.mark.engine
@pytest.mark.parametrize("write", [parquet, arrow, tfrecord, packed_tfrecord, own_parquet])
def test_files_of_other_programs(disks, write: Callable[[Path], None]):
    home, elsewhere = disks
    write(home / "set")
    dataset = open_dataset(home / "set")
    expected = read(dataset)
    assert dataset.folders() == {str(home / "set")}

    def uri_of(path: str) -> str:
        return f"file://{path.replace(str(home), str(elsewhere))}"

    shutil.copytree(home, elsewhere)
    assert not fetched(sent(dataset).reached(uri_of))  # a copy is as good
    # Of the same size, but other bytes.
    victim = sorted(path for path in (home / "set").rglob("*.*") if path.is_file())[0]
    victim.write_bytes(bytes(len(victim.read_bytes())))
    assert fetched(sent(dataset).reached(uri_of))
    shutil.rmtree(home)
    there = sent(dataset).reached(uri_of)
    there.check()
    assert fetched(there)
    assert there.fingerprint == dataset.fingerprint
    assert read(there) == expected
    assert read(sent(there.take(150)), shuffle="window") == read(there.take(150), shuffle="window")


def test_of_a_single_file_that_file_is_read_and_of_links_what_they_lead_to(tmp_path):
    arrow(tmp_path / "all")
    (tmp_path / "links" / "below").mkdir(parents=True)
    (tmp_path / "links" / "0.arrow").symlink_to("../all/0.arrow")
    (tmp_path / "links" / "below" / "1.arrow").symlink_to(tmp_path / "all" / "1.arrow")
    one = open_dataset(tmp_path / "all" / "0.arrow")
    assert one.folders() == {str(tmp_path / "all" / "0.arrow")}
    linked = open_dataset(tmp_path / "links")
    files = {str(tmp_path / "all" / f"{number}.arrow") for number in range(2)}
    assert linked.folders() == {str(tmp_path / "links"), *files}


def test_signs_in_the_names_of_folders_are_names(tmp_path):
    home = tmp_path / "home"
    dataset = write_dataset(home / "a?b=1 %41#ü" / "set", rows())
    expected = read(dataset)
    uri_of = mounted(tmp_path / "elsewhere", tmp_path / "log")
    shutil.move(home, tmp_path / "elsewhere" / str(home).lstrip("/"))
    there = sent(dataset).reached(uri_of)
    assert fetched(there)
    assert read(there) == expected


def test_what_is_deleted_meanwhile_is_named(disks):
    home, elsewhere = disks
    dataset = write_dataset(home / "set", {"gone": np.arange(77)})
    shutil.move(home, elsewhere)
    there = sent(dataset).reached(lambda path: f"file://{path.replace(str(home), str(elsewhere))}")
    there.check()  # who opened it has looked at it
    shutil.rmtree(elsewhere)
    with pytest.raises(ShardError, match=r"Shard shard-00000\.arrow of dataset .*elsewhere/set cannot be found"):
        read(there)


def test_what_is_left_out_because_it_is_damaged_stays_out(disks):
    home, elsewhere = disks
    write_dataset(home / "set", rows(), rows_per_shard=ROWS_PER_SHARD)
    damaged = home / "set" / "shard-00002.arrow"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    dataset = open_dataset(home / "set", on_corrupt="skip")
    expected = read(dataset)
    shutil.move(home, elsewhere)
    there = sent(dataset).reached(lambda path: f"file://{path.replace(str(home), str(elsewhere))}")
    assert fetched(there)
    assert (there.num_skipped, there.fingerprint) == (ROWS_PER_SHARD, dataset.fingerprint)
    assert read(there) == expected


def test_the_settings_of_the_cache_go_with_it(disks, tmp_path):
    home, elsewhere = disks
    write_dataset(home / "set", rows(), rows_per_shard=ROWS_PER_SHARD)
    dataset = open_dataset(home / "set", cache_dir=tmp_path / "cache", cache_bytes=1 << 20)
    shutil.move(home, elsewhere)
    there = sent(dataset).reached(lambda path: f"file://{path.replace(str(home), str(elsewhere))}")
    read(there)
    assert len(list((tmp_path / "cache" / FOLDER_NAME).glob("*.arrow"))) == -(-NUM_ROWS // ROWS_PER_SHARD)
