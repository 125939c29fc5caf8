"""First rows, single rows, and what a dataset says to who takes it for a list; its rows in a file of their own."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from heliostat.data import Dataset, RowError, write_dataset
from heliostat.data.errors import PlanError, SelectionError


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    columns = {
        "x": np.arange(24, dtype=np.float32).reshape(6, 4),
        "y": np.arange(6) + 2**60,
        "half": np.full(6, 0.5, np.float16),
        "flag": np.arange(6) % 2 == 0,
        "text": [f"é {row}" for row in range(6)],
        "raw": [bytes([row, 0]) for row in range(6)],
        "ids": [np.arange(row) for row in range(6)],
    }
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", columns, rows_per_shard=4)


def test_a_row_is_numbers_arrays_text_and_bytes(stored):
    row = stored.row(3)
    assert list(row) == list(stored.schema)
    assert row["x"].tolist() == [12, 13, 14, 15]
    assert (row["y"], row["half"], row["flag"], row["text"], row["raw"]) == (2**60 + 3, 0.5, False, "é 3", b"\3\0")
    assert [type(row[name]) for name in ("y", "half", "flag")] == [int, float, bool]
    assert row["ids"].tolist() == [0, 1, 2]
    assert stored.row(-1)["text"] == "é 5"
    for number in (6, -7):
        with pytest.raises(RowError, match=f"Row {number} was asked of .* which has 6 rows"):
            stored.row(number)
    with pytest.raises(PlanError, match=r"row_id is 1\.5"):
        stored.row(1.5)


def test_the_head_is_the_first_rows(stored):
    assert [row["y"] - 2**60 for row in stored.head()] == [0, 1, 2, 3, 4]
    assert len(stored.head(100)) == 6
    assert stored.head(0) == []
    view = stored.filter(lambda rows: rows["flag"]).map(lambda rows: rows["y"] * 0, ["y"], "y")
    assert [(row["text"], row["y"]) for row in view.head(2)] == [("é 0", 0), ("é 2", 0)]
    with pytest.raises(PlanError, match="num_rows is -1"):
        stored.head(-1)


@pytest.mark.parametrize(
    "use", [lambda d: d[0], lambda d: d["x"], lambda d: list(d), lambda d: [*d], lambda d: 3 in d, lambda d: d[1:2]]
)
def test_who_takes_it_for_a_list_is_told_what_to_use(stored, use):
    with pytest.raises(TypeError, match=r"dataset\.row\(0\) is one row, dataset\.head\(5\) .*dataset\.batches\(256"):
        use(stored)


def test_a_uri_is_no_path_and_home_is_found(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert stored.to_parquet("~/rows.parquet", columns=["y"]) == tmp_path / "rows.parquet"
    assert pq.read_table(tmp_path / "rows.parquet")["y"].to_pylist() == [2**60 + row for row in range(6)]
    with pytest.raises(SelectionError, match=r"s3://bucket/a\.parquet is a URI, and this writes to a path") as raised:
        stored.to_parquet("s3://key:secret@bucket/a.parquet?token=secret")
    assert "secret" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
