"""What keeps the numbers of runs elsewhere: the interface of the trackers that come with Heliostat, and of yours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..driver.watcher import Watcher
from ..events import EpochRecord, Event
from ..samples import Sample

FOLDER = "trackers"  # in the run folder: what trackers write there


class Tracker(Watcher):
    """Keeps the numbers of runs somewhere; the base of your own, for ``Trainer(trackers=[...])``.

    Override the methods that you need. They are called in the process that called `fit`, on a thread of the tracker's
    own, one after another: for each run `begin`, then what happens in it, then `end`; `close` when the trainer is
    closed. `evaluate` and `predict` are not told. Training never waits for them, and what they raise fails no run:
    after an OSError (a server that does not answer, say) the same call is made again, later and later, until the run
    has been over for ten seconds; after any other exception the call is left out. A line on the screen tells the first
    of these, and at the end what is lacking.

    Attributes:
        sample_every_s: a sample is told so often at most; the last one of a run in any case.

    Example:
        >>> class Losses(Tracker):
        ...     def begin(self, path, record):
        ...         self.seen = []
        ...     def epoch(self, record, epochs, seconds):
        ...         self.seen.append(record.logs["loss"])
        >>> losses = Losses()
        >>> with Trainer(build_model, workers=0, trackers=[losses]) as tracked:
        ...     result = tracked.fit(x, y, epochs=2, verbose=0)
        >>> losses.seen == result.history["loss"]
        True
    """

    sample_every_s: float = 10.0

    @property
    def name(self) -> str:
        """What lines on the screen call it: the name of its class, unless you say otherwise."""
        return type(self).__name__

    @property
    def note(self) -> str:
        """A line for the screen, once a run has begun here, such as where it is seen; nothing, unless you say so."""
        return ""

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """A run begins, or goes on.

        Args:
            path: its folder.
            record: what ``run.json`` says by now: ``id`` names the run for ever, ``identity`` and ``plan`` say how it
                is computed.
        """

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """An epoch has ended.

        Args:
            record: the epoch: ``epoch`` (its number, from 0), ``logs`` (training and validation metrics), ``rows``,
                and more.
            epochs: number of the last one.
            seconds: how long it took.
        """

    def event(self, event: Event) -> None:
        """Anything else has happened: ``event.event`` names it, ``event.to_json()`` is its line in ``events.jsonl``."""

    def sample(self, sample: Sample) -> None:
        """How far the run is: ``step``, ``rows``, ``logs`` of the epoch that runs, and of each worker where its time
        has gone."""

    def end(self, record: Mapping[str, Any]) -> None:
        """The run is over: ``record["state"]`` is "finished", "paused", "failed" or "interrupted"."""

    def close(self) -> None:
        """No more runs come."""
