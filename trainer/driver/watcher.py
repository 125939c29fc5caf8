"""Who is told of a run while it goes on: screens, and what keeps its numbers elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..events import EpochRecord, Event
from ..samples import Sample


class Watcher:
    """Does nothing; the base of all others. One thread calls the methods, in this order but for those in the middle."""

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Workers train the run in this folder, for the first time or again.

        Args:
            path: the run folder.
            record: what ``run.json`` says by now.
        """

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """An epoch that ended.

        Args:
            record: the epoch.
            epochs: number of the last one.
            seconds: how long it took.
        """

    def event(self, event: Event) -> None:
        """Anything else that happened, as ``events.jsonl`` has it."""

    def sample(self, sample: Sample) -> None:
        """How far the workers are, about once a second."""

    def end(self, record: Mapping[str, Any]) -> None:
        """The run is finished, paused or failed; `record` is what ``run.json`` says at its end."""

    def close(self) -> None:
        """Nothing more comes."""
