"""Gathering rows by id, in any order, into new or given arrays."""

from __future__ import annotations

import os

import numpy as np
import pytest
from heliostat.data import Dataset, Ragged, RowError, ShardError, UnknownColumnError, write_dataset
from heliostat.data.format.memory import aligned_empty
from heliostat.data.order.order import RowOrder
from heliostat.data.read.batches import gather_block
from hypothesis import given, settings
from hypothesis import strategies as st

from ..old_parquet import write_parquet


@pytest.fixture(scope="module")
def readers(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("readers")
    sets = [write_dataset(folder / str(rows), arrays, rows_per_shard=rows) for rows in (20_000, 3000, 40)]
    opened = [dataset.reader() for dataset in sets]
    yield opened
    for reader in opened:
        reader.close()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 10_006), max_size=300), st.integers(0, 2))
def test_rows_come_in_the_order_asked(readers, arrays, ids, which):
    found = readers[which].gather(np.array(ids, np.int64))
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values[ids])


@pytest.mark.parametrize("row_bytes", [1000, 110_000, 256 << 10, 300_000])
@pytest.mark.parametrize("rows_per_shard", [7, 40])
def test_large_rows_come_whole(tmp_path, row_bytes, rows_per_shard):
    """Rows are copied in blocks of 256 KiB: many, two, one, or a part of one are a block."""
    values = np.random.default_rng(0).integers(0, 256, (40, row_bytes), dtype=np.uint8)
    ids = np.random.default_rng(1).permutation(40)
    dataset = write_dataset(tmp_path / "set", {"x": values}, rows_per_shard=rows_per_shard)
    with dataset.reader() as reader:
        for asked in (ids, np.sort(ids), ids[:20] % 7):
            assert np.array_equal(reader.gather(asked)["x"], values[asked])


def test_given_arrays_are_filled(readers, arrays):
    ids = np.array([3, 10_006, 3, 0])
    for reader in readers:
        ring = {name: np.zeros((6, *c.shape), c.dtype) for name, c in reader.columns.items()}
        found = reader.gather(ids, out={name: buffer[:4] for name, buffer in ring.items()})
        for name, buffer in ring.items():
            assert found[name].base is buffer
            assert np.array_equal(buffer[:4], arrays[name][ids])
            assert not buffer[4:].any()


def test_new_arrays_are_aligned_and_writeable(readers):
    for count in (0, 1, 3, 257):
        for array in readers[1].gather(np.arange(count)).values():
            assert len(array) == count
            assert array.ctypes.data % 64 == 0
            assert array.flags.writeable
            assert array.flags.c_contiguous


@pytest.mark.parametrize("alignment", [64, 4096])
@pytest.mark.parametrize("shape", [(0, 3), (), (1,), (5, 7)], ids=str)
def test_aligned_arrays_are_ordinary_arrays(shape, alignment):
    for dtype in (bool, np.uint8, np.float16, np.int64):
        array = aligned_empty(shape, dtype, alignment)
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.ctypes.data % alignment == 0
        array.fill(1)
        assert (array == 1).all()


@pytest.mark.parametrize("ids", [[-1], [10_007], [0, 99_999]])
def test_rows_outside_the_dataset_are_refused(readers, ids):
    for reader in readers:
        with pytest.raises(RowError, match="rows 0 to 10006"):
            reader.gather(np.array(ids))


@pytest.mark.parametrize("ids", [np.array([0.0]), np.array([[1, 2]]), np.array([True]), np.array(5)], ids=str)
def test_row_ids_that_are_no_vector_of_integers_are_refused(readers, ids):
    with pytest.raises(RowError, match="vector of integers"):
        readers[0].gather(ids)


def test_arrays_that_do_not_fit_are_refused(readers):
    good = {name: np.zeros((2, *c.shape), c.dtype) for name, c in readers[0].columns.items()}
    read_only = np.zeros(2, np.int64)
    read_only.flags.writeable = False
    bad = {
        "dtype": np.zeros(2, np.int32),
        "shape": np.zeros(3, np.int64),
        "strides": np.zeros(4, np.int64)[::2],
        "read-only": read_only,
    }
    for array in bad.values():
        with pytest.raises(RowError, match=r"column 'y' must be a writeable C-contiguous int64 \(2,\)"):
            readers[0].gather(np.array([0, 1]), out={**good, "y": array})
    del good["y"]
    with pytest.raises(RowError, match="No output array was given for column 'y'"):
        readers[0].gather(np.array([0, 1]), out=good)


def test_only_the_columns_asked_for_are_read(dataset, arrays):
    with dataset.reader(["w", "x"]) as reader:
        found = reader.gather(np.array([5]))
    assert list(found) == ["w", "x"]
    assert np.array_equal(found["w"], arrays["w"][[5]])


@pytest.mark.parametrize("columns", [["nothing"], []])
def test_unknown_columns_are_refused(dataset, columns):
    with pytest.raises(UnknownColumnError, match="it has 'x', 'y', 'flag', 'w'"):
        dataset.reader(columns)


def test_arrays_outlive_their_reader(dataset, arrays):
    with dataset.reader() as reader:
        found = reader.gather(np.arange(100))
    assert np.array_equal(found["x"], arrays["x"][:100])
    with pytest.raises(ValueError, match="closed"):
        reader.gather(np.arange(3))


