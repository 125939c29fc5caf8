"""On a slow machine tests wait longer, and a watch that speaks ends nothing."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading

import pytest

from .slow import stretch_waits, watch


@pytest.fixture
def stretched():
    end = stretch_waits(1e6)
    yield
    end()


def test_limits_of_waits_in_tests_are_multiplied(stretched):
    """Each of these would be over its limit of some microseconds."""
    late, found = threading.Event(), queue.Queue()
    thread = threading.Thread(target=lambda: (found.put(1), late.set()))
    thread.start()
    assert found.get(timeout=1e-5) == 1
    assert late.wait(1e-5)
    thread.join(1e-5)
    assert not thread.is_alive()
    done = subprocess.run([sys.executable, "-c", "print(3)"], capture_output=True, timeout=1e-4, check=True)
    assert done.stdout == b"3\n"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert process.wait(1e-4) == 0


def test_waits_are_as_before_afterwards():
    before = threading.Event.wait
    end = stretch_waits(2.0)
    assert threading.Event.wait is not before
    end()
    assert threading.Event.wait is before


def test_a_watch_says_where_a_test_stands_and_ends_nothing():
    reading, writing = os.pipe()
    timer = watch("test_x", writing, wait_s=0.01)
    timer.join()
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    assert text.startswith("\ntest_x has run for 0 s, and goes on. Its threads:")
    assert "test_a_watch_says_where_a_test_stands" in text
