from __future__ import annotations

import numpy as np
import pytest
from heliostat.cluster.allreduce.frames import bytes_of
from heliostat.cluster.allreduce.slices import (
    SMALL_BYTES,
    Scratch,
    SliceSum,
    blocks_of,
    common_bytes,
    cut,
    goes_whole,
    num_bytes,
    take,
    whole,
)
from heliostat.cluster.vectors import BLOCK_BYTES, layout_of
from hypothesis import given, settings
from hypothesis import strategies as st

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
BLOCKS_LAYOUT = ((FLOAT32, 1000), (FLOAT64, 3), (FLOAT32, 70_000))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5000), max_size=4), st.integers(1, 9))
def test_slices_cover_every_element_of_every_bucket_once(lengths, num_workers):
    layout = tuple((FLOAT32, length) for length in lengths)
    slices = cut(layout, num_workers)
    for number, length in enumerate(lengths):
        elements = [n for part in slices for n in range(*part[number])]
        assert elements == list(range(length))
    assert sum(num_bytes(layout, part) for part in slices) == 4 * sum(lengths)


def test_large_slices_are_nearly_equal():
    sizes = [part[0][1] - part[0][0] for part in cut(((FLOAT32, 1_000_003),), 3)]
    assert max(sizes) - min(sizes) <= 32


def test_vectors_go_whole_only_while_every_worker_sends_little():
    one = ((0, 0),)
    fits = ((FLOAT32, SMALL_BYTES // 4),)
    assert goes_whole(fits, [one, one])
    assert not goes_whole(((FLOAT32, SMALL_BYTES // 4 + 1),), [one, one])
    assert not goes_whole(fits, [one, one, one])
    assert not goes_whole(fits, [one, ((0, 1), (0, 2))])


def test_a_slice_is_summed_only_as_far_as_its_bytes_have_arrived():
    length = 3 * BLOCK_BYTES // 4
    nodes = {(0, n): (np.full(length, n + 1, np.float32), np.full(2, n, np.float64)) for n in range(2)}
    out = (np.zeros(length, np.float32), np.zeros(2, np.float64))
    layout = layout_of(out)
    total = SliceSum(tuple(nodes), ("sum", "max"), layout, blocks_of(layout))
    total.start(list(nodes.values()), out)
    assert not total.advance(BLOCK_BYTES - 1)
    assert total.advance(2 * BLOCK_BYTES + 5)
    assert total.num_done == 2
    assert (out[0][: BLOCK_BYTES // 2] == 3).all()
    assert (out[0][BLOCK_BYTES // 2 :] == 0).all()
    assert total.advance(3 * BLOCK_BYTES + 16)
    assert total.is_finished
    assert out[1].tolist() == [1, 1]


def test_what_has_arrived_for_every_node_is_counted_from_the_last_node_of_each_peer():
    assert common_bytes([], 100) == 100
    assert common_bytes([(30, 1), (70, 1)], 100) == 30
    assert common_bytes([(100, 1), (230, 3)], 100) == 30
    assert common_bytes([(150, 3), (100, 1)], 100) <= 0
    assert common_bytes([(0, 0), (200, 2)], 100) == 100


def test_scratch_memory_is_kept_and_aligned():
    scratch = Scratch()
    layout = ((FLOAT32, 3), (FLOAT64, 5), (FLOAT32, 0))
    first, second = scratch.vector("slot", layout), scratch.vector("slot", layout)
    assert layout_of(first) == layout
    assert [a.ctypes.data for a in first] == [a.ctypes.data for a in second]
    assert first[1].ctypes.data - first[0].ctypes.data == 64
    assert bytes_of(take(first, ((1, 3), (0, 0), (0, 0)))[0]).nbytes == 8


@pytest.mark.parametrize("block_bytes", [64, 1000, 4096, 1 << 20])
def test_blocks_cover_a_slice_in_order_and_keep_to_their_room(block_bytes):
    seen = [0] * len(BLOCKS_LAYOUT)
    end_bytes = 0
    for block in blocks_of(BLOCKS_LAYOUT, block_bytes):
        assert 0 < block.room <= max(block_bytes, 64) + 63
        for piece in block.pieces:
            assert piece.part.start == seen[piece.bucket]
            assert piece.offset % 64 == 0
            seen[piece.bucket] = piece.part.stop
        end_bytes += sum(piece.num_bytes for piece in block.pieces)
        assert block.end_bytes == end_bytes
    assert seen == [length for _, length in BLOCKS_LAYOUT]
    assert end_bytes == num_bytes(BLOCKS_LAYOUT, whole(BLOCKS_LAYOUT))


def test_small_buckets_share_a_block():
    many = ((np.dtype(np.float32), 10),) * 200
    assert len(blocks_of(many, 1 << 19)) == 1
