"""TFRecord files, tf.data and the data sets of Keras against TensorFlow's and Keras's own readers."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pytest
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.from_keras import keras_source, labelled_source
from heliostat.data.conversion.from_objects import from_tf_dataset
from heliostat.data.errors import BadColumnError, SourceError
from heliostat.data.format.columns import Column

pytestmark = pytest.mark.engine

NUM_ROWS = 700
RANDOM = np.random.default_rng(0)
IDS = np.split(np.arange(2000), np.sort(RANDOM.integers(0, 2000, NUM_ROWS - 1)))


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def columns_of(dataset) -> dict:
    return next(dataset.batches(len(dataset), shuffle=False))


def features_of(tf, row: int) -> dict:
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def data(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    return {
        "label": ints([row % 10]),
        "image": floats(np.arange(6) + row / 3),
        "ids": ints(IDS[row]),
        "text": data(f"é {row}".encode()),
        "jpeg": data(b"\xff\xd8" + bytes([row % 256])),
        "raw": data(np.arange(row, row + 4, dtype=np.uint16).tobytes() + b"\xff\xff"),
    }


def write(tf, path, rows, options: str = "", features=features_of) -> None:
    with tf.io.TFRecordWriter(str(path), options) as file:
        for row in rows:
            file.write(tf.train.Example(features=tf.train.Features(feature=features(tf, row))).SerializeToString())


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_records_as_tensorflow_parses_them(tf, tmp_path, compression):
    for part in range(2):
        write(tf, tmp_path / f"a.tfrecord-0000{part}-of-00002", range(350 * part, 350 * part + 350), compression)
    columns = {"raw": "tensor:uint16[5]", "label": "uint8"}
    dataset = convert(tmp_path, tmp_path / "set", columns=columns, rows_per_shard=100)
    found = columns_of(dataset)
    records = tf.data.TFRecordDataset(sorted(map(str, tmp_path.glob("*of*"))), compression).batch(NUM_ROWS)
    specs = {
        "label": tf.io.FixedLenFeature((), tf.int64),
        "image": tf.io.FixedLenFeature((6,), tf.float32),
        "ids": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
        **{name: tf.io.FixedLenFeature((), tf.string) for name in ("text", "jpeg", "raw")},
    }
    expected = tf.io.parse_example(next(iter(records)), specs)
    assert found["label"].tolist() == expected["label"].numpy().tolist()
    assert found["label"].dtype == np.uint8
    assert found["image"].tobytes() == expected["image"].numpy().tobytes()
    assert found["image"].shape == (NUM_ROWS, 6)
    assert np.array_equal(found["ids"].values, expected["ids"].values)
    assert np.array_equal(found["ids"].row_splits, expected["ids"].row_splits)
    assert found["ids"].values.dtype == np.int64
    assert found["text"].to_list() == [text.decode() for text in expected["text"].numpy()]
    assert found["jpeg"].to_list() == expected["jpeg"].numpy().tolist()
    assert np.array_equal(found["raw"], tf.io.decode_raw(expected["raw"], tf.uint16))
    assert [dataset.schema[name].kind for name in ("text", "jpeg")] == ["string", "bytes"]


def test_features_that_some_records_lack(tf, tmp_path):
    def features(tf, row):
        known = features_of(tf, row)
        return {name: known[name] for name in ("label", "text") if row % 2}

    write(tf, tmp_path / "a.tfrecord", range(1, 20), features=features)
    with pytest.raises(BadColumnError, match="'text' has 0, 1 bytes values"):
        convert(tmp_path / "a.tfrecord", tmp_path / "set")
    found = columns_of(convert(tmp_path / "a.tfrecord", tmp_path / "lists", features=["label"]))
    assert found["label"].lengths.tolist() == [row % 2 for row in range(1, 20)]
    filled = columns_of(convert(tmp_path / "a.tfrecord", tmp_path / "set", fill_nulls={"label": -1, "text": "?"}))
    assert filled["label"].tolist() == [row % 10 if row % 2 else -1 for row in range(1, 20)]
    assert filled["text"].to_list()[:2] == ["é 1", "?"]


def test_damaged_records_are_named(tf, tmp_path):
    write(tf, tmp_path / "a.tfrecord", range(NUM_ROWS))
    data = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(data[:-5])
    with pytest.raises(SourceError, match=r"a\.tfrecord cannot be read as TFRecord after row"):
        convert(tmp_path / "a.tfrecord", tmp_path / "set")
    (tmp_path / "a.tfrecord").write_bytes(b"")
    with pytest.raises(SourceError, match="no records"):
        convert(tmp_path / "a.tfrecord", tmp_path / "set")


TENSORS = {
    "x": RANDOM.random((NUM_ROWS, 2, 3)).astype(np.float32),
    "n": RANDOM.integers(0, 9, NUM_ROWS).astype(np.uint16),
    "half": RANDOM.random(NUM_ROWS).astype(np.float16),
    "ok": RANDOM.random(NUM_ROWS) < 0.5,
    "text": np.array([f"é {row}".encode() for row in range(NUM_ROWS)], object),
}


@pytest.mark.parametrize("batched", [False, True])
def test_tf_data_as_it_iterates(tf, tmp_path, batched):
    ids = tf.RaggedTensor.from_row_lengths(np.concatenate(IDS).astype(np.int32), [len(row) for row in IDS])
    source = tf.data.Dataset.from_tensor_slices({**TENSORS, "ids": ids})
    dataset = from_tf_dataset(source.batch(64) if batched else source, tmp_path / "set", batched=batched)
    found = columns_of(dataset)
    for name, values in TENSORS.items():
        if name == "text":
            assert found["text"].to_list() == [text.decode() for text in values]
        else:
            assert found[name].tobytes() == values.tobytes()
            assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
    assert found["ids"].to_list() == [row.tolist() for row in IDS]
    assert found["ids"].values.dtype == np.int32


def test_pairs_bytes_and_what_tf_data_cannot_give(tf, tmp_path):
    pairs = tf.data.Dataset.from_tensor_slices(({"raw": [b"a", b"b"]}, [1, 2], [0.5, 1.0]))
    kinds = [Column(name="raw", dtype=np.dtype(np.uint8), kind="bytes"), Column(name="y", dtype=np.dtype(np.int32))]
    kinds.append(Column(name="sample_weight", dtype=np.dtype(np.float32)))
    found = columns_of(from_tf_dataset(pairs, tmp_path / "set", columns=kinds))
    assert found["raw"].to_list() == [b"a", b"b"]
    assert found["y"].tolist() == [1, 2]
    assert found["sample_weight"].tolist() == [0.5, 1.0]
    with pytest.raises(SourceError, match="infinite"):
        from_tf_dataset(pairs.repeat(), tmp_path / "other")
    sparse = tf.data.Dataset.from_tensors({"s": tf.sparse.from_dense([[1, 0]])})
    with pytest.raises(BadColumnError, match=r"'s' of the tf\.data.Dataset is SparseTensorSpec"):
        from_tf_dataset(sparse, tmp_path / "other")


def test_token_lists_as_keras_gives_them():
    x = np.array([[1, 2, 3], [4], [5, 6]], dtype=object)
    source = labelled_source(x, np.array([0, 1, 1]), name="imdb", class_names=["bad", "good"])
    (rows,) = source.record_batches(1)
    assert rows.batch["x"].to_pylist() == [[4], [5, 6]]
    assert [(column.name, column.kind, column.dtype) for column in source.columns] == [
        ("x", "list", np.int32),
        ("y", "tensor", np.int64),
    ]
    assert source.metadata == {"class_names": {"y": ["bad", "good"]}}


def test_the_rows_of_the_other_split_are_told_unless_one_is_chosen(monkeypatch):
    train, test = ((np.zeros((rows, 2), np.uint8), np.arange(rows)) for rows in (5, 2))
    monkeypatch.setattr("keras.datasets.mnist.load_data", lambda: (train, test))
    (entry,) = keras_source("keras:mnist").account.entries
    assert str(entry) == "test: 2 rows left out: choose it with split= (--split)"
    assert keras_source("keras:mnist", split="train").account.entries == ()
    assert keras_source("keras:mnist", split="test").num_rows == 2


def test_names_and_splits_that_keras_does_not_have():
    with pytest.raises(SourceError, match="no 'imagenet'; there are mnist"):
        keras_source("keras:imagenet")
    with pytest.raises(SourceError, match="no split 'dev'"):
        keras_source("mnist", split="dev")


PROGRAM = """
import keras, numpy as np
from heliostat.data.conversion.convert import convert
(x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
for split, one, labels in (("train", x, y), ("test", x_test, y_test)):
    found = convert("fashion_mnist", split, split=split)
    rows = next(found.batches(len(found), shuffle=False))
    assert rows["x"].dtype == one.dtype and np.array_equal(rows["x"], one), split
    assert rows["y"].dtype == labels.dtype and np.array_equal(rows["y"], labels), split
    print(len(found), found.metadata["class_names"]["y"][9])
"""


@pytest.mark.slow
def test_data_sets_of_keras_as_keras_loads_them(tmp_path):
    """Files of the real format lie where Keras looks for what it has downloaded; a process of its own, because Keras
    reads KERAS_HOME when it is imported."""
    folder = tmp_path / "keras" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 12)):
        images = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = RANDOM.integers(0, 10, count, dtype=np.uint8)
        for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))
    environment = {
        "KERAS_HOME": str(tmp_path / "keras"),
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    assert done.stdout.split("\n")[-3:] == ["30 Ankle boot", "12 Ankle boot", ""], done.stderr


def test_shapes_that_are_known_only_when_they_come_and_differ_are_refused(tf, tmp_path):
    spec = tf.TensorSpec(None, tf.float32)
    pairs = tf.data.Dataset.from_generator(lambda: iter([[1.0], [2.0, 3.0]]), output_signature=spec)
    with pytest.raises(SourceError, match=r"tf\.ensure_shape"):
        from_tf_dataset(pairs, tmp_path / "set")
    known = pairs.map(lambda x: tf.ensure_shape(x, [None]))
    assert columns_of(from_tf_dataset(known, tmp_path / "set"))["x"].to_list() == [[1.0], [2.0, 3.0]]
