"""What is read next is handed down by every reader, and a pass that would fetch shards again and again is known."""

from __future__ import annotations

import gc
import inspect

import numpy as np
import pytest
from heliostat.data import Dataset, mix, write_dataset
from heliostat.data.order.order import RowOrder
from heliostat.data.read.reader import Reader
from heliostat.data.read.shard_reader import ShardReader
from heliostat.data.read.upcoming import ShardTable, refetches

NUM_ROWS, ROWS_PER_SHARD = 4000, 500
TABLE = ShardTable(np.arange(0, NUM_ROWS, ROWS_PER_SHARD), [10] * (NUM_ROWS // ROWS_PER_SHARD))


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(NUM_ROWS)
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", {"id": ids, "y": ids % 7}, rows_per_shard=500)


VIEWS = {
    "split": lambda whole: whole.split(0.95)[0],
    "take": lambda whole: whole.take(3900),
    "skip": lambda whole: whole.skip(10),
    "select": lambda whole: whole.select(np.arange(NUM_ROWS)),
    "filter": lambda whole: whole.filter(lambda rows: rows["y"] > 0),
    "rename": lambda whole: whole.rename({"y": "label"}),
    "select_columns": lambda whole: whole.select_columns(["id"]),
    "map": lambda whole: whole.map(lambda rows: {"z": rows["id"] + 1}),
    "concatenate": lambda whole: whole.take(300).concatenate(whole),
    "mix": lambda whole: mix([whole, whole.take(3000)]),
    "mix in stored order": lambda whole: mix([whole, whole], shuffle=False),
    "mix of a mix": lambda whole: mix([mix([whole, whole]), whole]),
    "all": lambda whole: mix([whole.split(0.9)[1].map(lambda rows: {"z": rows["y"]}), whole.map(dict, output=None)
                              .map(lambda rows: {"z": rows["y"]})]).take(2000).rename({"z": "q"}),
}  # fmt: skip


def rows_told(reader: Reader, order: RowOrder, monkeypatch) -> tuple[list[int], list[int]]:
    """The ids that the readers of shards are told for a stretch of a pass, and those that they are then asked for."""
    told: list[int] = []
    asked: list[int] = []
    gather = ShardReader.gather_checked

    def note(self, base_order, position):
        told.extend(base_order.rows(position, position + 64).tolist())

    def noted(self, ids, out):
        asked.extend(ids.tolist())
        return gather(self, ids, out)

    monkeypatch.setattr(ShardReader, "fetch_ahead", note)
    monkeypatch.setattr(ShardReader, "gather_checked", noted)
    reader.prefetch(order, 128)
    reader.gather(order.rows(128, 192))
    return sorted(told), sorted(asked)


@pytest.mark.parametrize("shuffle", ["full", "window:100:10", False])
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_tells_its_bases_exactly_the_rows_that_it_will_ask_for(stored, name, shuffle, monkeypatch):
    view = VIEWS[name](stored)
    order = RowOrder(num_rows=len(view), seed=3, epoch=2, shuffle=shuffle)
    with view.pass_reader(seed=3, epoch=2) as reader:
        if "of a mix" in name:  # the inner mix begins its pass with its first row
            reader.gather(order.rows(0, 128))
        told, asked = rows_told(reader, order, monkeypatch)
    assert told == asked
    assert asked


def test_no_reader_overrides_prefetch(stored):
    for view in VIEWS.values():
        view(stored).reader().close()
    gc.collect()
    found = [Reader]
    for each in found:
        found += each.__subclasses__()
    assert len(found) > 5
    for each in found[1:]:
        assert "prefetch" not in vars(each), each
        assert "gather" not in vars(each), each
    assert "final" in inspect.getsource(Reader.prefetch)


def is_refused(view: Dataset, order: RowOrder, monkeypatch, max_bytes: int = 65) -> bool:
    found = []
    monkeypatch.setattr(ShardReader, "fetch_ahead", lambda self, base_order, position: found.append(base_order))
    with view.pass_reader(seed=0, epoch=0) as reader:
        reader.prefetch(order, 0)
    return any(refetches(each, TABLE, max_bytes) for each in found)


@pytest.mark.parametrize("name", ["split", "take", "skip", "select", "filter", "rename", "concatenate", "mix"])
@pytest.mark.parametrize("shuffle", ["full", "window:1000:8"])
def test_rows_from_everywhere_over_a_cache_that_is_too_small_are_known_behind_every_view(
    stored, name, shuffle, monkeypatch
):
    view = VIEWS[name](stored)
    order = RowOrder(num_rows=len(view), shuffle=shuffle)
    assert is_refused(view, order, monkeypatch)
    assert not is_refused(view, order, monkeypatch, 80)


@pytest.mark.parametrize("shuffle", [False, "window:1000:500"])
@pytest.mark.parametrize("name", ["split", "take", "select", "filter", "concatenate", "mix in stored order"])
def test_rows_in_order_or_in_windows_that_fit_are_not_refused(stored, name, shuffle, monkeypatch):
    view = VIEWS[name](stored)
    assert not is_refused(view, RowOrder(num_rows=len(view), shuffle=shuffle), monkeypatch)


def test_few_rows_of_a_large_dataset_may_be_shuffled(stored, monkeypatch):
    assert not is_refused(stored.take(1000), RowOrder(num_rows=1000), monkeypatch, 25)


def test_rows_that_are_selected_from_everywhere_are_as_a_full_shuffle(stored, monkeypatch):
    view = stored.select(np.random.default_rng(0).permutation(NUM_ROWS))
    assert is_refused(view, RowOrder(num_rows=NUM_ROWS, shuffle=False), monkeypatch)


@pytest.mark.parametrize("shuffle", [False, "window", "window:16384"])
def test_a_window_whose_blocks_come_from_large_shards_is_allowed(shuffle):
    """Every block of 4,096 rows may fetch its shard again: that is what a window costs, not a shard per batch."""
    table, num_rows = ShardTable(np.arange(0, 2_000_000, 50_000), [10] * 40), 2_000_000
    order = RowOrder(num_rows=num_rows, shuffle=shuffle)
    assert not refetches(order, table, 390 if shuffle == "window" else 170)
    assert refetches(RowOrder(num_rows=num_rows), table, 390)
