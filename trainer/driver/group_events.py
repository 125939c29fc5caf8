"""What happens in the group, as the events of a run: from the group's words, which know nothing of runs, to a file's.

Who asks says where a worker runs; an event carries the time at which it was made. Numbers are rounded here, as
``events.jsonl`` has them.
"""

from __future__ import annotations

from collections.abc import Callable

from heliostat.cluster.group import task
from heliostat.cluster.group.controller_state import Formed, WorkerDeath
from heliostat.cluster.group.task import GroupEvent
from heliostat.cluster.pace import Change, Measured

from ..checkpoints.store import InitialCheckpoint
from ..events import BalanceMeasured, Event, GroupFormed, Rebalanced, WorkerLate, WorkerLost, WorkerNotStarted


def event_of_run(event: GroupEvent, host_of: Callable[[int], str]) -> Event | None:
    """The event of the run; None for what is none: what a worker says, and what begins at another checkpoint.

    Args:
        event: of the group.
        host_of: the name of a worker's machine.
    """
    match event:
        case WorkerDeath(failure=lost, num_left=left):
            host = host_of(lost.worker)
            return WorkerLost(worker=lost.worker, host=host, step=lost.step, reason=lost.reason, left=left)
        case task.WorkerNotStarted(failure=lost, again_s=again_s):
            host = host_of(lost.worker)
            return WorkerNotStarted(worker=lost.worker, host=host, reason=lost.reason, again_s=again_s)
        case task.WorkerLate(worker=worker, heartbeat=heartbeat, stacks=stacks):
            return WorkerLate(
                worker=worker,
                host=host_of(worker),
                step=heartbeat.step,
                activity=heartbeat.activity.value,
                activity_s=round(heartbeat.activity_s, 3),
                stacks=stacks,
            )
        case Formed():
            return _formed(event, host_of)
        case task.Rebalanced(change=change):
            return _rebalanced(change, host_of)
        case Measured(change=change, step_s=step_s):
            return BalanceMeasured(
                before_s=round(change.step_s, 6),
                expected_s=round(change.expected_s, 6),
                step_s=None if step_s is None else round(step_s, 6),
            )
    return None


def _formed(formed: Formed, host_of: Callable[[int], str]) -> GroupFormed:
    began_from = formed.initial_state
    return GroupFormed(
        generation=formed.generation,
        workers=formed.members,
        joined=formed.joined,
        hosts={worker: host_of(worker) for worker in formed.joined},
        restarted=formed.restarted,
        checkpoint=began_from.name if isinstance(began_from, InitialCheckpoint) else None,
    )


def _rebalanced(change: Change, host_of: Callable[[int], str]) -> Rebalanced:
    before, after = (
        {worker: hi - lo for worker, (lo, hi) in zip(change.members, ranges, strict=True)}
        for ranges in (change.before, change.after)
    )
    return Rebalanced(
        before=before,
        after=after,
        hosts={worker: host_of(worker) for worker in change.members},
        compute_s={worker: round(seconds, 6) for worker, seconds in change.times_s.items()},
        step_s=round(change.step_s, 6),
        expected_s=round(change.expected_s, 6),
    )
