"""Views of rows and columns hold exactly the rows that they say, in any order asked, and pickle."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.data import Dataset, PlanError, RowError, ShardError, UnknownColumnError, write_dataset
from heliostat.data.errors import SelectionError, TransformError
from heliostat.data.format.ragged import Ragged
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from heliostat.data.views.concatenate import concatenate
from heliostat.data.views.split_side import SplitSide
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_ROWS = 1003


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Dataset:
    """Rows that say which they are, in a column of every kind."""
    ids = np.arange(NUM_ROWS)
    columns = {
        "id": ids,
        "x": np.stack([ids, ids * 2], axis=1).astype(np.float32),
        "y": (ids % 10).astype(np.int16),
        "text": [f"row {number}" * (number % 3) for number in range(NUM_ROWS)],
        "tokens": [np.arange(number % 7, dtype=np.int32) + number for number in range(NUM_ROWS)],
    }
    return write_dataset(tmp_path_factory.mktemp("numbered") / "set", columns, rows_per_shard=300)


def ids_of(dataset: Dataset, **arguments) -> list[int]:
    return np.concatenate([b["id"] for b in dataset.batches(64, columns=["id"], **arguments)]).tolist()


def assert_rows(dataset: Dataset, expected: list[int]) -> None:
    """All columns of the dataset hold these rows of `numbered`, read in and out of order."""
    assert len(dataset) == len(expected)
    assert ids_of(dataset, shuffle=False) == expected
    places = np.random.default_rng(1).permutation(len(expected))[:200]
    wanted = np.array(expected)[places]
    with pickle.loads(pickle.dumps(dataset)).reader() as reader:
        rows = reader.gather(places)
        buffers = {
            n: np.zeros((places.size, *c.shape), c.dtype) for n, c in reader.columns.items() if not c.is_variable
        }
        filled = reader.gather(places, buffers)
        assert all(filled[name] is buffers[name] for name in buffers)
    for found in (rows, filled):
        assert found["id"].tolist() == wanted.tolist()
        assert np.array_equal(found["x"], np.stack([wanted, wanted * 2], axis=1))
        assert isinstance(found["text"], Ragged)
        assert found["text"].to_list() == [f"row {number}" * (number % 3) for number in wanted]
        assert found["tokens"].to_list() == [list(range(number, number + number % 7)) for number in wanted]
        assert all(one.ctypes.data % 64 == 0 for one in rows.values() if isinstance(one, np.ndarray))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 2**63 + 5])
def test_a_split_gives_every_row_to_one_side(numbered, fraction, seed):
    first, second = numbered.split(fraction, seed=seed)
    sides = [ids_of(side, shuffle=False) for side in (first, second)]
    assert len(sides[0]) == round(fraction * NUM_ROWS)
    assert sorted(sides[0] + sides[1]) == list(range(NUM_ROWS))
    for side, ids in zip((first, second), sides, strict=True):
        assert_rows(side, sorted(ids))


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.data(), st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_any_split_is_exact_and_in_stored_order(data, num_rows, seed):
    chosen = data.draw(st.integers(0, num_rows))
    sides = [SplitSide(num_rows=num_rows, num_chosen=chosen, seed=seed, first=first) for first in (True, False)]
    rows = [side.at(np.arange(len(side))) for side in sides]
    assert [len(one) for one in rows] == [chosen, num_rows - chosen]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(num_rows))
    assert all((np.diff(one) > 0).all() for one in rows)


@pytest.mark.parametrize("extra", [-1, 0, 1, 5000, 4 << 30])
def test_sections_of_a_huge_split_fit_together(extra):
    """Rows are counted in sections of 2**30: at their borders no row is on both sides, and none is left out."""
    section = 1 << 30
    num_rows = section + extra
    sides = [SplitSide(num_rows=num_rows, num_chosen=num_rows // 3, seed=4, first=first) for first in (True, False)]
    for border in [*range(0, num_rows, section), num_rows]:
        window = np.arange(max(0, border - 1000), min(num_rows, border + 1000))
        found = []
        for side in sides:
            # Both sides are spread evenly, so a side's rows in the window are near its share of all rows.
            place = border * len(side) // num_rows
            rows = side.at(np.arange(max(0, place - 1500), min(len(side), place + 1500)))
            assert (np.diff(rows) > 0).all()
            found.append(rows[(rows >= window[0]) & (rows <= window[-1])])
        assert np.array_equal(np.sort(np.concatenate(found)), window)


def test_a_split_of_a_trillion_rows_needs_no_table():
    side = SplitSide(num_rows=10**12, num_chosen=9 * 10**11, seed=0, first=True)
    rows = side.at(np.array([0, 1, 10**11, 9 * 10**11 - 1]))
    assert (np.diff(rows) > 0).all()
    assert abs(rows[2] / 10**12 - 1 / 9) < 1e-9
    assert rows[3] >= 10**12 - 64


def test_splits_look_random_and_differ_by_seed():
    num_rows = 100_000
    chosen = [SplitSide(num_rows=num_rows, num_chosen=50_000, seed=seed, first=True) for seed in (0, 1)]
    marks = np.zeros((2, num_rows))
    for seed, side in enumerate(chosen):
        marks[seed, side.at(np.arange(50_000))] = 1
    assert abs(np.corrcoef(marks)[0, 1]) < 5 / np.sqrt(num_rows)
    # Equal places of different groups are unrelated too.
    for lag in (64, 128, 4096):
        assert abs(np.corrcoef(marks[0, :-lag], marks[0, lag:])[0, 1]) < 5 / np.sqrt(num_rows)
    assert abs(marks[0].reshape(-1, 32).mean(0) - 0.5).max() < 0.05


def test_a_split_does_not_depend_on_the_shards(tmp_path):
    values = {"id": np.arange(500)}
    kinds = [write_dataset(tmp_path / str(rows), values, rows_per_shard=rows) for rows in (7, 500)]
    assert ids_of(kinds[0].split(0.8, seed=3)[1], shuffle=False) == ids_of(
        kinds[1].split(0.8, seed=3)[1], shuffle=False
    )


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, True, "half", float("nan")])
def test_shares_outside_of_0_and_1_are_refused(numbered, fraction):
    with pytest.raises(SelectionError, match="between 0 and 1"):
        numbered.split(fraction)


def test_a_side_without_rows_is_refused(numbered):
    with pytest.raises(SelectionError, match="leaves no row of 1,003"):
        numbered.split(0.0001)


def test_take_and_skip(numbered):
    assert_rows(numbered.take(10), list(range(10)))
    assert_rows(numbered.skip(990), list(range(990, NUM_ROWS)))
    assert_rows(numbered.skip(100).take(50).skip(20), list(range(120, 150)))
    assert len(numbered.take(10**6)) == NUM_ROWS
    with pytest.raises(SelectionError, match="leaves no row"):
        numbered.skip(NUM_ROWS)
    with pytest.raises(PlanError, match="num_rows is 0"):
        numbered.take(0)


def test_select_takes_rows_in_any_order_and_again(numbered):
    ids = [5, 1002, 0, 5, 17]
    assert_rows(numbered.select(ids), ids)
    assert_rows(numbered.select(np.arange(NUM_ROWS)[::-1]).select([0, 3]), [1002, 999])
    for bad in ([NUM_ROWS], [-1], [0.5]):
        with pytest.raises(RowError):
            numbered.select(bad)
    with pytest.raises(SelectionError, match="leaves no row"):
        numbered.select(np.array([], int))


def test_filter_keeps_exactly_what_passes(numbered):
    assert_rows(numbered.filter(lambda rows: rows["y"] == 3, ["y"]), list(range(3, NUM_ROWS, 10)))
    long = numbered.filter(lambda rows: rows["tokens"].lengths > 5)
    assert_rows(long, list(range(6, NUM_ROWS, 7)))
    assert_rows(long.filter(lambda rows: rows["id"] < 20), [6, 13])


def test_a_filter_covers_every_batch_and_calls_no_more(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"id": np.arange(10_000)})
    calls = []
    kept = dataset.filter(lambda rows: (calls.append(len(rows["id"])), rows["id"] % 1000 == 999)[1])
    assert calls == [4096, 4096, 1808]
    assert ids_of(kept, shuffle=False) == list(range(999, 10_000, 1000))
    assert len(calls) == 3


def test_a_filter_reads_few_large_rows_at_a_time(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"image": np.zeros((50, 1 << 20), np.uint8)})
    sizes = []
    dataset.filter(lambda rows: np.full(sizes.append(len(rows["image"])) or sizes[-1], True))
    assert sizes == [16, 16, 16, 2]


def test_an_index_takes_four_bytes_per_row(numbered):
    view = numbered.filter(lambda rows: rows["id"] >= 0)
    num_bytes = len(pickle.dumps(view)) - len(pickle.dumps(numbered))
    assert 4 * NUM_ROWS < num_bytes < 5 * NUM_ROWS


def test_bad_filters_are_named(numbered):
    def broken(rows):
        raise KeyError("nothing")

    with pytest.raises(TransformError, match=r"broken raised KeyError for the rows 0 to 1002 of .*'nothing'"):
        numbered.filter(broken)
    with pytest.raises(TransformError, match=r"int64 of shape \(1003,\).*one bool per row"):
        numbered.filter(lambda rows: rows["id"])
    with pytest.raises(TransformError, match=r"bool of shape \(\)"):
        numbered.filter(lambda rows: True)
    with pytest.raises(SelectionError, match="leaves no row"):
        numbered.filter(lambda rows: rows["id"] < 0)
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        numbered.filter(lambda rows: rows["z"] < 0, ["z"])


def test_statistics_of_a_selection_are_those_of_its_rows(numbered):
    few = numbered.filter(lambda rows: rows["y"] < 5).take(9)
    assert (few.statistics["y"].min, few.statistics["y"].max) == (0, 4)
    assert (few.statistics["x"].min, few.statistics["x"].max) == (0.0, 26.0)
    assert few.statistics["tokens"].lengths.max == 6
    assert set(few.statistics) == set(numbered.schema)


def test_concatenated_rows_follow_each_other(numbered):
    joined = concatenate([numbered.take(5), numbered.skip(1000), numbered.take(1)])
    assert_rows(joined, [0, 1, 2, 3, 4, 1000, 1001, 1002, 0])
    assert_rows(numbered.concatenate(numbered), [*range(NUM_ROWS), *range(NUM_ROWS)])
    assert joined.statistics["id"].max == 1002
    assert concatenate([numbered]) is numbered


def test_unlike_datasets_do_not_go_together(numbered):
    with pytest.raises(SelectionError, match=r"column 'x': tensor float32 \(2,\) in .*, none in"):
        numbered.concatenate(numbered.select_columns(["id", "y", "text", "tokens"]))
    with pytest.raises(SelectionError, match="no dataset"):
        concatenate([])


def test_columns_are_chosen_and_renamed(numbered):
    view = numbered.select_columns(["y", "id"]).rename({"y": "label"})
    assert list(view.schema) == ["label", "id"]
    assert view.schema["label"].name == "label"
    assert view.statistics["label"].max == 9
    assert {name: values.tolist() for name, values in next(view.batches(3, shuffle=False)).items()} == {
        "label": [0, 1, 2],
        "id": [0, 1, 2],
    }
    out = {"label": np.zeros(2, np.int16)}
    with view.reader(["label"]) as reader:
        assert list(reader.columns) == ["label"]
        reader.gather(np.array([4, 13]), out)
    assert out["label"].tolist() == [4, 3]
    swapped = numbered.rename({"id": "y", "y": "id"})
    assert ids_of(swapped, shuffle=False)[:12] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        numbered.rename({"z": "a"})
    with pytest.raises(SelectionError, match="'id' to more than one"):
        numbered.rename({"y": "id"})
    with pytest.raises(UnknownColumnError, match="no column 'y'; it has 'label', 'id'"):
        view.reader(["y"])


def test_views_have_row_orders_and_names_of_their_own(numbered):
    view = numbered.skip(3).take(500)
    expected = RowOrder(num_rows=500, seed=2, epoch=4).rows(0, 500) + 3
    assert ids_of(view, seed=2, epoch=4) == expected.tolist()
    assert view.name == f"{numbered.name}.skip(3).take(500)"
    with view.reader() as reader, pytest.raises(RowError, match=r"rows 0 to 499\."):
        reader.gather(np.array([500]))


@st.composite
def chains(draw, dataset: Dataset) -> tuple[Dataset, np.ndarray]:
    """Views upon views, and the row ids that they should hold."""
    view, ids = dataset, np.arange(len(dataset))
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["split", "take", "skip", "select", "filter", "concatenate"]))
        count = draw(st.integers(1, len(ids)))
        if kind == "split" and len(ids) > 9:
            sides = view.split(0.3, seed=count)
            own = [
                np.concatenate([b["id"] for b in side.batches(500, shuffle=False, columns=["id"])]) for side in sides
            ]
            assert sorted([*own[0], *own[1]]) == sorted(ids)
            side = draw(st.integers(0, 1))
            view, ids = sides[side], own[side]
        elif kind == "take":
            view, ids = view.take(count), ids[:count]
        elif kind == "skip" and count < len(ids):
            view, ids = view.skip(count), ids[count:]
        elif kind == "select":
            places = np.random.default_rng(count).integers(0, len(ids), count)
            view, ids = view.select(places), ids[places]
        elif kind == "filter" and (ids % 3 != count % 3).any():
            view, ids = view.filter(lambda rows, r=count % 3: rows["id"] % 3 != r, ["id"]), ids[ids % 3 != count % 3]
        elif kind == "concatenate":
            view, ids = view.concatenate(dataset.take(count)), np.concatenate([ids, np.arange(min(count, NUM_ROWS))])
    return view, ids


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data(), st.sampled_from(["full", "window:64", "window:20:3", False]))
def test_any_views_give_every_row_once_on_any_number_of_workers_from_any_step_on(numbered, data, shuffle):
    view, ids = data.draw(chains(numbered))
    assert len(view) == len(ids)
    batch_size, parts = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 5))
    order = RowOrder(num_rows=len(ids), seed=2, epoch=3, shuffle=shuffle)
    expected = ids[order.rows(0, len(ids))]
    assert sorted(expected) == sorted(ids)
    assert ids_of(view, shuffle=shuffle, seed=2, epoch=3) == expected.tolist()
    plan = BatchPlan(num_rows=len(ids), global_batch_size=batch_size, num_microbatches=parts)
    first_step = data.draw(st.integers(0, plan.num_steps - 1))
    found = []
    with view.reader(["id"]) as reader:  # of a worker that resumes here
        reader.start_pass(seed=2, epoch=3)
        for step in range(first_step, plan.num_steps):
            found += [reader.gather(row_ids(order, plan, step, part))["id"] for part in range(parts)]
    assert np.concatenate(found).tolist() == expected[first_step * batch_size :].tolist()


def test_fingerprints_tell_views_apart(numbered):
    views = [
        numbered,
        numbered.take(5),
        numbered.take(6),
        numbered.skip(5),
        *numbered.split(0.5, seed=0),
        *numbered.split(0.5, seed=1),
        numbered.select([0, 1, 2, 3, 4]),
        numbered.select([0, 1, 2, 4, 3]),
        numbered.filter(lambda rows: rows["id"] % 2 == 0),
        numbered.filter(lambda rows: rows["id"] % 2 == 1),
        numbered.select_columns(["id"]),
        numbered.rename({"id": "row"}),
        numbered.concatenate(numbered),
    ]
    assert len({view.fingerprint for view in views}) == len(views)
    assert numbered.take(5).fingerprint == numbered.take(5).fingerprint
    again = numbered.filter(lambda rows: ~(rows["id"] % 2).astype(bool))
    assert again.fingerprint == numbered.filter(lambda rows: rows["id"] % 2 == 0).fingerprint


def test_views_check_what_is_below(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"id": np.arange(10)})
    view = concatenate([dataset.take(3), dataset]).rename({"id": "i"})
    view.check()
    (dataset.path / dataset.shards[0].file).unlink()
    with pytest.raises(ShardError, match="cannot be found"):
        view.check()
