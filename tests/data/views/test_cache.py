"""A cache computes every row once, gives the same rows, and never takes the place of something else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.data import Dataset, DatasetExistsError, open_dataset, write_dataset
from heliostat.data.errors import SelectionError
from heliostat.data.views.mix import mix

NUM_ROWS = 300


@pytest.fixture
def seen() -> list[int]:
    """Row ids for which the costly function was called."""
    return []


@pytest.fixture
def costly(tmp_path, seen) -> Dataset:
    ids = np.arange(NUM_ROWS)
    columns = {"id": ids, "tokens": [np.arange(one % 4, dtype=np.int16) + one for one in range(NUM_ROWS)]}

    def change(rows):
        seen.extend(rows["id"].tolist())
        return {"square": rows["id"] ** 2, "twice": rows["tokens"].take(np.arange(len(rows["tokens"])))}

    view = write_dataset(tmp_path / "set", columns, rows_per_shard=70).map(change, version="1")
    seen.clear()
    return view


def assert_rows(rows: dict, ids: np.ndarray) -> None:
    assert rows["id"].tolist() == ids.tolist()
    assert rows["square"].tolist() == (ids**2).tolist()
    assert rows["twice"].to_list() == [[one + k for k in range(one % 4)] for one in ids]


def test_a_cache_in_memory_is_no_more_and_says_what_to_use(costly):
    with pytest.raises(SelectionError, match=r'cache\("memory"\) is no more. Give a path'):
        costly.cache("memory")


@pytest.mark.parametrize("uri", ["s3://key:secret-0123@bucket/c", "gs://bucket/c", "memory://c"])
def test_a_uri_is_refused_and_makes_no_folder(costly, tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SelectionError, match="is a URI, and this writes to a path of this host") as caught:
        costly.cache(uri)
    assert "secret" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_home_folder_is_a_path(costly, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    costly.cache("~/cache")
    assert len(open_dataset(tmp_path / "cache")) == NUM_ROWS
    again = costly.cache(tmp_path / "cache")
    assert again.statistics["square"].max == (NUM_ROWS - 1) ** 2


def test_a_path_is_written_once_and_used_again(costly, seen, tmp_path):
    cached = costly.cache(tmp_path / "cache")
    assert sorted(set(seen)) == list(range(NUM_ROWS))
    seen.clear()
    again = pickle.loads(pickle.dumps(costly.cache(tmp_path / "cache")))
    for batch in again.batches(64):
        assert_rows(batch, batch["id"])
    assert seen == []
    assert again.fingerprint == cached.fingerprint == costly.fingerprint
    assert again.schema == costly.schema
    again.check()


def test_a_cache_of_something_else_is_replaced_and_nothing_else_is(costly, tmp_path):
    costly.cache(tmp_path / "cache")
    fewer = costly.take(10)
    assert len(fewer.cache(tmp_path / "cache")) == 10
    assert len(open_dataset(tmp_path / "cache")) == 10
    with pytest.raises(DatasetExistsError, match="holds a dataset that is no cache"):
        costly.cache(tmp_path / "set")
    (tmp_path / "notes").mkdir()
    with pytest.raises(DatasetExistsError, match="is no cache"):
        costly.cache(tmp_path / "notes")
    assert list((tmp_path / "notes").iterdir()) == []


def test_rows_that_vary_are_not_cached(costly, tmp_path):
    random = costly.map(lambda rows, seeds: {"seed": seeds}, ["id"], random=True)
    for view in (random, random.take(5), mix([costly])):
        with pytest.raises(SelectionError, match="differ from pass to pass"):
            view.cache(tmp_path / "cache")
