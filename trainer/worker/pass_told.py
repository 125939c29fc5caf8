"""How far a worker is in a pass without training, told to the driver now and then: its shard may take hours."""

from __future__ import annotations

import time

from heliostat.cluster.group.member import Member

from ..pass_messages import PassProgress

_EVERY_S = 1.0


class PassTold:
    """Counts rows.

    Args:
        member: this worker's membership.
    """

    def __init__(self, member: Member) -> None:
        self._member, self._rows, self._next_s = member, 0, time.monotonic() + _EVERY_S

    def add(self, rows: int) -> None:
        """So many more rows are computed."""
        self._rows += rows
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._member.send(PassProgress(rows=self._rows))
            self._rows, self._next_s = 0, now_s + _EVERY_S
