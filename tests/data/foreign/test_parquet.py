"""Datasets in Parquet shards: what is written comes back, decoded once as long as it fits."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from heliostat.data import ShardError, open_dataset, write_dataset
from heliostat.data.format.columns import DTYPE_NAMES
from heliostat.data.format.ragged import Ragged

from ..old_parquet import write_parquet

NUM_ROWS = 3000


@pytest.fixture(scope="module")
def columns():
    numbers = np.random.default_rng(0)
    return {
        "x": numbers.integers(0, 256, (NUM_ROWS, 3, 5), dtype=np.uint8),
        "flag": numbers.random(NUM_ROWS) < 0.5,
        "half": numbers.normal(size=NUM_ROWS).astype(np.float16),
        "tokens": [np.arange(number % 11, dtype=np.int32) for number in range(NUM_ROWS)],
        "text": [f"row {number}" * (number % 3) for number in range(NUM_ROWS)],
        "image": [bytes([number % 256]) * (number % 5) for number in range(NUM_ROWS)],
        "y": np.arange(NUM_ROWS),
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, columns):
    path = tmp_path_factory.mktemp("parquet") / "set"
    write_parquet(path, columns, rows_per_shard=1100)
    return open_dataset(path)


def assert_rows(found, columns, ids) -> None:
    for name, values in columns.items():
        part = found[name]
        if isinstance(part, Ragged):
            expected = [values[row].tolist() if name == "tokens" else values[row] for row in ids]
            assert part.to_list() == expected
        else:
            assert part.dtype == values.dtype
            assert np.array_equal(part, values[ids])


def many_groups(path, columns):
    """A dataset with row groups of 64 rows."""
    padding = {"padding": np.zeros((len(columns["y"]), 1 << 14), np.uint8)}
    return write_parquet(path, {**columns, **padding}, rows_per_shard=500)


def test_rows_come_in_the_order_asked(dataset, columns):
    numbers = np.random.default_rng(1)
    with dataset.reader() as reader:
        for ids in (np.arange(NUM_ROWS), numbers.permutation(NUM_ROWS)[:500], np.array([5, 5, 2999, 0]), np.arange(0)):
            found = reader.gather(ids)
            assert_rows(found, columns, ids)
            for values in found.values():
                assert (values.values if isinstance(values, Ragged) else values).ctypes.data % 64 == 0


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_every_dtype_comes_back(tmp_path, name, shape):
    bits = np.random.default_rng(1).integers(0, 256, (23, *shape, np.dtype(name).itemsize), dtype=np.uint8)
    values = (bits[..., 0] & 1).astype(bool) if name == "bool" else bits.view(name)[..., 0]
    rows = Ragged(np.concatenate([values, values]), np.arange(0, 47, 2), "list")
    dataset = write_parquet(tmp_path / "set", {"x": values, "l": rows}, rows_per_shard=9)
    with open_dataset(dataset.path).reader() as reader:
        found = reader.gather(np.arange(23))
    assert found["x"].dtype == values.dtype
    assert found["x"].tobytes() == values.tobytes()
    assert found["l"].values.dtype == values.dtype
    assert found["l"].values.tobytes() == rows.values.tobytes()


def test_given_arrays_are_filled_and_columns_chosen(dataset, columns):
    out = {"y": np.zeros(3, np.int64)}
    with dataset.reader(["text", "y"]) as reader:
        found = reader.gather(np.array([7, 2000, 8]), out=out)
    assert list(found) == ["text", "y"]
    assert out["y"].tolist() == [7, 2000, 8]
    assert found["text"].to_list() == [columns["text"][row] for row in (7, 2000, 8)]


def test_other_programs_read_the_shards(dataset, columns):
    table = pq.read_table(dataset.path / dataset.shards[0].file)
    assert table.column("text").to_pylist() == columns["text"][:1100]
    assert table.column("y").to_pylist() == list(range(1100))
    assert table.column("tokens").to_pylist() == [row.tolist() for row in columns["tokens"][:1100]]


def test_row_groups_are_small(tmp_path, columns):
    dataset = many_groups(tmp_path / "set", columns)
    file = pq.ParquetFile(dataset.path / dataset.shards[0].file)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [63] * 7 + [59]


def test_more_files_than_stay_open_are_read(tmp_path):
    dataset = write_parquet(tmp_path / "set", {"x": np.arange(200)}, rows_per_shard=2)
    with dataset.reader() as reader:
        ids = np.random.default_rng(0).permutation(200)
        assert reader.gather(ids)["x"].tolist() == ids.tolist()


def test_a_closed_reader_reads_no_more(dataset):
    reader = dataset.reader()
    reader.close()
    with pytest.raises(ValueError, match="is closed"):
        reader.gather(np.arange(3))


def test_both_formats_hold_the_same_rows_and_statistics(tmp_path, dataset, columns):
    arrow = write_dataset(tmp_path / "set", columns)
    assert repr(arrow.statistics) == repr(dataset.statistics)
    assert arrow.schema == dataset.schema
    assert arrow.fingerprint != dataset.fingerprint


def test_a_parquet_dataset_pickles(dataset, columns):
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    with copy.reader() as reader:
        assert_rows(reader.gather(np.arange(10)), columns, np.arange(10))


def damage_page(path, group, column="y") -> None:
    """Flip a bit in the middle of the data of one column of one row group."""
    metadata = pq.ParquetFile(path).metadata.row_group(group)
    chunk = next(
        metadata.column(place)
        for place in range(metadata.num_columns)
        if metadata.column(place).path_in_schema == column
    )
    with open(path, "r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size - 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


def test_a_flipped_bit_is_found_while_reading(tmp_path, columns):
    path = many_groups(tmp_path / "set", {"y": columns["y"]}).path
    damage_page(path / "shard-00001.parquet", 2)
    dataset = open_dataset(path)
    with dataset.reader() as reader:
        assert reader.gather(np.array([0, 500 + 63 * 3]))["y"].tolist() == [0, 689]
        with pytest.raises(
            ShardError, match=r"shard-00001\.parquet .* row group 2 \(rows 126 to 188 of the file\).*CRC"
        ) as caught:
            reader.gather(np.array([0, 500 + 63 * 2]))
    assert caught.value.path == str(path / "shard-00001.parquet")


def test_damaged_row_groups_can_be_left_out(tmp_path, columns):
    path = many_groups(tmp_path / "set", {"y": columns["y"]}).path
    damage_page(path / "shard-00001.parquet", 2)
    damage_page(path / "shard-00004.parquet", 7)
    whole = open_dataset(path)
    with pytest.raises(ShardError, match="row group 2"):
        whole.verify()
    dataset = open_dataset(path, on_corrupt="skip")
    assert dataset.skipped == {"shard-00001.parquet": 63, "shard-00004.parquet": 59}
    assert len(dataset) == 3000 - 63 - 59
    assert dataset.fingerprint != whole.fingerprint
    kept = [row for row in range(3000) if not (626 <= row < 689 or 2441 <= row < 2500)]
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.fingerprint, copy.skipped) == (dataset.fingerprint, dataset.skipped)
    for one in (dataset, copy):
        with one.reader(["y"]) as reader:
            assert reader.gather(np.arange(len(one)))["y"].tolist() == kept