def test_many_shards_need_no_open_files(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(300)}, rows_per_shard=5)
    before = len(os.listdir("/proc/self/fd"))
    with dataset.reader() as reader:
        reader.gather(np.arange(300))
        assert len(os.listdir("/proc/self/fd")) == before


def test_shards_are_mapped_only_when_needed(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(30)}, rows_per_shard=10)
    os.remove(dataset.path / dataset.shards[2].file)
    with dataset.reader() as reader:
        assert reader.gather(np.array([15, 2]))["x"].tolist() == [15, 2]


@pytest.fixture(scope="module")
def several_shards(tmp_path_factory) -> list[Dataset]:
    """Datasets of one shard, of many, of one record batch per few rows, of Parquet, and views of them."""
    folder, ids = tmp_path_factory.mktemp("several"), np.arange(500)
    columns = {
        "id": ids,
        "x": np.stack([ids, ids * 2, ids * 3], axis=1).astype(np.uint8),
        "text": [f"é {one}" * (one % 4) for one in range(500)],
        "tokens": [np.arange(one % 6, dtype=np.int16) + one for one in range(500)],
    }
    one = write_dataset(folder / "one", columns)
    many = write_dataset(folder / "many", columns, rows_per_shard=9)
    parquet = write_parquet(folder / "parquet", columns, rows_per_shard=60)
    split = many.split(0.7)[0].rename({"x": "y"})
    mapped = parquet.map(lambda rows: {**rows, "x": rows["x"] + 1})
    return [one, many, parquet, split, mapped, one.select_columns(["text", "id"]).take(300)]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data(), st.integers(1, 40))
def test_a_block_of_batches_holds_the_rows_of_each(several_shards, data, batch_size):
    dataset = data.draw(st.sampled_from(several_shards))
    ids = np.array(data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=200)), np.int64)
    with dataset.reader() as reader:
        found, error = gather_block(reader, ids, batch_size)
        wanted = reader.gather(ids)
    assert error is None
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        if isinstance(values, Ragged):
            assert found[name].to_list() == values.to_list()
        else:
            assert np.array_equal(found[name], values)
            assert found[name].ctypes.data % 64 == 0


def test_a_block_ends_before_the_first_batch_that_cannot_be_read(several_shards):
    for dataset in several_shards:
        ids = np.array([0, 1, 2, 3, len(dataset), 0], np.int64)
        with dataset.reader() as reader:
            found, error = gather_block(reader, ids, 2)
            assert all(len(values) == 4 for values in found.values())
            assert isinstance(error, RowError)
            assert f"rows 0 to {len(dataset) - 1}" in str(error)


@pytest.mark.parametrize(("batch_size", "row_bytes"), [(64, 5), (64, 5000), (400, 5000), (37, 5)])
def test_batches_are_whole_aligned_and_each_its_own(tmp_path, batch_size, row_bytes):
    """Small ones are copied together, and so are in one piece of memory."""
    x = np.random.default_rng(0).integers(0, 256, (600, row_bytes), np.uint8)
    lists = [np.arange(one % 5) for one in range(600)]
    dataset = write_dataset(tmp_path / "rows", {"x": x, "y": np.arange(600), "l": lists}, rows_per_shard=250)
    ids = RowOrder(num_rows=600, seed=1).rows(0, 600)
    batches = list(dataset.batches(batch_size, seed=1))
    assert [len(batch["y"]) for batch in batches] == [
        len(ids[low : low + batch_size]) for low in range(0, 600, batch_size)
    ]
    for number, batch in enumerate(batches):
        rows = ids[number * batch_size :][:batch_size]
        assert np.array_equal(batch["x"], x[rows])
        assert batch["y"].tolist() == rows.tolist()
        assert batch["l"].to_list() == [list(range(one % 5)) for one in rows]
        for values in (batch["x"], batch["y"], batch["l"].values):
            assert values.ctypes.data % 64 == 0
            assert values.flags.c_contiguous
            assert values.flags.writeable
            values[:] = 0  # and no other batch changes


def test_a_file_that_was_cut_fails_the_batch_with_its_rows_and_none_before(tmp_path):
    dataset = write_dataset(tmp_path / "rows", {"x": np.arange(4096)}, rows_per_shard=1000)
    assert len(dataset.manifest.shards) > 1
    last = tmp_path / "rows" / dataset.manifest.shards[-1].file
    with dataset.reader() as reader:
        reader.gather(np.array([4095]))  # mapped, and kept by the dataset
        batches = dataset.batches(64, shuffle=False)
        os.truncate(last, last.stat().st_size // 2)
        good = []
        with pytest.raises(ShardError, match=last.name):
            good.extend(batch["x"] for batch in batches)
    rows_before = 4096 - dataset.manifest.shards[-1].num_rows
    assert np.concatenate(good).tolist() == list(range(rows_before // 64 * 64))


def test_a_function_is_called_for_one_batch_at_a_time(several_shards):
    sizes: list[int] = []

    def change(rows):
        sizes.append(len(rows["id"]))
        return {"z": rows["id"]}

    view = several_shards[1].map(change, ["id"]).take(100).rename({"z": "y2"})
    sizes.clear()
    assert [len(batch["y2"]) for batch in view.batches(8)] == sizes == [8] * 12 + [4]
    with view.select_columns(["text"]).reader() as reader:
        assert not reader.computes
