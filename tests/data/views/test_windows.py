"""Windows are the slices that numpy would take, in any order, of any columns, through any view."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from heliostat.data import Dataset, Ragged, RowError, ShardError, UnknownColumnError, write_dataset
from heliostat.data.errors import SelectionError
from hypothesis import given, settings
from hypothesis import strategies as st

LENGTHS = [0, 7, 3, 20, 2, 11, 3, 0, 9]
NUMBERS = np.random.default_rng(7)
SERIES = {
    "load": [NUMBERS.normal(size=length).astype(np.float32) for length in LENGTHS],
    "pair": [NUMBERS.integers(0, 9, (length, 2)) for length in LENGTHS],
    "text": [f"plant {number}" for number in range(9)],
    "y": np.arange(9),
    "image": NUMBERS.integers(0, 256, (9, 6, 2, 3), dtype=np.uint8),
}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("series") / "set", SERIES, rows_per_shard=4)


def rows_of(dataset: Dataset, ids=None, columns=None) -> dict:
    with dataset.reader(columns) as reader:
        return reader.gather(np.arange(len(dataset)) if ids is None else np.asarray(ids))


def expected(name: str, length: int, stride: int, lengths: list[int] = LENGTHS) -> list:
    places = [(row, low) for row, end in enumerate(lengths) for low in range(0, end - length + 1, stride)]
    return [(row, SERIES[name][row][low : low + length]) for row, low in places]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(length=st.integers(1, 20), stride=st.integers(1, 25), data=st.data())
def test_windows_are_slices_of_long_rows(series, length, stride, data):
    view = series.windows(["load", "pair"], length, stride=stride)
    cut = expected("load", length, stride)
    assert len(view) == len(cut)
    ids = data.draw(st.lists(st.integers(0, len(cut) - 1), max_size=12))
    rows = rows_of(view, np.array(ids, np.int64))
    assert rows["load"].shape == (len(ids), length)
    for place, number in enumerate(ids):
        row, values = cut[number]
        assert np.array_equal(rows["load"][place], values)
        assert np.array_equal(rows["pair"][place], expected("pair", length, stride)[number][1])
        assert (rows["y"][place], rows["text"].row(place)) == (row, f"plant {row}")
        assert np.array_equal(rows["image"][place], SERIES["image"][row])


def test_tensors_are_cut_along_their_first_axis(series):
    view = series.windows("image", 2, stride=3)
    rows = rows_of(view)
    assert view.schema["image"].shape == (2, 2, 3)
    assert len(view) == 18
    assert np.array_equal(rows["image"][3], SERIES["image"][1, 3:5])
    assert rows["load"].to_list()[3] == SERIES["load"][1].tolist()


def test_without_a_stride_none_overlap(series):
    assert rows_of(series.windows("load", 10), columns=["y"])["y"].tolist() == [3, 3, 5]


def test_windows_lie_above_and_below_other_views(series):
    view = pickle.loads(pickle.dumps(series.select([5, 3]).windows("load", 9, stride=2)))
    cut = [SERIES["load"][row][low : low + 9] for row, lows in ((5, (0, 2)), (3, range(0, 12, 2))) for low in lows]
    assert np.array_equal(rows_of(view)["load"], np.stack(cut))
    changed = series.map(lambda rows: rows["y"] * 2, ["y"], "y").rename({"load": "x"}).windows("x", 9, stride=2)
    assert np.array_equal(rows_of(changed)["x"], np.stack([one for _, one in expected("load", 9, 2)]))
    assert rows_of(changed)["y"].tolist() == [2 * row for row, _ in expected("load", 9, 2)]
    made = series.map(lambda rows: {"load": Ragged(rows["load"].values * 2, rows["load"].row_splits, "list")}, ["load"])
    assert np.array_equal(rows_of(made.windows("load", 9))["load"], rows_of(series.windows("load", 9))["load"] * 2)
    assert rows_of(changed.split(0.5, by="y")[0])["y"].size + rows_of(changed.split(0.5, by="y")[1])["y"].size == 9
    doubled = view.map(lambda rows: rows["load"] * 2, ["load"], "twice")
    batches = list(doubled.batches(3, seed=2))
    assert sum(len(one["y"]) for one in batches) == len(cut)
    assert all(np.array_equal(one["twice"], one["load"] * 2) for one in batches)


BEFORE_IT_IS_CUT = {
    "as it is": lambda long: long,
    "rows": lambda long: long.skip(0),
    "columns": lambda long: long.select_columns(["image", "load"]).rename({"load": "x"}).rename({"x": "load"}),
    "several": lambda long: long.concatenate(long),
    "another column": lambda long: long.map(lambda rows: rows["y"] + 1, ["y"], "z"),
}


@pytest.mark.parametrize("before", BEFORE_IT_IS_CUT)
def test_of_a_long_row_only_the_windows_are_copied(tmp_path, before):
    stored = write_dataset(tmp_path / "set", {"load": [np.arange(1e6)], "image": np.zeros((1, 1000, 1000)), "y": [3]})
    long = BEFORE_IT_IS_CUT[before](stored)
    others = [name for name in long.schema if name not in ("load", "image")]
    view = long.windows(["load"], 10).select_columns(["load", *others])
    pictures = long.windows("image", 2).select_columns(["image", *others])
    with view.reader() as reader, pictures.reader() as other:
        reader.gather(np.arange(1)), other.gather(np.arange(1))
        tracemalloc.start()
        reader.gather(np.arange(100)), other.gather(np.arange(3))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000


@settings(deadline=None, derandomize=True, max_examples=20)
@given(length=st.integers(1, 4), data=st.data())
def test_windows_of_several_datasets_are_those_of_each(series, length, data):
    other = series.rename({"load": "x", "y": "load"}).rename({"load": "y", "x": "load"}).select([5, 1, 3])
    view = series.concatenate(other).windows(["load", "pair"], length, stride=2)
    parts = [one.windows(["load", "pair"], length, stride=2) for one in (series, other)]
    assert len(view) == sum(map(len, parts))
    ids = np.array(data.draw(st.lists(st.integers(0, len(view) - 1), max_size=12)), np.int64)
    out = None
    if data.draw(st.booleans()):
        columns = [column for column in view.schema.values() if not column.is_variable]
        out = {column.name: np.empty((len(ids), *column.shape), column.dtype) for column in columns}
    whole = [rows_of(part) for part in parts]
    with view.reader() as reader:
        rows = reader.gather(ids, out)
    for name in ("load", "pair", "y", "image"):
        assert np.array_equal(rows[name], np.concatenate([one[name] for one in whole])[ids])
        assert out is None or rows[name] is out[name]
    assert rows["text"].to_list() == [[*whole[0]["text"].to_list(), *whole[1]["text"].to_list()][one] for one in ids]


def test_a_damaged_row_is_named(series):
    with (
        series.reader(["load"]) as reader,
        pytest.raises(ShardError, match=r"row 1 of record batch 0 .*'load' lie out"),
    ):
        reader.gather_parts(np.array([1]), np.array([5]), 3, ["load"])


def test_given_arrays_are_filled(series):
    view = series.windows("load", 3).select_columns(["load", "y"])
    with view.reader() as reader:
        out = {"load": np.empty((2, 3), np.float32), "y": np.empty(2, np.int64)}
        found = reader.gather(np.array([4, 0]), out)
        assert found["load"] is out["load"]
        assert np.array_equal(out["load"], rows_of(view, [4, 0])["load"])
        assert out["y"].tolist() == rows_of(view, [4, 0])["y"].tolist()
        with pytest.raises(RowError, match="rows 0 to"):
            reader.gather(np.array([len(view)]))


def test_statistics_bound_and_fingerprints_tell_apart(series):
    view = series.windows("load", 3)
    assert view.statistics["load"].max == series.statistics["load"].max
    others = [series.windows("load", 2), series.windows("load", 3, stride=1), series.windows(["load", "pair"], 3)]
    assert len({one.fingerprint for one in [view, series, *others]}) == 5
    assert view.name == f"{series.name}.windows(load, 3, stride=3)"


def test_what_cannot_be_cut_is_refused(series):
    for column in ("text", "y"):
        with pytest.raises(SelectionError, match=f"{column}' are .*windows are cut of lists, and of tensors"):
            series.windows(column, 2)
    with pytest.raises(SelectionError, match="row 0 has 0 elements in column 'load' and 6 in 'image'"):
        series.windows(["load", "image"], 2)
    with pytest.raises(SelectionError, match="no row of 9 has 21 elements"):
        series.windows("load", 21)
    with pytest.raises(UnknownColumnError):
        series.windows("z", 2)
    random = series.map(lambda rows, seeds: {"z": seeds}, ["y"], random=True)
    with pytest.raises(SelectionError, match="differ from pass to pass, and so may their lengths"):
        random.windows("load", 2)
    assert len(random.windows("z", 2)) == 9
