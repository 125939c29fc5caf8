"""A file that is cut short while it is mapped is an error of ours, not the end of the process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from heliostat.data import ShardError, open_dataset, write_dataset
from heliostat.data.foreign.files import ArrowFile, guarded

# Reads a batch, lets the file be cut, and reads on. In a process of its own: what is tested for is that it lives.
_PROGRAM = """
import sys
from heliostat.data import ShardError, open_dataset
dataset = open_dataset(sys.argv[1])
if sys.argv[2] == "tf":
    import tensorflow as tf
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # nothing may be copied while the file is cut
    batches = iter(dataset.tf(64, shuffle=False, prefetch_bytes=0).with_options(options))
else:
    batches = dataset.batches(64, shuffle=False)
next(batches)
print("read", flush=True)
sys.stdin.readline()
num_rows = 0
try:
    for batch in batches:
        num_rows += len(batch["id"])
    print("read on:", num_rows, "rows", flush=True)
except Exception as error:
    print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
"""


def _run(path, how, cut) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "read\n"
        cut()
        found, _ = process.communicate("\n", timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, found


# Files of other programs are read once, into the cache: what is cut afterwards is not missed.
READ_ON = f"read on: {20_000 - 64} rows\n"


@pytest.fixture(params=["arrow", "plain"])
def path(request, tmp_path):
    ids = np.arange(20_000)
    columns = {"id": ids, "x": np.repeat(ids, 100).reshape(-1, 100), "text": [f"row {one}" for one in range(20_000)]}
    write_dataset(tmp_path / request.param, columns, rows_per_shard=10_000)
    if request.param == "plain":
        (tmp_path / "plain" / "manifest.json").unlink()
    return tmp_path / request.param


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_cut_while_it_is_read_is_named(path, which):
    name = open_dataset(path).shards[which].file
    # The rows that come next are beyond the new end.
    status, found = _run(path, "batches", lambda: (path / name).open("r+b").truncate(8192))
    assert status == 0
    if found != READ_ON or path.name != "plain":
        assert found.startswith("ShardError ")
        assert name in found
        assert path.name == "plain" or "8192 bytes" in found


@pytest.mark.engine
@pytest.mark.slow
def test_so_it_is_through_tf_data(path):
    name = open_dataset(path).shards[0].file
    status, found = _run(path, "tf", lambda: (path / name).open("r+b").truncate(8192))
    assert status == 0
    if found != READ_ON or path.name != "plain":
        assert "ShardError" in found
        assert name in found


def test_what_is_mapped_stays_as_it_was_when_its_file_is_deleted(path):
    dataset = open_dataset(path)
    name = dataset.shards[0].file
    batches = dataset.batches(64, shuffle=False)
    next(batches)
    (path / name).unlink()
    assert next(batches)["id"].tolist() == list(range(64, 128))
    with pytest.raises(ShardError, match=name):
        list(dataset.batches(64, shuffle=False))


def test_an_arrow_file_of_others_is_cut_while_a_record_batch_of_it_is_decoded(tmp_path):
    path = tmp_path / "rows.arrow"
    batch = pa.record_batch({"id": np.arange(100_000)})
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)
        file.write_batch(batch)
    opened = ArrowFile(path, path.name)
    assert opened.chunk_rows == (100_000, 100_000)
    rows = guarded(opened, 0, ["id"])
    first = next(rows)
    with path.open("r+b") as file:
        file.truncate(8192)
    assert pa.concat_arrays([first["id"], *(each["id"] for each in rows)]).equals(batch["id"])
    with pytest.raises(ShardError, match=r"rows\.arrow"):
        list(guarded(opened, 1, ["id"]))
    opened.close()
