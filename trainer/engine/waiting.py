"""Where the time of a call of all workers goes: to moving and adding, to sleeping, and to changes of the group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heliostat.cluster.group.member import Member

from .times import TimeSplit


@contextmanager
def waiting(times: TimeSplit, member: Member, part: str, *, asleep: str) -> Iterator[None]:
    """In the block this worker makes a call with the others.

    Args:
        times: where this worker's time goes.
        member: its membership, which measures where it sleeps and takes part in changes of the group.
        part: what the block belongs to, but for both of these.
        asleep: the part that its sleep belongs to.
    """
    slept_before_s, regrouped_before_s = member.waited_s, member.regrouped_s
    with times.part(part, in_traces=False):
        yield
    times.move(member.regrouped_s - regrouped_before_s, part, "regroup")
    times.move(member.waited_s - slept_before_s, part, asleep)
