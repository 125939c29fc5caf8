"""Measurements, logs, photos and records, and a bucket with a warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from PIL import Image

from tests.data.object_store import KEY, SECRET, ObjectStore


@contextmanager
def prepare(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "measurements.csv").write_text("width,height,label\n1.5,2,0\n2.5,3,1\n3.5,5,0\n")
    (folder / "logs").mkdir()
    for part in range(2):
        lines = [json.dumps({"ids": [row, part], "user": row}) for row in range(5)]
        (folder / "logs" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    write_photos(folder / "photos")
    write_records(folder / "train.tfrecord")
    with closing(ObjectStore()) as store:
        bucket = store.new_bucket()
        write_warehouse(store, bucket)
        yield {f"s3://bucket/{path}": store.uri(f"{bucket}/{path}") for path in ("warehouse", "digits")}


def write_photos(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    for number in range(12):
        of_class = folder / ("cat" if number % 2 else "dog")
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(of_class / f"{number}.jpg")


def write_records(path: Path) -> None:
    from tensorflow.io import TFRecordWriter
    from tensorflow.train import Example, Feature, Features, FloatList, Int64List

    with TFRecordWriter(str(path)) as writer:
        for row in range(20):
            features = {
                "x": Feature(float_list=FloatList(value=[row, row + 0.5])),
                "y": Feature(int64_list=Int64List(value=[row % 2])),
            }
            writer.write(Example(features=Features(feature=features)).SerializeToString())


def write_warehouse(store: ObjectStore, bucket: str) -> None:
    files = pa.fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{store.port}", scheme="http", access_key=KEY, secret_key=SECRET
    )
    table = pa.table({"customer": np.arange(100), "amount": np.arange(100) + 0.5})
    for part in range(2):
        pq.write_table(table.slice(part * 50, 50), f"{bucket}/warehouse/{part}.parquet", filesystem=files)
