from __future__ import annotations

import pytest
from heliostat.cluster.allreduce.frames import (
    HEADER_BYTES,
    MAX_GOODBYE_BYTES,
    Cursor,
    Header,
    Kind,
    pack_goodbye,
    unpack_goodbye,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_a_cursor_moves_through_all_pieces_in_order(pieces, moves):
    cursor = Cursor(pieces)
    seen = b""
    turn = 0
    while cursor.done < cursor.total:
        window = b"".join(cursor.window(moves[turn % len(moves)]))
        moved = max(1, len(window) // 2)
        seen += window[:moved]
        cursor.advance(moved)
        turn += 1
    assert seen == b"".join(pieces)
    assert cursor.window(100) == []


def test_a_cursor_stops_at_its_limit():
    cursor = Cursor([b"header", b"payload"], limit=0)
    assert cursor.window(100) == []
    cursor.limit = 8
    assert b"".join(cursor.window(100)) == b"headerpa"


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_a_header_survives_the_wire(kind, generation, sequence, layout_checksum, length):
    header = Header(kind=kind, generation=generation, sequence=sequence, layout_checksum=layout_checksum, length=length)
    assert len(header.pack()) == HEADER_BYTES
    assert Header.unpack(header.pack()) == header


@pytest.mark.parametrize("reason", ["short", 'quotes " and \\ and \n' * 500, "ü" * 5000, ""])
def test_a_goodbye_always_fits_its_frame(reason):
    payload = pack_goodbye(reason)
    assert len(payload) <= MAX_GOODBYE_BYTES
    assert unpack_goodbye(payload) == reason.replace("ü", "?")[: len(payload)]


def test_a_goodbye_that_is_no_text_is_shown_as_far_as_it_is():
    assert unpack_goodbye(b"ok\xff\x00") == "ok?\x00"
