"""All that the folder of a run records of it, as one value: what reports, verdicts and comparisons are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import EpochRecord, Event
from ..samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run, as it was recorded.

    Attributes:
        record: what ``run.json`` says.
        epochs: those that are done.
        events: all of them, in their order.
        samples: those that were kept; none of a run that an earlier version made.
    """

    record: Mapping[str, Any]  # JSON
    epochs: tuple[EpochRecord, ...] = ()
    events: tuple[Event, ...] = ()
    samples: tuple[Sample, ...] = ()
