"""Recorders of spans: fixed room, per thread, off unless turned on."""

from __future__ import annotations

import threading
import time

from heliostat.cluster import instruments
from heliostat.cluster.instruments import CHECKPOINTS, STEPS, Recorder


def test_spans_come_back_as_they_were_noted():
    recorder = Recorder(4)
    recorder.on, recorder.step = True, 7
    recorder.add("compute", 1.0, 2.5, number=3)
    recorder.step = 8
    recorder.add("write", 2.0, 3.0, lane=CHECKPOINTS)
    first, second = recorder.spans()
    assert (first.name, first.step, first.number, first.lane) == ("compute", 7, 3, STEPS)
    assert (first.began_s, first.ended_s) == (1.0, 2.5)
    assert (second.name, second.step, second.number, second.lane) == ("write", 8, -1, CHECKPOINTS)


def test_what_finds_no_room_is_counted():
    recorder = Recorder(2)
    recorder.on = True
    for number in range(5):
        recorder.add("compute", 0.0, 1.0, number=number)
    assert [each.number for each in recorder.spans()] == [0, 1]
    assert recorder.dropped == 3


def test_nothing_is_kept_while_it_is_off_or_outside_of_the_block():
    recorder = Recorder(4)
    with instruments.recording(recorder):
        instruments.note("off", time.perf_counter())
        recorder.on = True
        instruments.note("on", time.perf_counter())
    instruments.note("outside", time.perf_counter())
    assert [each.name for each in recorder.spans()] == ["on"]


def test_every_thread_has_its_own():
    found = {}

    def work(name: str) -> None:
        recorder = Recorder(4)
        recorder.on = True
        with instruments.recording(recorder):
            both.wait()
            instruments.note(name, time.perf_counter())
        found[name] = [each.name for each in recorder.spans()]

    both = threading.Barrier(2, timeout=20)
    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {"a": ["a"], "b": ["b"]}


def test_blocks_nest():
    outer, inner = Recorder(1), Recorder(1)
    with instruments.recording(outer):
        with instruments.recording(inner):
            assert instruments.current() is inner
        assert instruments.current() is outer
    assert instruments.current() is None
