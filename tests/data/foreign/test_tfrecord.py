"""TFRecord files are trained where they lie: one scan finds the rows, and they are those that TensorFlow reads."""

from __future__ import annotations

import os
import pickle
import warnings

import numpy as np
import pytest
from heliostat.data import BadColumnError, DatasetNotFoundError, ShardError, open_dataset
from heliostat.data.conversion.convert import convert
from heliostat.data.errors import CacheError
from heliostat.data.foreign import tfrecord
from heliostat.data.verify import verify

pytestmark = pytest.mark.engine
NUM_ROWS = 700


@pytest.fixture
def tf():
    return pytest.importorskip("tensorflow")


def record(tf, row: int, **more) -> bytes:
    def feature(values):
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {"y": [row], "v": [row / 2, -0.5], "text": [f"row {row}".encode()], "tokens": [*range(row % 4)], **more}
    named = {name: feature(values) for name, values in features.items() if values}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write(tf, path, rows, compression="", **more):
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as file:
        for row in rows:
            file.write(record(tf, row, **more))


@pytest.fixture
def folder(tf, tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "_RUN_ROWS", 100)
    (tmp_path / "set").mkdir()
    for part in range(2):
        write(tf, tmp_path / "set" / f"a.tfrecord-0000{part}-of-00002", range(350 * part, 350 * part + 350))
    return tmp_path / "set"


def assert_rows(rows, ids):
    assert rows["y"].tolist() == list(ids)
    assert rows["v"].tolist() == [[row / 2, -0.5] for row in ids]
    assert rows["text"].to_list() == [f"row {row}" for row in ids]
    assert rows["tokens"].to_list() == [[*range(row % 4)] for row in ids]


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_rows_are_those_that_tensorflow_reads(tf, tmp_path, compression):
    write(tf, tmp_path / "a.tfrecord", range(NUM_ROWS), compression)
    dataset = open_dataset(tmp_path / "a.tfrecord")
    assert len(dataset) == NUM_ROWS
    columns = {name: (column.kind, column.dtype, column.shape) for name, column in dataset.schema.items()}
    assert columns == {
        "text": ("string", np.uint8, ()),
        "tokens": ("list", np.int64, ()),
        "v": ("tensor", np.float32, (2,)),
        "y": ("tensor", np.int64, ()),
    }
    found = tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"), compression).as_numpy_iterator()
    records = [tf.train.Example.FromString(each).features.feature for each in found]
    (rows,) = dataset.batches(NUM_ROWS, shuffle=False)
    assert rows["y"].tolist() == [each["y"].int64_list.value[0] for each in records]
    assert rows["tokens"].to_list() == [list(each["tokens"].int64_list.value) for each in records]
    assert rows["text"].to_list() == [each["text"].bytes_list.value[0].decode() for each in records]
    assert rows["v"].tolist() == [list(each["v"].float_list.value) for each in records]


def test_a_full_shuffle_of_several_files_is_every_row_once(folder, tmp_path):
    before = sorted(folder.iterdir())
    dataset = open_dataset(folder, cache_dir=tmp_path / "cache")
    assert [len(shard.chunk_rows) for shard in dataset.shards] == [4, 4]
    for one in (dataset, pickle.loads(pickle.dumps(dataset))):
        for seed in range(2):
            batches = list(one.batches(64, seed=seed))
            ids = np.concatenate([rows["y"] for rows in batches])
            assert sorted(ids.tolist()) == list(range(NUM_ROWS))
            for rows in batches:
                assert_rows(rows, rows["y"].tolist())
    assert sorted(folder.iterdir()) == before
    assert verify(dataset).is_whole
    with pytest.raises(CacheError, match="full shuffle"):
        next(open_dataset(folder, cache_dir=tmp_path / "small", cache_bytes=12_000).batches(64))
    with pytest.raises(ValueError, match="TFRecord files, of which a manifest does not tell all"):
        open_dataset(folder, write_manifest=True)


def test_a_feature_of_the_last_record_is_found(tf, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as file:
        for row in range(NUM_ROWS):
            file.write(record(tf, row, **({"late": [7]} if row == NUM_ROWS - 1 else {})))
    (rows,) = open_dataset(tmp_path).batches(NUM_ROWS, shuffle=False)
    assert rows["late"].to_list() == [[]] * (NUM_ROWS - 1) + [[7]]


def test_what_cannot_be_columns_is_refused_by_name(tf, tmp_path):
    sequence = tf.train.SequenceExample()
    sequence.context.feature["y"].int64_list.value.append(1)
    sequence.feature_lists.feature_list["frames"].feature.add().int64_list.value.append(1)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as file:
        file.write(sequence.SerializeToString())
    with pytest.raises(ShardError, match=r"SequenceExample with the feature lists 'frames'"):
        open_dataset(tmp_path / "a.tfrecord")
    write(tf, tmp_path / "b.tfrecord", range(3), names=[b"a", b"b"])
    with pytest.raises(BadColumnError, match="'names' has 2 bytes values"):
        open_dataset(tmp_path / "b.tfrecord")
    (tmp_path / "c.tfrecord").write_bytes(b"")
    with pytest.raises(DatasetNotFoundError, match="hold no rows"):
        open_dataset(tmp_path / "c.tfrecord")


@pytest.mark.parametrize("place", [0, 3, 5000, -3])
def test_damage_is_found_when_it_is_opened_and_when_it_comes_later(folder, place):
    dataset = open_dataset(folder)
    path = folder / "a.tfrecord-00001-of-00002"
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"a\.tfrecord-00001-of-00002.*(damaged|cut short)"):
        open_dataset(folder)
    with dataset.reader() as reader:
        assert_rows(reader.gather(np.array([5, 349])), [5, 349])
        with pytest.raises(ShardError, match=r"a\.tfrecord-00001-of-00002 .*changed"):
            reader.gather(np.array([350]))
    assert [item.file for item in verify(dataset).damage] == ["a.tfrecord-00001-of-00002"]


