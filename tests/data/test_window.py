"""A window shuffle is a permutation that reads few blocks at a time and looks random inside of each window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from heliostat.data import PlanError
from heliostat.data.order.bijection import permuted, permuted_back, round_keys
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from heliostat.data.order.window import Window, parse_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st

AWKWARD_SIZES = (4095, 4096, 4097, 65_536, 65_537, 262_143, 262_144, 262_145, 1_000_003)
KNOWN_TO_FAIL = (60_000, 65_537, 262_145, 1_000_000)


def whole_pass(num_rows: int, shuffle: str, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return RowOrder(num_rows=num_rows, seed=seed, epoch=epoch, shuffle=shuffle).rows(0, num_rows)


def is_permutation(ids: np.ndarray, num_rows: int) -> bool:
    return ids.size == num_rows and bool((np.bincount(ids, minlength=num_rows) == 1).all())


def windows_of(num_rows: int, window: Window) -> list[int]:
    """First positions of the windows and the end, by counting block after block."""
    num_blocks = -(-num_rows // window.block_rows)
    num_windows = -(-num_blocks // (window.window_rows // window.block_rows))
    sizes = [num_blocks // num_windows + (number < num_blocks % num_windows) for number in range(num_windows)]
    return np.cumsum([0, *sizes]).tolist()


@pytest.mark.parametrize("shuffle", ["window", "window:16:4", "window:21:1", "window:100:7", "window:9"])
def test_every_small_pass_is_a_permutation(shuffle):
    for num_rows in range(1, 301):
        assert is_permutation(whole_pass(num_rows, shuffle, seed=num_rows), num_rows), num_rows


@pytest.mark.parametrize("shuffle", ["window", "window:65536", "window:5000:1000"])
@pytest.mark.parametrize("num_rows", AWKWARD_SIZES)
def test_every_awkward_pass_is_a_permutation(num_rows, shuffle):
    ids = whole_pass(num_rows, shuffle, seed=7, epoch=1)
    assert ids.dtype == np.int64
    assert is_permutation(ids, num_rows)


def shuffles(data: st.DataObject) -> str:
    window_rows = data.draw(st.integers(1, 9000))
    block_rows = data.draw(st.integers(1, window_rows))
    return data.draw(st.sampled_from([f"window:{window_rows}:{block_rows}", f"window:{window_rows}"]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data(), st.integers(1, 8000), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_any_pass_is_a_permutation(data, num_rows, seed, epoch):
    assert is_permutation(whole_pass(num_rows, shuffles(data), seed, epoch), num_rows)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.data())
def test_any_part_and_any_tail_equal_those_of_the_whole(data):
    num_rows = data.draw(st.sampled_from([1, 5, 4097, 20_000, 60_000]))
    start = data.draw(st.integers(0, num_rows))
    stop = data.draw(st.integers(start, num_rows))
    shuffle = data.draw(st.sampled_from(["window", "window:4096", "window:1000:10"]))
    order = RowOrder(num_rows=num_rows, seed=3, epoch=1, shuffle=shuffle)
    whole = order.at(np.arange(num_rows))
    assert np.array_equal(order.rows(start, stop), whole[start:stop])
    assert np.array_equal(order.rows(start, num_rows), whole[start:])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.data(), st.integers(1, 6000), st.integers(1, 900), st.integers(1, 9))
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_parts(data, num_rows, batch_rows, num_microbatches):
    order = RowOrder(num_rows=num_rows, seed=5, shuffle=shuffles(data))
    plan = BatchPlan(num_rows=num_rows, global_batch_size=batch_rows, num_microbatches=num_microbatches)
    step = data.draw(st.integers(0, plan.num_steps - 1))
    parts = np.concatenate([row_ids(order, plan, step, number) for number in range(num_microbatches)])
    assert np.array_equal(parts, order.rows(*plan.step_rows(step)))


@pytest.mark.parametrize(("num_rows", "shuffle"), [(100_003, "window:8192:1024"), (5000, "window:100:7")])
def test_a_window_reads_only_its_blocks(num_rows, shuffle):
    window = parse_shuffle(shuffle)
    assert isinstance(window, Window)
    ids = whole_pass(num_rows, shuffle, seed=2)
    firsts, position, seen = windows_of(num_rows, window), 0, set()
    last_block, missing = (num_rows - 1) // window.block_rows, -num_rows % window.block_rows
    for low, high in pairwise(firsts):
        rows = (high - low) * window.block_rows
        assert rows <= window.window_rows
        if last_block in ids[position : position + rows - missing] // window.block_rows:
            rows -= missing
        blocks = set((ids[position : position + rows] // window.block_rows).tolist())
        assert len(blocks) == high - low
        assert not seen & blocks
        seen |= blocks
        position += rows
    assert position == num_rows


@pytest.mark.parametrize("num_rows", KNOWN_TO_FAIL)
@pytest.mark.parametrize("shuffle", ["window", "window:65536"])
def test_no_lag_shows_a_correlation_inside_of_windows(num_rows, shuffle):
    """What blocks a window has is chance and changes its mean; beyond that, no lag may be seen."""
    window = parse_shuffle(shuffle)
    assert isinstance(window, Window)
    ids = whole_pass(num_rows, shuffle, seed=1).astype(float)
    firsts = np.minimum(np.array(windows_of(num_rows, window)) * window.block_rows, num_rows)
    residual = np.concatenate([part - part.mean() for part in np.split(ids, firsts[1:-1])])
    spectrum = np.fft.rfft(residual, 2 * num_rows)
    worst = np.abs(np.fft.irfft(np.abs(spectrum) ** 2)[1:4097] / (residual @ residual)).max()
    assert worst < (5.5 if num_rows <= window.window_rows else 7) / np.sqrt(num_rows)


def test_windows_and_passes_are_shuffled_differently():
    first = whole_pass(40_000, "window:4000:1000", seed=4)
    second = whole_pass(40_000, "window:4000:1000", seed=4, epoch=1)
    assert (first == second).sum() < 20
    within = first.reshape(10, 4000) % 1000
    assert all((within[0] == other).sum() < 20 for other in within[1:])


def test_rows_far_apart_in_a_huge_dataset_need_no_table():
    num_rows = 10**15 + 7
    order = RowOrder(num_rows=num_rows, seed=2, shuffle="window")
    ids = np.concatenate([order.rows(0, 1000), order.rows(num_rows - 1000, num_rows)])
    assert np.unique(ids).size == 2000
    assert ids.min() >= 0
    assert ids.max() < num_rows
    assert np.unique(ids[:1000] // 4096).size <= 64


GOLDEN = [
    (300, "window:16:4", 0, 0, [269, 249, 250, 139, 270, 138]),
    (60000, "window", 0, 1, [16509, 7428, 28552, 53865, 7841, 28831]),
    (60000, "window:8192:1024", 1099511627776, 3, [32331, 38680, 52864, 50697, 40035, 38228]),
    (1000003, "window", 42, 7, [326327, 677754, 815197, 494426, 543753, 991446]),
    (1000000000000, "window:65536", 5, 5, [264356380061, 398291349754, 591394077493]),
]


@pytest.mark.parametrize(("num_rows", "shuffle", "seed", "epoch", "expected"), GOLDEN)
def test_orders_are_the_same_for_ever(num_rows, shuffle, seed, epoch, expected):
    """A change here breaks the resumption of every run: raise ORDER_VERSION and pin the new values."""
    order = RowOrder(num_rows=num_rows, seed=seed, epoch=epoch, shuffle=shuffle)
    assert order.rows(num_rows // 2, num_rows // 2 + len(expected)).tolist() == expected


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 20_000), st.integers(0, 2**32 - 1))
def test_a_bijection_and_its_inverse_cancel(size, word):
    values, keys = np.arange(size, dtype=np.uint64), round_keys([word])
    images = permuted(values, size, keys)
    assert np.array_equal(permuted_back(images.astype(np.uint64), size, keys), values)
    assert np.array_equal(permuted(permuted_back(values, size, keys).astype(np.uint64), size, keys), values)


def test_a_shuffle_is_one_word_with_one_meaning():
    assert parse_shuffle(False) is False
    assert parse_shuffle("full") == "full"
    assert parse_shuffle("window") == parse_shuffle("window:262144") == Window(window_rows=262_144, block_rows=4096)
    assert parse_shuffle("window:16000") == Window(window_rows=16_000, block_rows=1000)
    assert parse_shuffle("window:16000:2000") == Window(window_rows=16_000, block_rows=2000)
    for a, b in (("window", "window:262144"), ("window:16000", "window:16000:1000")):
        assert np.array_equal(whole_pass(50_000, a), whole_pass(50_000, b))


@pytest.mark.parametrize("shuffle", [True, None, 0, "", "windows", "window:", "window:0", "window:-5", "window:1e5", 7])
def test_other_words_are_refused(shuffle):
    with pytest.raises(PlanError, match="shuffle is"):
        RowOrder(num_rows=10, shuffle=shuffle)


def test_a_block_must_fit_into_its_window():
    with pytest.raises(PlanError, match="a block of 20 rows does not fit into a window of 10 rows"):
        RowOrder(num_rows=100, shuffle="window:10:20")
