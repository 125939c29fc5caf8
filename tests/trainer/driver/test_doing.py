"""What workers do in words, and lines of what lasts."""

from __future__ import annotations

import pytest
from heliostat.cluster.group.liveness import Activity, Heartbeat
from heliostat.trainer.driver.doing import Doing, doing_of

HOSTS = {0: "a", 1: "b"}
PASS = Doing(what="validation", done=10, total=40, unit="rows")


def what(passed: Doing | None = None, **beats: tuple[Activity, float]) -> str | None:
    heartbeats = {
        int(worker[1:]): Heartbeat(activity=activity, activity_s=seconds, step=7)
        for worker, (activity, seconds) in beats.items()
    }
    found = doing_of(heartbeats, HOSTS, "building the model", passed)
    return None if found is None else found.what


@pytest.mark.parametrize(
    ("beats", "said"),
    [
        ({"w0": (Activity.COMPUTE, 0.1), "w1": (Activity.ALL_REDUCE, 0.3)}, None),
        ({"w0": (Activity.COMPUTE, 9.0), "w1": (Activity.ALL_REDUCE, 8.0)}, "step 7: compute, on worker 0 on a"),
        ({"w0": (Activity.COMPUTE, 0.1), "w1": (Activity.READ, 6.0)}, "step 7: reading, on worker 1 on b"),
        ({"w0": (Activity.CALLBACKS, 2.0), "w1": (Activity.AWAIT_CALLBACKS, 2.0)}, "callbacks, on worker 0 on a"),
        ({"w0": (Activity.CALLBACKS, 0.2), "w1": (Activity.AWAIT_CALLBACKS, 0.2)}, None),
        ({"w0": (Activity.SET_UP, 0.2), "w1": (Activity.LOAD, 3.0)}, "building the model"),
        ({"w0": (Activity.COMPUTE, 0.2), "w7": (Activity.SET_UP, 30.0)}, None),
        ({"w0": (Activity.SAVE, 30.0), "w1": (Activity.END, 30.0)}, "writing the state, on worker 0 on a"),
        ({"w1": (Activity.REGROUP, 3.0)}, "connecting the workers anew"),
        ({"w9": (Activity.COPY, 3.0)}, "copying the state, on worker 9 on an unknown host"),
        ({}, None),
    ],
)
def test_what_workers_do(beats, said):
    assert what(**beats) == said


def test_a_pass_says_how_far_it_is_unless_callbacks_hold_all_up():
    assert what(PASS, w0=(Activity.READ, 0.1), w1=(Activity.AWAIT_VALIDATION, 9.0)) == "validation"
    assert what(PASS, w0=(Activity.CALLBACKS, 3.0)) == "callbacks, on worker 0 on a"


def test_lines():
    assert PASS.line(0.4) == "validation: 10 of 40 rows, 0 s"
    assert PASS.line(20) == "validation: 10 of 40 rows, 20 s, 0.5 rows/s, about 1 min left"
    assert Doing(what="reading", done=12_500_000, unit="bytes").line(3) == "reading: 12.5 MB, 3 s, 4.2 MB/s"
    assert Doing(what="sending", done=5 * 10**6, total=10**7, unit="bytes").progress() == "5.0 of 10.0 MB"
    assert Doing(what="waiting").line(12.6) == "waiting: 13 s"
    assert Doing.from_json(PASS.to_json()) == PASS
