"""Heliostat and `tf.data` as sources of the reading benchmarks: each prepares its files and makes passes over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from reader_data import (  # type: ignore[import-not-found]
    BATCH_SIZE,
    DECODED_SIDE,
    ROW_BYTES,
    TOKENS_PADDED,
    Kind,
    Rows,
)

Pass = Callable[[int], Iterator[int]]
"""Makes one pass of an epoch and yields the rows of every batch."""

NUM_FILES = 4


class Source(ABC):
    """One way to read. `in_memory`: it holds all rows before the first pass, so there is nothing to read cold."""

    in_memory = False
    folder_name = ""
    """Sources with the same folder share the files."""

    @abstractmethod
    def prepare(self, rows: Rows, folder: Path) -> None:
        """Write the rows as this source wants them."""

    @abstractmethod
    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass: ...


class Heliostat(Source):
    """`dataset.batches`: numpy arrays, new ones for each batch."""

    folder_name = "heliostat"

    def prepare(self, rows: Rows, folder: Path) -> None:
        from heliostat.data import Ragged, write_dataset

        x: Any = rows.values
        if rows.kind != "fixed":
            x = Ragged(rows.values, rows.splits, "list" if rows.kind == "tokens" else "bytes")
        write_dataset(folder, {"x": x, "y": rows.y})

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        view = self.view(kind, folder)
        return lambda epoch: (len(batch["y"]) for batch in view.batches(BATCH_SIZE, epoch=epoch))

    def view(self, kind: Kind, folder: Path) -> Any:
        from heliostat.data import open_dataset

        dataset = open_dataset(folder)
        if kind == "tokens":
            return dataset.pad("x", TOKENS_PADDED)
        return dataset.decode("x", (DECODED_SIDE, DECODED_SIDE), channels=1) if kind == "images" else dataset


class HeliostatTfData(Heliostat):
    """`dataset.tf`; one iteration is one pass, the next goes on with the next epoch."""

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        return tf_pass(self.view(kind, folder).tf(BATCH_SIZE))


class HeliostatTwelveLines(Heliostat):
    """What `dataset.tf` must not be slower than: numbers of steps, mapped to the batches that a reader gathers."""

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import tensorflow as tf
        from heliostat.data.order.order import RowOrder
        from heliostat.data.order.plan import BatchPlan, row_ids

        view = self.view(kind, folder)
        reader = exits.enter_context(view.reader())
        plan = BatchPlan(num_rows=len(view), global_batch_size=BATCH_SIZE, num_microbatches=1)
        columns = view.schema

        def run(epoch: int) -> Iterator[int]:
            order = RowOrder(num_rows=len(view), epoch=epoch)

            def gathered(step: tf.Tensor) -> list[np.ndarray]:
                batch = reader.gather(row_ids(order, plan, int(step), 0))
                return [batch[name] for name in columns]

            types = [column.dtype for column in columns.values()]
            steps = tf.data.Dataset.range(plan.num_steps)
            batches = steps.map(lambda step: tf.py_function(gathered, [step], types)).prefetch(4)
            return (int(batch[0].shape[0]) for batch in batches)

        return run


class TfDataMemory(Source):
    """`tf.data` over tensors, a shuffle buffer of all rows."""

    in_memory = True
    folder_name = "arrays"

    def prepare(self, rows: Rows, folder: Path) -> None:
        rows.save(folder)

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import tensorflow as tf

        rows = Rows.load(kind, folder)
        x = _tensor(rows)
        shuffled = tf.data.Dataset.from_tensor_slices({"x": x, "y": rows.y}).shuffle(len(rows), seed=0)
        if kind == "tokens":
            cut = shuffled.map(lambda row: {"x": row["x"][:TOKENS_PADDED], "y": row["y"]}, tf.data.AUTOTUNE)
            # Quicker than ragged batches that are padded as a whole (measured).
            batches = cut.padded_batch(BATCH_SIZE, padded_shapes={"x": [TOKENS_PADDED], "y": []})
        else:
            rows_of_kind = shuffled.map(_decoded, tf.data.AUTOTUNE) if kind == "images" else shuffled
            batches = rows_of_kind.batch(BATCH_SIZE)
        return tf_pass(batches.prefetch(tf.data.AUTOTUNE))


class TfDataIndices(TfDataMemory):
    """`tf.data` over tensors, shuffling row numbers only and gathering each batch: the quickest that we know."""

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import tensorflow as tf

        rows = Rows.load(kind, folder)
        x, y = _tensor(rows), tf.constant(rows.y)
        ids = tf.data.Dataset.range(len(rows)).shuffle(len(rows), seed=0)

        def gathered(batch: Any) -> dict[str, Any]:
            return {"x": tf.gather(x, batch), "y": tf.gather(y, batch)}

        if kind == "images":
            batches = ids.map(lambda row: _decoded(gathered(row)), tf.data.AUTOTUNE).batch(BATCH_SIZE)
        else:
            change = _padded if kind == "tokens" else dict
            batches = ids.batch(BATCH_SIZE).map(lambda batch: change(gathered(batch)), tf.data.AUTOTUNE)
        return tf_pass(batches.prefetch(tf.data.AUTOTUNE))


class TfRecord(Source):
    """TFRecord files of `tf.train.Example`, a shuffle buffer of all (encoded) rows, parallel map."""

    folder_name = "tfrecord"

    def prepare(self, rows: Rows, folder: Path) -> None:
        import tensorflow as tf

        folder.mkdir(parents=True)
        for number, part in enumerate(np.array_split(np.arange(len(rows)), NUM_FILES)):
            with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
                for row in part.tolist():
                    writer.write(_example(tf, rows, row))

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import tensorflow as tf

        tune = tf.data.AUTOTUNE
        files = [str(path) for path in sorted(folder.glob("*.tfrecord"))]
        records = tf.data.TFRecordDataset(files, num_parallel_reads=tune).shuffle(_count(folder), seed=0)
        if kind == "images":
            features = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}
            decoded = records.map(lambda record: _decoded(tf.io.parse_single_example(record, features)), tune)
            return tf_pass(decoded.batch(BATCH_SIZE).prefetch(tune))
        x = (
            tf.io.FixedLenFeature([], tf.string)
            if kind == "fixed"
            else tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
        )

        def parsed(records: Any) -> dict[str, Any]:
            batch = tf.io.parse_example(records, {"x": x, "y": tf.io.FixedLenFeature([], tf.int64)})
            if kind == "tokens":
                return _padded({"x": tf.cast(batch["x"], tf.int32), "y": batch["y"]})
            return {"x": tf.ensure_shape(tf.io.decode_raw(batch["x"], tf.uint8), [None, ROW_BYTES]), "y": batch["y"]}

        return tf_pass(records.batch(BATCH_SIZE).map(parsed, tune).prefetch(tune))


def tf_pass(batches: Any) -> Pass:
    """Every iteration over a `tf.data.Dataset` is a pass."""
    return lambda _epoch: (int(batch["y"].shape[0]) for batch in batches)


def _tensor(rows: Rows) -> Any:
    import tensorflow as tf

    if rows.kind == "fixed":
        return tf.constant(rows.values)
    if rows.kind == "tokens":
        return tf.RaggedTensor.from_row_splits(rows.values, rows.splits, validate=False)
    return tf.constant([rows.row(number).tobytes() for number in range(len(rows))])


def _padded(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": batch["x"].to_tensor(shape=[None, TOKENS_PADDED]), "y": batch["y"]}


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    image = tf.io.decode_jpeg(row["x"], channels=1, dct_method="INTEGER_ACCURATE")
    scaled = tf.image.resize(image, (DECODED_SIDE, DECODED_SIDE), method="bilinear", antialias=True)
    return {"x": tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8), "y": row["y"]}


def _example(tf: Any, rows: Rows, number: int) -> bytes:
    values = rows.row(number)
    x = (
        tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        if rows.kind == "tokens"
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[values.tobytes()]))
    )
    y = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(rows.y[number])]))
    return bytes(tf.train.Example(features=tf.train.Features(feature={"x": x, "y": y})).SerializeToString())


def _count(folder: Path) -> int:
    # The shuffle buffer wants a number; the arrays beside the files have it.
    return len(np.load(folder.parent / "arrays" / "y.npy", mmap_mode="r"))
