"""What is written comes back: any dtype, shape and memory layout, in any order, through any number of shards."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from heliostat.data import Dataset, PlanError, UnknownColumnError, open_dataset, write_dataset
from heliostat.data.format.columns import DTYPE_NAMES, Column, ColumnStatistics, NanStatistics
from heliostat.data.format.manifest import Manifest, Shard
from heliostat.data.format.ragged import Ragged
from heliostat.data.order.order import RowOrder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from .old_parquet import write_parquet


def stored(dataset: Dataset) -> dict[str, np.ndarray]:
    with dataset.reader() as reader:
        return reader.gather(np.arange(len(dataset)))


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.shape == expected.shape
    # Bytes, so that NaN and -0.0 count.
    assert found.tobytes() == np.ascontiguousarray(expected, found.dtype).tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (2, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_every_dtype_and_shape_comes_back(tmp_path, name, shape):
    size = (23, *shape)
    bits = np.random.default_rng(1).integers(0, 256, (*size, np.dtype(name).itemsize), dtype=np.uint8)
    values = (bits[..., 0] & 1).astype(bool) if name == "bool" else bits.view(name)[..., 0]
    dataset = write_dataset(tmp_path / "set", {"x": values}, rows_per_shard=9)
    assert dataset.schema["x"].dtype == np.dtype(name)
    assert dataset.schema["x"].shape == shape
    assert_same(stored(dataset)["x"], values)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    hnp.arrays(
        dtype=st.one_of(hnp.integer_dtypes(endianness="?"), hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))),
        shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9),
    ),
    st.integers(1, 12),
)
def test_any_array_comes_back(tmp_path_factory, values, rows_per_shard):
    path = tmp_path_factory.mktemp("any") / "set"
    assert_same(stored(write_dataset(path, {"x": values}, rows_per_shard=rows_per_shard))["x"], values)


BASE = np.arange(2 * 50 * 6 * 4, dtype=np.float32).reshape(2 * 50, 6, 4)
LAYOUTS = {
    "fortran": np.asfortranarray(BASE),
    "strided": BASE[::2, 1:5, ::3],
    "reversed": BASE[::-1],
    "transposed": BASE.transpose(1, 2, 0),
    "broadcast": np.broadcast_to(np.float32(3), (40, 2)),
    "big-endian": BASE.astype(">f4"),
    "read-only": np.frombuffer(BASE.tobytes(), np.float32).reshape(BASE.shape),
    "unaligned": np.frombuffer(b"\0" + BASE.tobytes(), np.uint8)[1:].view(np.float32).reshape(BASE.shape),
    "strided bool": (BASE % 2 == 0)[::2, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(tmp_path, layout):
    values = LAYOUTS[layout]
    dataset = write_dataset(tmp_path / "set", {"x": values}, rows_per_shard=17)
    assert_same(stored(dataset)["x"], values)


def test_lists_of_numbers_are_columns_too(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": [[1, 2], [3, 4]], "y": [0.5, 1.5]})
    assert stored(dataset)["x"].tolist() == [[1, 2], [3, 4]]
    assert stored(dataset)["y"].tolist() == [0.5, 1.5]


def test_batches_bring_every_row_once_in_row_order(dataset, arrays):
    order = RowOrder(num_rows=len(dataset), seed=3, epoch=2).rows(0, len(dataset))
    batches = list(dataset.batches(64, seed=3, epoch=2))
    assert [len(batch["x"]) for batch in batches] == [64] * 156 + [23]
    for name, values in arrays.items():
        assert_same(np.concatenate([batch[name] for batch in batches]), values[order])


def test_batches_without_shuffle_come_as_stored(dataset, arrays):
    batches = list(dataset.batches(1000, shuffle=False, columns=["y"]))
    assert [set(batch) for batch in batches] == [{"y"}] * 11
    assert np.array_equal(np.concatenate([batch["y"] for batch in batches]), arrays["y"])


def test_the_order_does_not_depend_on_the_shards(tmp_path, arrays):
    kinds = [write_dataset(tmp_path / str(rows), arrays, rows_per_shard=rows) for rows in (100, 2500)]
    first, second = (np.concatenate([batch["w"] for batch in kind.batches(333, seed=1)]) for kind in kinds)
    assert np.array_equal(first, second)


def test_batches_refuse_bad_arguments_at_once(dataset):
    with pytest.raises(PlanError, match="global_batch_size is 0"):
        dataset.batches(0)
    with pytest.raises(PlanError, match="shuffle is True"):
        dataset.batches(5, shuffle=True)
    with pytest.raises(UnknownColumnError, match="no column 'z'; it has 'x', 'y', 'flag', 'w'"):
        dataset.batches(5, columns=["x", "z"])


def test_an_opened_dataset_is_the_written_one(dataset, arrays):
    opened = open_dataset(str(dataset.path))
    assert len(opened) == len(arrays["x"])
    assert opened.schema == dataset.schema
    assert list(opened.schema) == list(arrays)
    assert opened.fingerprint == dataset.fingerprint
    assert opened.statistics == dataset.statistics
    opened.verify()


def test_statistics_are_those_of_the_columns(dataset, arrays):
    for name, values in arrays.items():
        assert dataset.statistics[name] == ColumnStatistics(min=values.min(), max=values.max())
        assert type(dataset.statistics[name].min) is (float if values.dtype.kind == "f" else int)


def test_statistics_of_extreme_values_survive_the_manifest(tmp_path):
    columns = {
        "big": np.array([0, 2**64 - 1], np.uint64),
        "low": np.array([-(2**63), 2**63 - 1]),
        "inf": np.array([-np.inf, np.inf], np.float16),
        "some nan": np.array([np.nan, 2.5]),
        "all nan": np.array([np.nan, np.nan], np.float32),
    }
    write_dataset(tmp_path / "set", columns, rows_per_shard=1)
    found = open_dataset(tmp_path / "set").statistics
    assert found["big"] == ColumnStatistics(min=0, max=2**64 - 1)
    assert found["low"] == ColumnStatistics(min=-(2**63), max=2**63 - 1)
    assert found["inf"] == ColumnStatistics(min=-np.inf, max=np.inf)
    assert found["some nan"] == ColumnStatistics(min=2.5, max=2.5, nans=NanStatistics(count=1, first_row=0))
    assert np.isnan([found["all nan"].min, found["all nan"].max]).all()


def test_the_fingerprint_tells_datasets_apart(tmp_path):
    values = np.arange(20)
    first = write_dataset(tmp_path / "a", {"x": values})
    again = write_dataset(tmp_path / "b", {"x": values})
    changed = write_dataset(tmp_path / "c", {"x": values[::-1]})
    renamed = write_dataset(tmp_path / "d", {"y": values})
    retyped = write_dataset(tmp_path / "e", {"x": values.view(np.uint64)})
    assert first.fingerprint == again.fingerprint
    assert len({d.fingerprint for d in (first, changed, renamed, retyped)}) == 4


def test_other_arrow_programs_can_read_a_shard(tmp_path, arrays):
    dataset = write_dataset(tmp_path / "set", arrays)
    table = pa.ipc.open_file(dataset.path / dataset.shards[0].file).read_all()
    assert np.array_equal(table.column("y").to_numpy(), arrays["y"])
    assert np.array_equal(table.column("x").combine_chunks().to_numpy_ndarray(), arrays["x"])


def independent_rows(folder) -> tuple[str, dict[str, list]]:
    """Fingerprint and rows as docs/reference/dataset-format.md says, by plain Arrow and JSON."""
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {"columns": manifest["columns"], "shards": [[s["num_rows"], s["xxh3_128"]] for s in manifest["shards"]]}
    text = json.dumps(listed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    rows: dict[str, list] = {column["name"]: [] for column in manifest["columns"]}
    for shard in manifest["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert (len(data), xxhash.xxh3_128_hexdigest(data)) == (shard["num_bytes"], shard["xxh3_128"])
        kind = manifest["shard_format"]
        source = pa.BufferReader(data)
        table = pa.ipc.open_file(source).read_all() if kind == "arrow" else pq.read_table(source)
        assert table.num_rows == shard["num_rows"]
        for column in manifest["columns"]:
            values, shape = table.column(column["name"]).to_pylist(), column["shape"]
            if column.get("kind", "tensor") == "tensor":
                values = np.array(values).astype(column["dtype"]).reshape(-1, *shape).tolist()
            elif column["kind"] == "list":
                values = [np.array(row).astype(column["dtype"]).reshape(-1, *shape).tolist() for row in values]
            rows[column["name"]].extend(values)
    return xxhash.xxh3_128_hexdigest(text.encode()), rows


@pytest.mark.parametrize("shard_format", ["arrow", "parquet"])
def test_the_format_is_as_described(tmp_path, shard_format):
    columns = {
        "größe": np.arange(24, dtype=np.float16).reshape(6, 2, 2),
        "flag": np.arange(6) % 2 == 0,
        "tokens": [[1, 2], [], [3], [4, 5, 6], [], [7]],
        "boxes": [np.arange(4 * number).reshape(number, 4) for number in range(6)],
        "text": ["", "ä", "b", "c", "", "d"],
        "image": [b"\xff", b"", b"\0", b"1", b"2", b"3"],
    }
    boxes = Ragged.from_rows(columns["boxes"], shape=(4,))
    write = write_parquet if shard_format == "parquet" else write_dataset
    path = write(tmp_path / "set", {**columns, "boxes": boxes}, rows_per_shard=4).path
    fingerprint, rows = independent_rows(path)
    assert fingerprint == open_dataset(path).fingerprint
    assert rows == {
        name: [row.tolist() if hasattr(row, "tolist") else row for row in values] for name, values in columns.items()
    }


def test_fingerprints_stay_what_they_were_in_format_version_1():
    columns = (
        Column(name="x", dtype=np.dtype(np.uint8), shape=(28, 28)),
        Column(name="flag", dtype=np.dtype(np.bool_)),
    )
    shards = [
        Shard(file=f"shard-{number:05d}.arrow", num_rows=10 + number, num_bytes=5, xxh3_128=f"{number:032x}")
        for number in range(2)
    ]
    manifest = Manifest(columns=columns, shards=tuple(shards), rows_per_batch=10, statistics={})
    assert manifest.fingerprint == "8cf3e1be7db45932642dfeea9f81caec"


def test_a_dataset_pickles_and_reads_elsewhere(dataset, arrays):
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    assert np.array_equal(next(copy.batches(50, shuffle=False))["y"], arrays["y"][:50])


def test_a_description_counts_rows_and_classes(dataset, arrays):
    description = dataset.describe()
    columns = {column.name: column for column in description.columns}
    values, counts = np.unique(arrays["y"], return_counts=True)
    assert columns["y"].class_counts == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert columns["flag"].class_counts == {0: int((~arrays["flag"]).sum()), 1: int(arrays["flag"].sum())}
    assert columns["x"].class_counts is None
    assert columns["w"].class_counts is None
    assert description.num_bytes == sum(file.stat().st_size for file in dataset.path.glob("*.arrow"))
    text = str(description)
    assert "10,007 rows" in text
    assert "y: int64 scalar, -3 to 6, 10 classes" in text
    assert "x: uint8 3×5, 0 to 255" in text


def times_mapped(path: Path) -> int:
    """How many times this process has the file that is at `path` now in its memory."""
    inode = str(path.stat().st_ino)
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(line.endswith(f" {path}") and line.split()[4] == inode for line in lines)


def test_mapped_shards_are_shared_by_readers_until_their_file_changes(tmp_path):
    ids = np.arange(100)
    dataset = write_dataset(tmp_path / "set", {"x": ids, "text": [str(one) for one in ids]}, rows_per_shard=50)
    paths = [dataset.path / shard.file for shard in dataset.shards]
    unread = pickle.dumps(dataset)
    first, second = dataset.reader(["x"]), dataset.reader(["text", "x"])
    first.gather(ids)
    second.gather(ids)
    assert [times_mapped(path) for path in paths] == [1, 1]
    first.close()
    assert second.gather(ids)["x"].tolist() == ids.tolist()
    assert pickle.dumps(dataset) == unread
    # Another file with the same content: read anew, not from the memory of the old one.
    content = paths[1].read_bytes()
    paths[1].unlink()
    paths[1].write_bytes(content)
    third = pickle.loads(pickle.dumps(dataset)).reader()
    assert third.gather(ids)["x"].tolist() == ids.tolist()
    assert [times_mapped(path) for path in paths] == [2, 1]
    dataset.check()
    fourth = dataset.reader()
    assert fourth.gather(ids)["x"].tolist() == ids.tolist()
    # The first shard is the one that the others read, the second is not.
    assert [times_mapped(path) for path in paths] == [2, 2]
