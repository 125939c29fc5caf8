"""Interrupted conversions of TFRecord, tf.data, Hugging Face, Keras and IDX sources go on to the undisturbed result."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from heliostat.data import DatasetExistsError, SourceError
from heliostat.data.conversion.convert import convert, write_source
from heliostat.data.conversion.from_keras import labelled_source
from heliostat.data.conversion.from_objects import from_generator, from_tf_dataset
from heliostat.data.stored import StoredDataset
from PIL import Image

pytestmark = pytest.mark.engine

NUM_ROWS = 2000
# A few hundred rows at once, so that a source comes in many pieces.
OPTIONS = {"rows_per_shard": 100, "piece_bytes": 4 << 10}
TOKENS = [list(range(row % 13)) for row in range(NUM_ROWS)]
Write = Callable[..., StoredDataset]


def write_tfrecords(path: Path, compression: str = "") -> None:
    path.mkdir()
    for part in range(2):
        with tf.io.TFRecordWriter(str(path / f"{part}.tfrecord{'.gz' if compression else ''}"), compression) as file:
            for row in range(part * 1100, min(part * 1100 + 1100, NUM_ROWS)):
                features = {
                    "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[row])),
                    "tokens": tf.train.Feature(int64_list=tf.train.Int64List(value=TOKENS[row])),
                    "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"row {row}".encode()])),
                }
                file.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def write_hugging_face(path: Path) -> None:
    library = pytest.importorskip("datasets")
    table = pa.table({"id": np.arange(NUM_ROWS), "tokens": pa.array(TOKENS, pa.list_(pa.int32()))})
    library.Dataset(table).save_to_disk(path, num_shards=2)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(path: Path, ending: str = "", prefix: str = "train", num_rows: int = NUM_ROWS) -> None:
    path.mkdir(parents=True, exist_ok=True)
    images = np.arange(num_rows * 64, dtype=np.uint32).astype(np.uint8).reshape(num_rows, 8, 8)
    labels = (np.arange(num_rows) % 10).astype(np.uint8)
    for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        (path / f"{name}{ending}").write_bytes(gzip.compress(idx(array)) if ending else idx(array))


def write_images(path: Path) -> None:
    for number in range(NUM_ROWS):
        place = path / f"class {number % 3}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1 + number % 50, 8), number % 256).save(place)


def elements(batched: bool) -> Any:
    rows = tf.data.Dataset.range(NUM_ROWS).map(lambda row: {"id": row, "tokens": tf.range(row % 13)})
    return rows.ragged_batch(90) if batched else rows


def tokens_of_keras(path: Path, **options: Any) -> StoredDataset:
    lists = np.empty(NUM_ROWS, object)
    lists[:] = TOKENS
    source = labelled_source(lists, np.arange(NUM_ROWS), name="keras:imdb/train")
    source.piece_bytes = options.pop("piece_bytes")
    resume, on_progress = options.pop("resume", False), options.pop("on_progress", None)
    return write_source(source, path, options, resume=resume, on_progress=on_progress)


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Write]]] = {
    "TFRecord": (write_tfrecords, lambda source: lambda path, **more: convert(source, path, **more)),
    "packed TFRecord": (
        lambda path: write_tfrecords(path, "GZIP"),
        lambda source: lambda path, **more: convert(source, path, **more),
    ),
    "Hugging Face": (write_hugging_face, lambda source: lambda path, **more: convert(source, path, **more)),
    "images": (write_images, lambda source: lambda path, **more: convert(source, path, **more)),
    "IDX": (write_idx, lambda source: lambda path, **more: convert(source, path, **more)),
    "packed IDX": (
        lambda path: write_idx(path, ".gz"),
        lambda source: lambda path, **more: convert(source, path, **more),
    ),
    "tf.data": (
        lambda path: None,
        lambda source: lambda path, **more: from_tf_dataset(elements(False), path, **more),
    ),
    "batched tf.data": (
        lambda path: None,
        lambda source: lambda path, **more: from_tf_dataset(elements(True), path, batched=True, **more),
    ),
    "Keras tokens": (lambda path: None, lambda source: tokens_of_keras),
}


def manifest_of(dataset: StoredDataset) -> bytes:
    return (dataset.path / "manifest.json").read_bytes()


class Stop(BaseException):
    """As a KeyboardInterrupt, but nobody else's."""


