"""What is made ahead is what would be made when it is taken, with its errors in place, and nothing is left."""

from __future__ import annotations

import threading

import pytest
from heliostat.data.read.ahead import Ahead, made_in_order


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("test-ahead")]


@pytest.fixture
def gate():
    return threading.Event()


def make(gate: threading.Event, made: list[tuple[int, str]]):
    def one(key: int) -> int:
        if threading.current_thread().name.startswith("test-ahead"):
            assert gate.wait(60)
        made.append((key, threading.current_thread().name))
        if key < 0:
            raise ValueError(f"no {key}")
        return key * 10

    return one


def test_what_was_told_is_made_by_a_thread_and_what_was_not_by_who_takes_it(gate):
    made: list[tuple[int, str]] = []
    gate.set()
    ahead = Ahead(make(gate, made), name="test-ahead")
    assert ahead.take(1) == 10
    assert threads() == []
    ahead.prefetch([2])
    assert ahead.take(2) == 20
    assert [name.startswith("test-ahead") for _, name in made[:1]] == [False]
    ahead.close()
    assert threads() == []


def test_an_error_comes_where_its_key_is_taken(gate):
    gate.set()
    ahead = Ahead(make(gate, []), name="test-ahead", num_threads=2)
    ahead.prefetch([1, -1, 2])
    assert ahead.take(1) == 10
    with pytest.raises(ValueError, match="no -1"):
        ahead.take(-1)
    assert ahead.take(2) == 20
    ahead.close()


def test_what_is_no_longer_told_is_not_begun(gate):
    made: list[tuple[int, str]] = []
    ahead = Ahead(make(gate, made), name="test-ahead")
    ahead.prefetch([1, 2, 3])
    ahead.prefetch([4])
    gate.set()
    assert ahead.take(4) == 40
    ahead.close()
    assert [key for key, _ in made if key in (2, 3)] == []


def test_nothing_runs_after_settling(gate):
    made: list[tuple[int, str]] = []
    ahead = Ahead(make(gate, made), name="test-ahead", num_threads=3)
    ahead.prefetch(list(range(9)))
    gate.set()
    ahead.settle()
    count = len(made)
    assert ahead.take(5) == 50
    assert len(made) == count + 1
    ahead.close()
    ahead.close()
    assert threads() == []


def test_items_come_in_order_with_what_was_made_and_nothing_runs_after_the_end():
    made = [
        (item, future.result()) for item, future in made_in_order(lambda item: -item, range(20), name="heliostat-t")
    ]
    assert made == [(item, -item) for item in range(20)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heliostat-t")]


def test_what_items_raise_comes_after_those_before_it():
    def items():
        yield from (1, 2, 3)
        raise OSError("no more")

    taking = made_in_order(lambda item: 10 * item, items(), name="heliostat-t")
    assert [next(taking)[1].result() for _ in range(3)] == [10, 20, 30]
    with pytest.raises(OSError, match="no more"):
        next(taking)


def test_what_cannot_be_made_is_told_with_its_item_and_closing_ends_the_threads():
    taking = made_in_order(lambda item: 1 // item, [1, 0, 2, 3, 4, 5], name="heliostat-t")
    assert next(taking)[1].result() == 1
    with pytest.raises(ZeroDivisionError):
        next(taking)[1].result()
    taking.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heliostat-t")]
