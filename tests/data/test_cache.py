"""A cache computes every row once, gives the same rows, and never takes the place of something else."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from heliostat.data import Dataset, DatasetExistsError, RowError, open_dataset, write_dataset
from heliostat.data.errors import SelectionError
from heliostat.data.views.mix import mix
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_memory_computes_every_row_once(costly, seen):
    cached = costly.cache()
    for epoch in range(3):
        for batch in cached.batches(32, seed=1, epoch=epoch):
            assert_rows(batch, batch["id"])
    assert sorted(seen) == list(range(NUM_ROWS))
    assert cached.num_bytes >= NUM_ROWS * 16
    assert cached.fingerprint == costly.fingerprint
    assert cached.schema == costly.schema


def test_only_missing_rows_and_asked_columns_are_computed(costly, seen):
    cached = costly.cache("memory")
    with cached.reader() as reader:
        assert_rows(reader.gather(np.array([5, 7, 5])), np.array([5, 7, 5]))
        assert sorted(seen) == [5, 7]
        assert_rows(reader.gather(np.array([7, 299, 5])), np.array([7, 299, 5]))
        assert sorted(seen) == [5, 7, 299]
    with cached.reader(["id"]) as reader:
        out = {"id": np.zeros(2, np.int64)}
        assert reader.gather(np.array([9, 10]), out)["id"] is out["id"]
    assert out["id"].tolist() == [9, 10]
    assert sorted(seen) == [5, 7, 299]
    with pytest.raises(RowError), cached.reader() as reader:
        reader.gather(np.array([NUM_ROWS]))
    with pytest.raises(ValueError, match="closed"):
        reader.gather(np.array([5]))


def test_a_pickled_cache_begins_empty(costly, seen):
    cached = costly.cache()
    list(cached.batches(100))
    copy = pickle.loads(pickle.dumps(cached))
    assert copy.num_bytes == 0
    assert_rows(next(copy.batches(5, shuffle=False)), np.arange(5))


def test_threads_share_what_is_known(costly):
    cached, failures = costly.cache(), []

    def read(seed):
        for batch in cached.batches(17, seed=seed):
            try:
                assert_rows(batch, batch["id"])
            except AssertionError as error:
                failures.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


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


def test_rows_that_vary_are_not_cached(costly):
    random = costly.map(lambda rows, seeds: {"seed": seeds}, ["id"], random=True)
    for view in (random, random.take(5), mix([costly])):
        with pytest.raises(SelectionError, match="differ from pass to pass"):
            view.cache()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 49), max_size=20), max_size=8))
def test_any_reads_give_the_rows_below(tmp_path_factory, reads):
    columns = {"id": np.arange(50), "text": ["é" * (one % 7) + str(one) for one in range(50)]}
    stored = write_dataset(tmp_path_factory.mktemp("any") / "set", columns)
    with stored.cache().reader() as cached, stored.reader() as plain:
        for ids in reads:
            found, expected = cached.gather(np.array(ids, np.int64)), plain.gather(np.array(ids, np.int64))
            assert found["id"].tolist() == expected["id"].tolist()
            assert found["text"].to_list() == expected["text"].to_list()