@pytest.mark.parametrize("name", WRITERS)
def test_an_interrupted_conversion_goes_on_to_the_same_result(tmp_path, name):
    prepare, make = WRITERS[name]
    prepare(tmp_path / "source")
    write, whole = make(tmp_path / "source"), []
    expected = write(tmp_path / "undisturbed", **OPTIONS, on_progress=lambda now: whole.append(now.num_rows))
    assert len(expected) == whole[-1] == NUM_ROWS
    assert len(whole) > 4

    def stop(now):
        if now.num_rows >= NUM_ROWS // 2:
            raise Stop

    with pytest.raises(Stop):
        write(tmp_path / "set", **OPTIONS, on_progress=stop)
    assert not (tmp_path / "set").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".set.writing").glob("shard-*")}
    assert len(kept) >= 8
    rows: list[int] = []
    again = write(tmp_path / "set", **OPTIONS, resume=True, on_progress=lambda now: rows.append(now.num_rows))
    assert manifest_of(again) == manifest_of(expected)
    again.verify()
    assert rows[-1] == NUM_ROWS
    # What was complete was not written again.
    first = [shard.file for shard in again.shards][:8]
    assert [(again.path / name).stat().st_mtime_ns for name in first] == [kept[name] for name in first]
    assert next(row for row in rows if row) > 700  # 0 is told while a source is looked through


@pytest.mark.parametrize("name", ["TFRecord", "Hugging Face", "IDX"])
def test_a_source_that_changed_is_refused(tmp_path, name):
    prepare, make = WRITERS[name]
    prepare(tmp_path / "source")
    write = make(tmp_path / "source")

    def stop(now):
        if now.num_rows >= 500:
            raise Stop

    with pytest.raises(Stop):
        write(tmp_path / "set", **OPTIONS, on_progress=stop)
    file = max(path for path in (tmp_path / "source").iterdir() if path.suffix != ".json")
    os.utime(file, ns=(1, 1))
    with pytest.raises(DatasetExistsError, match=r"begun with other options \(metadata\).*resume=False"):
        write(tmp_path / "set", **OPTIONS, resume=True)
    assert len(write(tmp_path / "set", **OPTIONS)) == NUM_ROWS


def test_a_source_that_has_fewer_rows_the_second_time_is_refused(tmp_path):
    def stop(now):
        if now.num_rows >= 500:
            raise Stop

    batches = [{"id": np.arange(low, low + 100)} for low in range(0, NUM_ROWS, 100)]
    rows = [{"id": row} for row in range(NUM_ROWS)]
    writers = {
        "tf": lambda part, **more: from_tf_dataset(elements(False).take(300 if part else NUM_ROWS), **more),
        "batches": lambda part, **more: from_generator(batches[:3] if part else batches, batched=True, **more),
        "rows": lambda part, **more: from_generator(rows[:300] if part else rows, **more),
    }
    for name, write in writers.items():
        with pytest.raises(Stop):
            write(False, path=tmp_path / name, **OPTIONS, on_progress=stop)
        with pytest.raises(SourceError, match=r"has 300 rows now; \d+ of it were written before.*resume=False"):
            write(True, path=tmp_path / name, **OPTIONS, resume=True)
        assert not (tmp_path / name).exists()


PROGRAM = """
import os, signal, sys
from heliostat.data.conversion.convert import convert
kill = sys.argv[1] == "kill"
rows = []
def on_progress(now):
    rows.append(now.num_rows)
    if kill and now.num_rows > 1000:
        os.kill(os.getpid(), signal.SIGKILL)
found = convert(
    "keras:fashion_mnist",
    sys.argv[2],
    rows_per_shard=100,
    piece_bytes=4 << 10,
    resume=not kill,
    on_progress=on_progress,
)
print(rows[0], found.fingerprint)
"""


@pytest.mark.slow
def test_a_killed_conversion_of_a_keras_name_goes_on(tmp_path):
    """Files of the real format lie where Keras looks for what it has downloaded."""
    folder = tmp_path / "keras" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        images = np.random.default_rng(0).integers(0, 256, (NUM_ROWS, 28, 28), dtype=np.uint8)
        labels = (np.arange(NUM_ROWS) % 10).astype(np.uint8)
        for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    environment = {
        "KERAS_HOME": str(tmp_path / "keras"),
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }

    def run(how: str, name: str) -> Any:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, how, name],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=120,
        )

    assert run("kill", "set").returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    resumed, whole = run("resume", "set"), run("resume", "undisturbed")
    first, fingerprint = resumed.stdout.split()
    assert int(first) > 1000, resumed.stderr
    assert whole.stdout.split()[1] == fingerprint
    assert int(whole.stdout.split()[0]) < 100
