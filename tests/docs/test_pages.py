"""Every block of the pages for users runs, in the order of the page, and prints what the page says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.object_store import KEY, SECRET, ObjectStore

from .page import Block, blocks_of, run

ROOT = Path(__file__).parents[2]


def test_blocks_are_found_and_held_to_what_they_print():
    page = "text\n```python\nprint(1)  # 1\n```\n```text\nno\n```\n```bash\ntrue\n```\n"
    assert list(blocks_of(page)) == [Block("python", 3, "print(1)  # 1\n"), Block("bash", 9, "true\n")]
    run(Block("python", 3, "print(1)  # 1\n"), "page")
    with pytest.raises(AssertionError, match=r"page:3: the page says \['2'\], and it printed \['1'\]"):
        run(Block("python", 3, "print(1)  # 2\n"), "page")
    with pytest.raises(subprocess.CalledProcessError):
        run(Block("bash", 9, "false\ntrue\n"), "page")


def run_page(name: str, folder: Path, *replaced: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    program = [sys.executable, str(Path(__file__).parent / "page.py"), str(ROOT / "docs" / name), *replaced]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


@pytest.fixture
def bucket():
    """(a bucket, "SHOWN=REAL" for its URIs on a page)"""
    store = ObjectStore()
    try:
        name = store.new_bucket()
        options = f"endpoint_override=127.0.0.1:{store.port}&scheme=http&region=us-east-1"
        files = pa.fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{store.port}", scheme="http", access_key=KEY, secret_key=SECRET
        )
        yield name, files, lambda path: f"s3://bucket/{path}=s3://{KEY}:{SECRET}@{name}/{path}?{options}"
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.ray
def test_the_page_about_one_machine(tmp_path):
    run_page("one-machine.md", tmp_path)


@pytest.mark.slow
def test_the_page_about_data(tmp_path, bucket):
    from tensorflow.io import TFRecordWriter
    from tensorflow.train import Example, Feature, Features, FloatList, Int64List

    name, files, shown = bucket
    (tmp_path / "measurements.csv").write_text("width,height,label\n1.5,2,0\n2.5,3,1\n3.5,5,0\n")
    (tmp_path / "logs").mkdir()
    for part in range(2):
        lines = [json.dumps({"ids": [row, part], "user": row}) for row in range(5)]
        (tmp_path / "logs" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    numbers = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    with TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        for row in range(20):
            features = {
                "x": Feature(float_list=FloatList(value=[row, row + 0.5])),
                "y": Feature(int64_list=Int64List(value=[row % 2])),
            }
            writer.write(Example(features=Features(feature=features)).SerializeToString())
    table = pa.table({"customer": np.arange(100), "amount": np.arange(100) + 0.5})
    for part in range(2):
        pq.write_table(table.slice(part * 50, 50), f"{name}/warehouse/{part}.parquet", filesystem=files)
    run_page("data.md", tmp_path, shown("warehouse"), shown("digits"))