def test_files_are_scanned_once_on_a_host_and_anew_when_they_change(folder, tmp_path, monkeypatch):
    scans = []
    scanned = tfrecord._scanned
    monkeypatch.setattr(tfrecord, "_scanned", lambda paths: scans.append(len(paths)) or scanned(paths))
    first = open_dataset(folder, cache_dir=tmp_path / "cache")
    again = open_dataset(folder, cache_dir=tmp_path / "cache")
    assert scans == [2]
    assert (again.fingerprint, again.schema, again.shards) == (first.fingerprint, first.schema, first.shards)
    (rows,) = again.batches(NUM_ROWS, shuffle=False)
    assert_rows(rows, range(NUM_ROWS))
    (index,) = (tmp_path / "cache").rglob("?" * 32 + ".index")
    index.chmod(0o600)
    index.write_bytes(index.read_bytes()[:-9])
    assert open_dataset(folder, cache_dir=tmp_path / "cache").fingerprint == first.fingerprint
    assert scans == [2, 2]
    path = folder / "a.tfrecord-00000-of-00002"
    path.write_bytes(path.read_bytes())  # the same bytes: the same dataset, after another look
    assert open_dataset(folder, cache_dir=tmp_path / "cache").fingerprint == first.fingerprint
    path.write_bytes((folder / "a.tfrecord-00001-of-00002").read_bytes())
    assert open_dataset(folder, cache_dir=tmp_path / "cache").fingerprint != first.fingerprint
    assert scans == [2, 2, 2, 2]


def test_a_cache_that_cannot_be_used_costs_the_index_only(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    dataset = open_dataset(folder, cache_dir=tmp_path / "file")
    assert len(dataset) == NUM_ROWS
    assert len(open_dataset(folder, cache_dir=tmp_path / "cache", cache_bytes=10)) == NUM_ROWS


def test_a_change_behind_the_index_is_found_when_its_rows_are_read(tf, tmp_path, monkeypatch):
    path = tmp_path / "a.tfrecord"
    write(tf, path, range(NUM_ROWS), names=[b"a" * 500])
    seen = path.stat()
    dataset = open_dataset(path, cache_dir=tmp_path / "cache")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(type(path), "stat", lambda self, **more: seen if self == path else os.stat(self, **more))
    again = open_dataset(path, cache_dir=tmp_path / "cache")
    assert again.fingerprint == dataset.fingerprint
    with pytest.raises(ShardError, match=r"a\.tfrecord .*has other records than when it was opened"):
        list(again.batches(NUM_ROWS))


def test_files_behind_links_are_those_that_a_conversion_takes(tf, tmp_path):
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    write(tf, root / "sub" / "a.tfrecord", range(3))
    (root / "other").symlink_to("sub")
    (root / "sub" / "back").symlink_to("..")
    (root / "sub" / "back.tfrecord").symlink_to("..")
    opened, converted = open_dataset(root), convert(root, tmp_path / "out")
    for dataset in (opened, converted):
        assert [dataset.row(number)["y"] for number in range(len(dataset))] == [0, 1, 2, 0, 1, 2]


def test_a_pipe_among_files_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "b.tfrecord")
    with pytest.raises(ShardError, match=r"b\.tfrecord is a pipe, socket or device"):
        open_dataset(folder)


def test_a_large_scan_is_told_once(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(tfrecord, "_TOLD_BYTES", 1)
    with pytest.warns(UserWarning, match="all .* bytes of TFRecord are read once"):
        open_dataset(folder, cache_dir=tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(folder, cache_dir=tmp_path / "cache")


def test_a_link_to_what_is_not_there_is_refused_by_name(folder):
    (folder / "b.tfrecord").symlink_to("nowhere")
    with pytest.raises(ShardError, match=r"b\.tfrecord is a link to what is not there"):
        open_dataset(folder)


def test_keys_in_the_names_of_folders_are_not_lost_without_a_word(tf, tmp_path):
    for year in (2023, 2024):
        (tmp_path / "set" / f"year={year}").mkdir(parents=True)
        write(tf, tmp_path / "set" / f"year={year}" / "a.tfrecord", range(3))
    with pytest.raises(ShardError, match="year=VALUE, whose key would be lost"):
        open_dataset(tmp_path / "set")
    told = [str(entry) for entry in convert(tmp_path / "set", tmp_path / "out").account]
    assert "year: 1 column left out: a key in the names of folders, which only tables get" in told
