"""The rows of a stream that is read while a run trains on it: written ahead of the steps, deleted behind them.

A source without an end (or one that is much longer than a run) is read by a thread of the driver's, exactly as far as
the run needs it: every epoch goes on where the one before has ended, as in Keras, so a run of E epochs of S steps takes
E × S global batches. They are written as the parts of an `ArrivingDataset`, a few parts ahead of where the workers are
(these say when they come to a part, `jobs.RowsWanted`), and read from there like any rows: by every worker, over again
by those that take over a lost one's, on machines without this disk through the driver. What lies before the oldest
checkpoint that is kept nobody will need again: it is deleted, so the disk holds a stretch of the source and no more.

A run that goes on first takes the rows that are there. Where these end, the source is begun anew and as many of its
rows are passed over as the run has had: exact for a source that gives the same rows each time, as it would be for one
that is read without a stop. So does a source that ends too early begin anew; a short one, that ends within the first
`stream_files.LOOK_AHEAD` batches, is written whole before the run begins, and makes epochs as Keras makes them of it.

What was not done: keeping the source's own position, which only few sources have; sending rows to the workers, which
would then have to keep them for each other.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.cluster.group.messages import InitialStateChanged, TaskEvent
from heliostat.cluster.group.task import GroupEvent
from heliostat.data import DatasetWriter, open_dataset, write_dataset
from heliostat.data.views.arriving import ENDED, ArrivingDataset, part_path

from ..checkpoints.manifest import CheckpointManifest
from ..jobs import FitJob, RowsWanted
from ..storage_thread import StorageThread, telling
from .stream_rows import StreamRows
from .streams import Stream

PARTS_AHEAD = 2
_LEAVE_S = 2.0


def supply_of(
    stream: Stream | None, job: FitJob, manifest: CheckpointManifest | None, say: Callable[[str], None]
) -> Supply | None:
    """What writes the rows of a run's data while it trains; None where they are all there.

    Args:
        stream: what they come from.
        job: the run.
        manifest: of the checkpoint that it goes on from; None at its beginning.
        say: shows a line to the user.
    """
    if stream is None or not isinstance(job.data, ArrivingDataset):
        return None
    supply = Supply(stream, job, job.data, say)
    supply.start(0 if manifest is None else supply.batch_at(manifest.epoch, manifest.step))
    return supply


class Supply:
    """Writes the parts of an arriving dataset, in a thread of its own, until all are there or it is closed.

    Args:
        stream: the source.
        job: the run.
        dataset: its data; the first part is there.
        say: shows a line to the user.

    Attributes:
        error: what the source has raised; None while it has raised nothing.
    """

    def __init__(self, stream: Stream, job: FitJob, dataset: ArrivingDataset, say: Callable[[str], None]) -> None:
        self._stream, self._job, self._dataset, self._say = stream, job, dataset, say
        self._folder = Path(dataset.folder)
        self._needed = self._wanted = 0  # the parts that workers are at, now and at most
        self._kept: deque[int] = deque(maxlen=job.wanted.keep)  # where the checkpoints are that are kept
        self._changed = threading.Condition()
        self._is_closed = False
        self.error: BaseException | None = None
        self._deleter: StorageThread[int] = StorageThread(self._delete_before, name="heliostat-old-rows")

    def batch_at(self, epoch: int, step: int) -> int:
        """The batch, counted over the run, that comes next at a step of an epoch."""
        return (epoch - self._job.wanted.initial_epoch) * self._job.num_steps + step

    def start(self, batch: int) -> None:
        """Begin; `batch` is the first that the run will be trained on."""
        parts = self._dataset.parts
        first = parts.part_of(min(batch, parts.num_batches - 1))
        self._needed = self._wanted = first
        if batch:
            self._kept.append(batch)
            self._say(
                f"the rows of {self._stream.kind} in the run folder are used first; then it is begun anew, and the "
                "rows that the run has had are passed over"
            )
        shutil.rmtree(self._folder / ENDED, ignore_errors=True)
        self._deleter.start()
        self._thread = threading.Thread(target=self._run, args=(first,), name="heliostat-supply", daemon=True)
        self._thread.start()

    def take(self, event: GroupEvent) -> None:
        """Take what happens in the group; never waits."""
        match event:
            case TaskEvent(content=RowsWanted(part=part)):
                with self._changed:
                    self._needed, self._wanted = part, max(self._wanted, part)
                    self._changed.notify()
            case InitialStateChanged(position=(epoch, step)):
                self._kept.append(self.batch_at(epoch, step))
                if len(self._kept) == self._kept.maxlen:
                    self._deleter.put(self._kept[0])

    def close(self, num_rows: int | None = None) -> None:
        """Read no more; whoever waits for a part is told that none comes. A second call does nothing.

        Args:
            num_rows: how many the run was trained on, if it is over: parts after them are deleted.
        """
        with self._changed:
            is_first, self._is_closed = not self._is_closed, True
            self._changed.notify()
        if not is_first:
            return
        self._thread.join(_LEAVE_S)  # the source may take any time for its next batch
        self._deleter.end(_LEAVE_S)
        if num_rows is not None:
            self._keep_before(max(1, -(-num_rows // self._dataset.batch_rows)))
        self._end("the run is over")

    def _keep_before(self, batch: int) -> None:
        """Delete what was read ahead, and not trained on: all from this batch on."""
        dataset, parts = self._dataset, self._dataset.parts
        for part in range(parts.part_of(min(batch, parts.num_batches) - 1), len(parts)):
            path, (first, end) = Path(dataset.part_path(part)), parts.batches(part)
            if end <= batch:
                continue
            if not path.is_dir():
                return
            if first < batch:  # a part that ends there: one of this name is of no other number of batches
                with open_dataset(path).reader() as reader:
                    kept = reader.gather(np.arange((batch - first) * dataset.batch_rows))
                self._write(part_path(dataset.folder, first, batch), kept)
            shutil.rmtree(path, ignore_errors=True)

    def _delete_before(self, batch: int, _: float) -> None:
        """Nobody will need the batches before this one: delete the parts that hold nothing else, but for the first."""
        parts = self._dataset.parts
        for part in range(parts.part_of(min(batch, parts.num_batches - 1)), 0, -1):
            path = Path(self._dataset.part_path(part))
            if parts.batches(part)[1] <= batch:
                if not path.is_dir():
                    return
                shutil.rmtree(path, ignore_errors=True)

    def _run(self, first: int) -> None:
        try:
            self._write_parts(first)
        except BaseException as error:
            self.error = error
            self._end(f"it raised {type(error).__name__}: {error}")

    def _write_parts(self, first: int) -> None:
        dataset, at, passes = self._dataset, 0, 0
        missing = [part for part in range(first, len(dataset.parts)) if not Path(dataset.part_path(part)).is_dir()]
        rows: StreamRows | None = None
        for part in missing:
            if not self._may_write(part):
                return
            rows = rows or StreamRows(self._stream, self._job.wanted.columns)
            first_row, end = dataset.rows_of(part)
            with telling(partial(self._tell, part)):
                rows.skip(first_row - at)
                found = rows.take(end - first_row)
            at = end
            if rows.num_passes > passes:
                passes = rows.num_passes
                self._say(f"{self._stream.kind} has come to its end before row {end:,}: it is begun anew")
            self._write(dataset.part_path(part), found)

    def _write(self, path: str, rows: Mapping[str, Any]) -> None:
        with DatasetWriter(path, columns=list(self._dataset.schema.values()), overwrite=True) as writer:
            writer.write(rows)

    def _may_write(self, part: int) -> bool:
        """Wait until a part is to be written; False if none is any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or part <= self._wanted + PARTS_AHEAD)
            return not self._is_closed

    def _tell(self, part: int, seconds: float) -> None:
        if part <= self._needed:
            self._say(f"training has waited {seconds:.0f} s for the next batches of {self._stream.kind}")

    def _end(self, reason: str) -> None:
        write_dataset(self._folder / ENDED, {"reason": [reason]}, overwrite=True)
