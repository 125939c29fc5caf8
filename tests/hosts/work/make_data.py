"""Writes the same rows in every form that a run can read, below a folder; `larger` has more rows behind them."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from heliostat.data import write_dataset

ROWS, WIDTH, PARTS = 320, 8, 2


def feature(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def main(folder):
    numbers = np.random.default_rng(5)
    x = numbers.normal(size=(2 * ROWS, WIDTH)).astype("float32")
    y = np.sin(x.sum(axis=1)).astype("float32")
    write_dataset(folder / "larger", {"x": x, "y": y})
    valid = {"x": x[ROWS : ROWS + 64], "y": y[ROWS : ROWS + 64]}
    write_dataset(folder / "valid", valid)
    x, y = x[:ROWS], y[:ROWS]
    write_dataset(folder / "stored", {"x": x, "y": y})
    np.savez(folder / "arrays.npz", x=x, y=y)
    for name in ("parquet", "tfrecord"):
        (folder / name).mkdir()
    for part, rows in enumerate(np.split(np.arange(ROWS), PARTS)):
        column = pa.FixedSizeListArray.from_arrays(pa.array(x[rows].ravel()), WIDTH)
        pq.write_table(pa.table({"x": column, "y": y[rows]}), folder / "parquet" / f"part-{part}.parquet")
        with tf.io.TFRecordWriter(str(folder / "tfrecord" / f"part-{part}.tfrecord")) as file:
            for row in rows:
                features = {"x": feature(x[row]), "y": feature([y[row]])}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                file.write(example.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
