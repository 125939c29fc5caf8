"""Records, and a bucket with a warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from tests.data.object_store import KEY, SECRET, ObjectStore


@contextmanager
def prepare(folder: Path) -> Iterator[dict[str, str]]:
    write_records(folder / "train.tfrecord")
    with closing(ObjectStore()) as store:
        bucket = store.new_bucket()
        write_warehouse(store, bucket)
        upload = "heliostat upload digits"
        yield {
            f"{upload} s3://bucket/digits": f"{upload} '{store.uri(f'{bucket}/digits')}'",  # its & is one of bash's
            "s3://bucket/warehouse": store.uri(f"{bucket}/warehouse"),
        }


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
