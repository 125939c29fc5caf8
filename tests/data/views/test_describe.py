"""Summaries say what is there; the figure of a shuffle is what it claims to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from heliostat.data import Dataset, PlanError, UnknownColumnError, write_dataset
from heliostat.data.errors import SelectionError
from heliostat.data.format.account import Entry
from heliostat.data.format.ragged import Ragged
from heliostat.data.read.shard_reader import ShardReader
from heliostat.data.views.describe import _short, length_histogram, sample_rows
from heliostat.data.views.shuffle_quality import chi_squared, shuffle_quality
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_ROWS = 30_000


@pytest.fixture(scope="module")
def by_class(tmp_path_factory) -> Dataset:
    """Rows sorted by class, as folders of images by class are converted."""
    labels = np.arange(NUM_ROWS) * 10 // NUM_ROWS
    return write_dataset(tmp_path_factory.mktemp("sorted") / "set", {"y": labels, "w": labels / 2})


def test_a_full_shuffle_is_as_good_as_chance_and_no_shuffle_as_bad_as_can_be(by_class):
    assert 0.8 < shuffle_quality(by_class, "y", "full", batch_size=500) < 1.2
    assert shuffle_quality(by_class, "y", False, batch_size=500) > 400
    assert 0.8 < shuffle_quality(by_class, "y", "window:262144", batch_size=500) < 1.2


def test_larger_windows_mix_better(by_class):
    figures = [shuffle_quality(by_class, "y", f"window:{rows}:500", batch_size=500) for rows in (1000, 4000, 16_000)]
    assert figures[0] > 2 * figures[1] > 4 * figures[2]
    assert figures[2] > 1.2


def test_unequal_classes_and_small_batches_are_judged_alike(tmp_path):
    labels = np.repeat([0, 7, 8], [100, 4000, 900]).astype(np.uint8)
    dataset = write_dataset(tmp_path / "set", {"y": labels, "flag": labels == 7})
    for batch_size in (10, 50, 2500):
        found = [shuffle_quality(dataset, "y", batch_size=batch_size, seed=seed) for seed in range(40)]
        assert 0.75 < np.mean(found) < 1.25
    assert 0.7 < shuffle_quality(dataset, "flag", batch_size=20) < 1.3


def test_chi_squared_of_known_counts():
    labels = np.repeat([0, 1], 50)
    perfect = [np.r_[:5, 50:55], np.r_[5:10, 55:60]]
    assert chi_squared(labels, perfect, "y") == 0
    worst = [np.arange(10), np.arange(50, 60)]
    assert chi_squared(labels, worst, "y") == pytest.approx(10 * 99 / 90)


def test_what_cannot_be_judged_is_refused(by_class):
    with pytest.raises(SelectionError, match=r"'w' of .* holds no classes: it is tensor float64"):
        shuffle_quality(by_class, "w")
    with pytest.raises(SelectionError, match="two classes and two batches"):
        shuffle_quality(by_class, "y", batch_size=NUM_ROWS)
    with pytest.raises(SelectionError, match="1 classes"):
        shuffle_quality(by_class.take(100), "y", batch_size=10)
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        shuffle_quality(by_class, "z")
    with pytest.raises(PlanError, match="shuffle is 'some'"):
        shuffle_quality(by_class, "y", "some")


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_a_histogram_counts_every_row_in_its_bin(lengths):
    found = length_histogram(np.array(lengths))
    assert sum(found.counts) == len(lengths)
    assert len(found.edges) == len(found.counts) + 1 <= 9
    for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True):
        assert count == sum(low <= length < high for length in lengths)
    assert len(str(found).split("\n")) == len(found.counts)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Dataset:
    columns = {
        "x": np.zeros((40, 3, 4), np.float32),
        "y": np.arange(40) % 4,
        "text": [f"words {one}" * (one % 3) for one in range(40)],
        "raw": [b"\x00" * one for one in range(40)],
        "tokens": [np.arange(one % 5) for one in range(40)],
    }
    return write_dataset(tmp_path_factory.mktemp("mixed") / "set", columns)


def test_every_kind_of_column_is_described(mixed):
    description = mixed.describe(num_samples=2, label="y", batch_size=10)
    columns = {column.name: column for column in description.columns}
    assert columns["y"].class_counts == {0: 10, 1: 10, 2: 10, 3: 10}
    assert columns["tokens"].lengths.counts == (8, 8, 8, 8, 8)
    assert columns["raw"].lengths.edges[-1] >= 40
    assert set(description.shuffle_quality) == {"window", "full"}
    lines = str(description).split("\n")
    assert lines[0] == mixed.name
    assert "40 rows, 1 shard" in lines[1]
    text = "\n".join(lines)
    assert "x: float32 3×4, 0 to 0" in text
    assert "tokens: list of int64 scalar, 0 to 3, 0 to 4 elements per row, 80 in all" in text
    assert "raw: bytes, 0 to 39 bytes per row, 780 in all" in text
    assert "text: string, 0 to" in text
    assert "row 1: x=float32 3×4, y=1, text='words 1', raw=1 bytes, tokens=[0]" in text
    assert "shuffle='full': batches vary in 'y'" in text


def test_views_are_described_too(mixed):
    view = mixed.filter(lambda rows: rows["y"] < 2).map(lambda rows, seeds: {"seed": seeds}, ["y"], random=True)
    description = view.describe()
    columns = {column.name: column for column in description.columns}
    assert columns["y"].class_counts == {0: 10, 1: 10}
    assert columns["seed"].statistics is None
    assert description.num_shards is description.num_bytes is None
    assert str(description).split("\n")[1] == f"  20 rows, fingerprint {view.fingerprint}"
    assert "seed: int32 2" in str(description)


def test_sample_rows_are_short(mixed, tmp_path):
    long = write_dataset(tmp_path / "set", {"t": ["a" * 1000]})
    assert len(sample_rows(long, 5)) == 1
    assert len(sample_rows(long, 5)[0]["t"]) == 60
    assert sample_rows(mixed, 0) == ()


def test_numbers_are_shown_with_all_their_digits(tmp_path):
    columns = {
        "id": np.array([11_111_103, 9_007_199_254_740_993]),
        "big": np.array([0, 2**64 - 1], np.uint64),
        "single": np.array([0.1, 16_777_215.0], np.float32),
        "double": np.array([0.1 + 0.2, 1e300]),
        "half": np.array([0.1, np.inf], np.float16),
    }
    text = str(write_dataset(tmp_path / "set", columns).describe())
    assert "id: int64 scalar, 11,111,103 to 9,007,199,254,740,993\n" in text
    assert "big: uint64 scalar, 0 to 18,446,744,073,709,551,615\n" in text
    assert "single: float32 scalar, 0.1 to 16777215\n" in text
    assert "double: float64 scalar, 0.30000000000000004 to 1e+300\n" in text
    assert "half: float16 scalar, 0.1 to inf" in text


def test_rows_that_are_no_number_are_counted(tmp_path):
    nan = float("nan")
    columns = {
        "y": np.array([0.0, 1.0, nan, 1.0]),
        "x": np.array([[1, nan], [nan, nan], [1, 2], [3, 4]], np.float32),
        "ids": [[1.0], [], [nan, nan, 2.0], [nan]],
        "none": np.full(4, nan),
    }
    columns["ids"] = [np.array(row, np.float64) for row in columns["ids"]]
    text = str(write_dataset(tmp_path / "set", columns, overwrite=True).describe())
    assert "y: float64 scalar, 0 to 1, NaN in 1 row\n" in text
    assert "x: float32 2, 1 to 4, NaN in 2 rows\n" in text
    assert "ids: list of float64 scalar, 1 to 2, NaN in 2 rows, 0 to 3 elements" in text
    assert "none: float64 scalar, NaN in 4 rows" in text


def test_a_sample_reads_the_begin_the_middle_and_the_end(tmp_path, monkeypatch):
    count = 40_000
    columns = {"y": np.arange(count) % 7, "x": np.where(np.arange(count) == count - 1, np.nan, 1.0)}
    dataset = write_dataset(tmp_path / "set", columns, rows_per_shard=1000)
    read = set()
    gather = ShardReader.gather_checked

    def seen(self, ids, out):
        read.update((ids // 1000).tolist())
        return gather(self, ids, out)

    monkeypatch.setattr(ShardReader, "gather_checked", seen)
    found = dataset.describe(full=False)
    assert found.num_looked_at == 12_288
    assert len(read) <= 17
    assert "NaN, classes and lengths are of a sample of 12,288 rows" in str(found)
    assert "x: float64 scalar, 1 to 1, NaN in 1 row\n" in f"{found}\n"
    assert sum(found.columns[0].class_counts.values()) == 12_288
    with pytest.raises(SelectionError, match=r"takes all rows .* give full=True"):
        dataset.describe(full=False, label="y")
    few = dataset.take(100)
    assert str(few.describe(full=False)) == str(few.describe())


def test_what_a_conversion_left_out_is_shown(mixed, monkeypatch):
    entry = Entry(change="left out", name="b.csv.bz2", unit="file")
    monkeypatch.setattr(type(mixed), "account", (entry,), raising=False)
    assert str(mixed.describe()).endswith(
        "\n  left out or changed when it was converted:\n    b.csv.bz2: 1 file left out"
    )


def test_text_that_is_none_is_shown_as_such():
    rows = {"t": Ragged(np.array([0xFF, 0x41], np.uint8), np.array([0, 2]), "string")}
    assert _short(rows["t"], 0) == "text that is not UTF-8 (ff 41 …)"


def test_lists_of_fractions_that_are_all_empty_are_described(tmp_path):
    empty = Ragged(np.zeros(0), np.zeros(4, np.int64))
    dataset = write_dataset(tmp_path / "set", {"x": empty})
    (column,) = dataset.describe().columns
    assert (column.num_nan, sum(column.lengths.counts)) == (0, 3)
