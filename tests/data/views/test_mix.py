"""A mix holds the shares asked for, goes through every dataset in passes, and depends on the position only."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.data import Dataset, PlanError, RowError, write_dataset
from heliostat.data.errors import SelectionError
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from heliostat.data.views.mix import mix, mix_streams
from hypothesis import given, settings
from hypothesis import strategies as st

LENGTHS = (70, 33, 7)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> list[Dataset]:
    """Rows that say which they are: 1000 * dataset + row."""
    folder = tmp_path_factory.mktemp("mix")
    found = []
    for number, length in enumerate(LENGTHS):
        ids = np.arange(length) + 1000 * number
        columns = {"id": ids, "x": np.stack([ids, -ids], 1), "text": [str(one) for one in ids]}
        found.append(write_dataset(folder / str(number), columns, rows_per_shard=20))
    return found


def ids_of(dataset: Dataset, **arguments) -> np.ndarray:
    return np.concatenate([batch["id"] for batch in dataset.batches(16, columns=["id"], **arguments)])


weights_of = st.lists(st.floats(0.01, 100), min_size=1, max_size=7)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(weights_of, st.integers(1, 3000), st.integers(0, 2**61))
def test_every_position_has_one_row_of_one_stream_and_streams_count_on(weights, num_rows, first):
    positions = np.arange(first, first + num_rows)
    streams, numbers = mix_streams(positions, weights)
    for stream in range(len(weights)):
        own = numbers[streams == stream]
        assert own.size == 0 or np.array_equal(own, np.arange(own[0], own[0] + own.size))
    # Any position alone gives the same as in company.
    places = np.random.default_rng(0).permutation(num_rows)[:20]
    again = mix_streams(positions[places], weights)
    assert np.array_equal(again[0], streams[places])
    assert np.array_equal(again[1], numbers[places])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(weights_of)
def test_shares_are_kept_at_every_position(weights):
    streams, numbers = mix_streams(np.arange(4000), weights)
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(streams[:, None] == np.arange(len(weights)), axis=0)
    assert np.abs(counts - np.arange(1, 4001)[:, None] * shares).max() < 1.51
    assert all(numbers[streams == stream][:1].tolist() in ([], [0]) for stream in range(len(weights)))


def test_shares_of_round_numbers_are_exact():
    streams, _ = mix_streams(np.arange(1000), [0.7, 0.2, 0.1])
    assert np.bincount(streams).tolist() == [700, 200, 100]
    assert (np.bincount(streams[:10], minlength=3) == [7, 2, 1]).all()


def test_without_weights_every_row_comes_once_in_every_pass(datasets):
    mixed = mix(datasets, seed=3)
    everything = sorted(np.concatenate([ids_of(one) for one in datasets]).tolist())
    assert len(mixed) == sum(LENGTHS)
    passes = [ids_of(mixed, shuffle="full", seed=1, epoch=epoch).tolist() for epoch in range(4)]
    for one in passes:
        assert sorted(one) == everything
    assert len({tuple(one) for one in passes}) == 4


@pytest.mark.parametrize("shuffle", ["full", "window:20:4", False])
def test_a_stream_is_read_in_passes_of_its_own(datasets, shuffle):
    mixed = mix(datasets, [1, 1, 2], num_rows=50, seed=9, shuffle=shuffle)
    rows = np.concatenate([ids_of(mixed, shuffle=False, epoch=epoch) for epoch in range(12)])
    for number, length in enumerate(LENGTHS):
        own = rows[rows // 1000 == number] - 1000 * number
        assert own.size >= 150 - 1
        passes = np.split(own, range(length, own.size, length))
        for one in passes[:-1]:
            assert sorted(one.tolist()) == list(range(length))
        if shuffle is False:
            assert passes[0].tolist() == list(range(length))
        elif len(passes) > 2:
            assert passes[0].tolist() != passes[1].tolist()


def test_all_columns_of_a_row_come_from_the_same_row(datasets):
    mixed = pickle.loads(pickle.dumps(mix(datasets, [3, 2, 1], num_rows=64, seed=2)))
    with mixed.reader() as reader:
        reader.start_pass(seed=0, epoch=5)
        out = {"id": np.zeros(40, np.int64), "x": np.zeros((40, 2), np.int64)}
        rows = reader.gather(np.arange(40), out)
        assert rows["x"] is out["x"]
        assert np.array_equal(rows["x"], np.stack([rows["id"], -rows["id"]], 1))
        assert rows["text"].to_list() == [str(one) for one in rows["id"]]
        empty = reader.gather(np.zeros(0, np.int64))
        assert empty["x"].shape == (0, 2)
        assert len(empty["text"]) == 0
        with pytest.raises(RowError):
            reader.gather(np.array([64]))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 8), st.integers(0, 2**64 - 1))
def test_any_step_of_any_epoch_is_the_same_on_any_number_of_workers(datasets, epoch, batch_size, parts, seed):
    mixed = mix(datasets, [5, 3, 1], num_rows=61, seed=seed)
    order = RowOrder(num_rows=61, seed=seed, epoch=epoch)
    plan = BatchPlan(num_rows=61, global_batch_size=batch_size, num_microbatches=parts)
    whole = ids_of(mixed, seed=seed, epoch=epoch)
    step = plan.num_steps - 1
    found = []
    for number in range(parts):
        with mixed.reader(["id"]) as reader:  # a worker that begins here
            reader.start_pass(seed=seed, epoch=epoch)
            found.append(reader.gather(row_ids(order, plan, step, number))["id"])
    assert np.array_equal(np.concatenate(found), whole[slice(*plan.step_rows(step))])


def test_random_rows_of_a_stream_belong_to_the_pass_of_the_stream(datasets):
    def noise(rows, seeds):
        return {"seed": seeds}

    noisy = [one.map(noise, ["id"], random=True) for one in datasets]
    mixed = mix(noisy, [1, 1, 1], num_rows=90, seed=4, shuffle=False)
    seen = {}
    for epoch in range(2):
        with mixed.reader(["id", "seed"]) as reader:
            reader.start_pass(seed=11, epoch=epoch)
            rows = reader.gather(np.arange(90))
        for place, key in enumerate(zip(rows["id"].tolist(), map(tuple, rows["seed"].tolist()), strict=True)):
            assert key not in seen, (place, key)
            seen[key] = epoch
    # The third dataset has 7 rows, so 60 rows of it are of nine passes; each is as the dataset alone gives it.
    with noisy[2].reader(["id", "seed"]) as reader:
        for epoch in range(8):
            reader.start_pass(seed=11, epoch=epoch)
            rows = reader.gather(np.arange(7))
            for one, seeds in zip(rows["id"].tolist(), map(tuple, rows["seed"].tolist()), strict=True):
                assert (one, seeds) in seen


def test_a_mix_is_made_of_what_goes_together(datasets):
    with pytest.raises(SelectionError, match="3 datasets need as many weights above 0; got"):
        mix(datasets, [1, 2])
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SelectionError, match="weights above 0"):
            mix(datasets, [1, 2, bad])
    with pytest.raises(SelectionError, match="column 'id'"):
        mix([datasets[0], datasets[1].select_columns(["x", "text"])])
    with pytest.raises(PlanError, match="num_rows is 0"):
        mix(datasets, num_rows=0)
    with pytest.raises(PlanError, match="shuffle is 'some'"):
        mix(datasets, shuffle="some")
    with mix(datasets).reader() as reader, pytest.raises(PlanError, match=r"2\*\*62"):
        reader.start_pass(seed=0, epoch=2**60)


def test_fingerprints_and_statistics_of_mixes(datasets):
    mixes = [
        mix(datasets),
        mix(datasets, seed=1),
        mix(datasets, [1, 1, 1]),
        mix(datasets, num_rows=9),
        mix(datasets, shuffle=False),
        mix(datasets[::-1]),
    ]
    assert len({one.fingerprint for one in mixes}) == len(mixes)
    assert mix(datasets).fingerprint == mixes[0].fingerprint
    assert (mixes[0].statistics["id"].min, mixes[0].statistics["id"].max) == (0, 2006)
    assert mixes[0].is_random
    mixes[0].check()


def test_a_part_of_a_mix_is_bounded_by_all_its_rows(datasets):
    part = mix(datasets, num_rows=40).take(3)
    assert (part.statistics["id"].min, part.statistics["id"].max) == (0, 2006)
    assert part.is_random
