"""What happens in the group becomes events of the run: rounded, and with the names of machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat.cluster.group import task
from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.liveness import Activity, Heartbeat
from heliostat.cluster.group.messages import Failure, InitialStateChanged, TaskEvent
from heliostat.cluster.pace import Change, Measured
from heliostat.trainer.checkpoints.store import InitialCheckpoint
from heliostat.trainer.driver.group_events import event_of_run
from heliostat.trainer.events import BalanceMeasured, GroupFormed, Rebalanced, WorkerLate, WorkerLost, WorkerNotStarted

LOST = Failure(worker=3, kind="died", reason="it was killed", step=7)
CHANGE = Change(
    members=(1, 3),
    before=((0, 2), (2, 4)),
    after=((0, 3), (3, 4)),
    times_s={1: 0.10000001, 3: 0.3},
    step_s=1.00000001,
    expected_s=0.5,
)


def host_of(worker):
    return f"host-{worker}"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            WorkerDeath(failure=LOST, num_left=2),
            WorkerLost(time=0.0, worker=3, host="host-3", step=7, reason="it was killed", left=2),
        ),
        (
            task.WorkerNotStarted(failure=LOST, again_s=4.0),
            WorkerNotStarted(time=0.0, worker=3, host="host-3", reason="it was killed", again_s=4.0),
        ),
        (
            task.WorkerLate(
                worker=1, heartbeat=Heartbeat(activity=Activity.READ, activity_s=1.23456, step=7), stacks="s"
            ),
            WorkerLate(time=0.0, worker=1, host="host-1", step=7, activity="reading", activity_s=1.235, stacks="s"),
        ),
        (
            Formed(
                generation=2,
                members=(1, 3),
                joined=(3,),
                restarted=False,
                initial_state=InitialCheckpoint(location="/x", name="n"),
            ),
            GroupFormed(
                time=0.0,
                generation=2,
                workers=(1, 3),
                joined=(3,),
                hosts={3: "host-3"},
                restarted=False,
                checkpoint="n",
            ),
        ),
        (
            task.Rebalanced(change=CHANGE),
            Rebalanced(
                time=0.0,
                before={1: 2, 3: 2},
                after={1: 3, 3: 1},
                hosts={1: "host-1", 3: "host-3"},
                compute_s={1: 0.1, 3: 0.3},
                step_s=1.0,
                expected_s=0.5,
            ),
        ),
        (
            Measured(change=CHANGE, step_s=None),
            BalanceMeasured(time=0.0, before_s=1.0, expected_s=0.5, step_s=None),
        ),
    ],
)
def test_what_happens_in_the_group_is_an_event_of_the_run(event, expected):
    found = event_of_run(event, host_of)
    assert found is not None
    assert replace(found, time=0.0) == expected


@pytest.mark.parametrize("event", [TaskEvent(worker=1, content=3), InitialStateChanged(initial_state=None)])
def test_what_a_worker_says_is_none(event):
    assert event_of_run(event, host_of) is None
