"""Reading ahead changes neither content nor order, keeps to its bytes, and leaves nothing behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from heliostat.data import Dataset, RowError, RowOrder, UnknownColumnError, write_dataset
from heliostat.data.read.prefetch import Prefetcher
from heliostat.data.read.reader import Reader
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_ROWS = 1000


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(NUM_ROWS)
    columns = {"id": ids, "x": np.stack([ids, -ids], axis=1), "text": [str(one) * (one % 5) for one in range(NUM_ROWS)]}
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", columns, rows_per_shard=100)


def requests(batch_size: int, num_rows: int = NUM_ROWS) -> list[np.ndarray]:
    rows = RowOrder(num_rows=NUM_ROWS, seed=1).rows(0, num_rows)
    return np.split(rows, range(batch_size, num_rows, batch_size))


def prefetch_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("heliostat-prefetch")]


class Gate(Reader):
    """A real reader that waits to be let through, and remembers what was asked."""

    def __init__(self, below: Reader, started: list[int]) -> None:
        self.below, self.started = below, started
        self.is_open, self.is_closed = threading.Event(), False

    @property
    def columns(self):
        return self.below.columns

    def gather(self, row_ids, out=None):
        self.started.append(len(row_ids))
        assert self.is_open.wait(60)
        return self.below.gather(row_ids, out)

    def close(self):
        self.is_closed = True
        self.below.close()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 300), st.integers(1, 4), st.sampled_from([1, 5000, 1 << 20]))
def test_batches_are_those_of_a_reader_in_the_same_order(stored, batch_size, num_threads, max_bytes):
    asked = requests(batch_size)
    with Prefetcher(stored.reader, iter(asked), max_bytes=max_bytes, num_threads=num_threads) as prefetcher:
        found = list(prefetcher)
    assert len(found) == len(asked)
    for rows, ids in zip(found, asked, strict=True):
        assert np.array_equal(rows["id"], ids)
        assert np.array_equal(rows["x"], np.stack([ids, -ids], axis=1))
        assert rows["text"].to_list() == [str(one) * (one % 5) for one in ids]
    assert prefetch_threads() == []
    assert prefetcher.num_bytes == 0


def test_an_error_comes_where_its_batch_would_have_come(stored):
    asked = requests(100)
    asked[4] = np.array([5, NUM_ROWS])
    with Prefetcher(stored.reader, iter(asked), num_threads=3) as prefetcher:
        for number in range(4):
            assert np.array_equal(next(prefetcher)["id"], asked[number])
        with pytest.raises(RowError, match="1000"):
            next(prefetcher)
        with pytest.raises(StopIteration):
            next(prefetcher)
    assert prefetch_threads() == []


def test_errors_of_the_requests_and_of_the_reader_surface_too(stored):
    def some():
        yield np.arange(5)
        raise RuntimeError("no more rows")

    with Prefetcher(stored.reader, some(), num_threads=2) as prefetcher:
        assert next(prefetcher)["id"].tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(RuntimeError, match="no more rows"):
            next(prefetcher)

    def no_reader():
        raise OSError("no such disk")

    with Prefetcher(no_reader, iter(requests(10))) as prefetcher, pytest.raises(OSError, match="no such disk"):
        next(prefetcher)
    assert prefetch_threads() == []


def test_closing_early_ends_the_threads_and_the_readers(stored):
    gates = []

    def make_reader():
        gates.append(Gate(stored.reader(), []))
        gates[-1].is_open.set()
        return gates[-1]

    prefetcher = Prefetcher(make_reader, iter(requests(10)), num_threads=2)
    next(prefetcher)
    assert len(prefetch_threads()) == 2
    prefetcher.close()
    assert prefetch_threads() == []
    assert gates
    assert all(gate.is_closed for gate in gates)
    with pytest.raises(StopIteration):
        next(prefetcher)
    prefetcher.close()


def test_no_more_is_read_than_the_bytes_allow(stored):
    with stored.reader(["x"]) as reader:
        batch_bytes = reader.gather(np.arange(10))["x"].nbytes
    started: list[int] = []
    gate = Gate(stored.reader(["x"]), started)
    gate.is_open.set()
    with Prefetcher(lambda: gate, iter(requests(10)), max_bytes=3 * batch_bytes) as prefetcher:
        prefetcher._depth = 50
        taken = 0
        for _ in prefetcher:
            taken += 1
            # What is read and not taken, and the one that is being read, stay within the bound.
            assert len(started) <= taken + 3 + 1
            assert prefetcher.num_bytes <= 3 * batch_bytes
    assert taken == 100


def test_one_batch_is_read_even_if_it_is_too_large(stored):
    with Prefetcher(stored.reader, iter(requests(500)), max_bytes=1) as prefetcher:
        assert [len(rows["id"]) for rows in prefetcher] == [500, 500]


def test_a_waiting_consumer_makes_it_read_further_ahead(stored):
    gate = Gate(stored.reader(["x"]), [])
    with Prefetcher(lambda: gate, iter(requests(10))) as prefetcher:
        assert prefetcher.depth == 1
        opener = threading.Timer(0.05, gate.is_open.set)
        opener.start()
        next(prefetcher)  # nothing is read before the gate opens
        assert prefetcher.depth == 2
        assert prefetcher.waited_s > 0
        opener.join()


def test_batches_of_a_dataset_may_be_read_ahead(stored):
    view = stored.map(lambda rows, seeds: {"seed": seeds}, ["id"], random=True)
    plain = list(view.batches(64, seed=3, epoch=2))
    for threads in (1, 3):
        ahead = list(view.batches(64, seed=3, epoch=2, prefetch_bytes=1 << 20, num_threads=threads))
        assert [batch["seed"].tolist() for batch in ahead] == [batch["seed"].tolist() for batch in plain]
        assert [batch["id"].tolist() for batch in ahead] == [batch["id"].tolist() for batch in plain]
    left = view.batches(64, prefetch_bytes=1 << 20)
    next(left)
    left.close()
    assert prefetch_threads() == []
    with pytest.raises(UnknownColumnError):
        stored.batches(5, columns=["z"], prefetch_bytes=100)


@pytest.mark.parametrize("arguments", [{"num_threads": 0}, {"max_bytes": 0}])
def test_senseless_bounds_are_refused(stored, arguments):
    with pytest.raises(ValueError, match="both must be at least 1"):
        Prefetcher(stored.reader, iter([]), **arguments)
    assert prefetch_threads() == []
