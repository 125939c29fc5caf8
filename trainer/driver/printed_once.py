"""What callbacks print, without what a chief that was lost had told before."""

from __future__ import annotations

from ..jobs import Printed

_KEPT = 1000  # hooks: a new chief runs those again that workers had not agreed on


class PrintedOnce:
    """Remembers the last hooks that have printed something."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int, int], dict[int, int]] = {}  # by hook, and by the worker that ran it

    def new_lines(self, printed: Printed) -> list[str]:
        """The lines to show; none if an earlier chief has told of this call of the hook."""
        by_worker = self._times.setdefault((printed.hook, printed.step, printed.epoch), {})
        by_worker[printed.worker] = times = by_worker.get(printed.worker, 0) + 1
        if len(self._times) > _KEPT:
            del self._times[next(iter(self._times))]
        told = (others for worker, others in by_worker.items() if worker != printed.worker)
        return printed.text.splitlines() if times > max(told, default=0) else []
