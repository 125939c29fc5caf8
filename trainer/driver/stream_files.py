"""From a stream to a dataset: all of it, or what a task takes of it, or its rows as they arrive.

Three cases, by what the task takes (`Taken`) and what is known of the stream's end:

- a pass over all rows: the stream is written to its end, once, and every pass has these rows;
- a number of batches, of a stream that has no more (as it says, or as is seen in its first `LOOK_AHEAD` batches): the
  same, and `BatchPlan` makes epochs of them as Keras does;
- a number of batches of a longer stream: exactly these, as they arrive (`supply.py`), or, where nobody will go on
  reading it, before the task begins.
"""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.data import Dataset, DatasetWriter
from heliostat.data.order.parts import Parts
from heliostat.data.views.arriving import ArrivingDataset, part_path, write_description

from ..columns import Columns
from ..config import FitConfig, PassConfig
from ..errors import ConfigurationError
from .arrays import Rows
from .stream_rows import StreamRows
from .streams import ENDLESS, UNKNOWN, Stream

LOOK_AHEAD, LOOK_AHEAD_BYTES = 64, 64 << 20
PART_BYTES, MOST_BATCHES = 32 << 20, 64
LEAST_FREE_BYTES = 512 << 20
LONG_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How much of a stream a task takes.

    Attributes:
        num_batches: global batches.
        batch_rows: rows of each.
        arrives: whether rows may arrive while the task runs.
    """

    num_batches: int
    batch_rows: int
    arrives: bool = False

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return self.num_batches * self.batch_rows


def taken_by_fit(wanted: FitConfig, *, arrives: bool = False) -> Taken | None:
    """How much of a stream a run takes; None for all of it in every epoch. `arrives` as in `Taken`."""
    if wanted.steps_per_epoch is None:
        return None
    num_batches = (wanted.epochs - wanted.initial_epoch) * wanted.steps_per_epoch
    return Taken(num_batches=num_batches, batch_rows=wanted.global_batch_size, arrives=arrives)


def taken_by_pass(wanted: PassConfig) -> Taken | None:
    """How much of a stream a pass without training takes: its first batches, or all."""
    return None if wanted.steps is None else Taken(num_batches=wanted.steps, batch_rows=wanted.global_batch_size)


def write_stream(stream: Stream, place: Path, columns: Columns, taken: Taken | None, argument: str) -> Dataset:
    """Make a dataset of a stream, in its order, in bounded memory.

    Args:
        stream: gives the rows.
        place: the folder that is made.
        columns: which are read.
        taken: how much of it; None takes all.
        argument: by which the user can say how much, for messages.

    Raises:
        ConfigurationError: the stream never ends, is empty, or a batch does not fit `columns`.
        DatasetError: rows cannot be stored.
    """
    if not stream.first:
        raise ConfigurationError(
            f"data is a {stream.kind} which gave no batch. It must give at least one, each time it is begun: look "
            "whether it was used up before, or its files are empty."
        )
    if taken is None and stream.num_batches == ENDLESS:
        raise ConfigurationError(
            f"data is a {stream.kind} that repeats for ever, and nothing says how much of it to take. Say {argument}=, "
            "the number of its batches; or leave out repeat(), or end it with take(number)."
        )
    if place.exists():
        shutil.rmtree(place)
    if taken is None:
        return _written(stream, place, columns, argument=argument)
    first, is_all = _looked_at(stream, taken)
    if is_all:
        return _written(stream, place, columns)
    if taken.arrives:
        return _begun(place, taken, StreamRows(stream, columns, first).take(taken.batch_rows))
    return _written(stream, place, columns, taken.num_rows)


def _looked_at(stream: Stream, taken: Taken) -> tuple[list[tuple[object, ...]], bool]:
    """The stream's first batches, at least a global batch, and whether it has no more than are taken."""

    def wanted(batches: int, rows: int, num_bytes: int) -> bool:
        more = stream.num_batches == UNKNOWN and batches < LOOK_AHEAD and num_bytes < LOOK_AHEAD_BYTES
        return rows < taken.num_rows and (rows < taken.batch_rows or more)

    first, is_all = stream.look_ahead(wanted)
    known = stream.num_batches
    return first, is_all or 0 <= known * stream.batch_rows <= taken.num_rows


def _written(
    stream: Stream, place: Path, columns: Columns, num_rows: int | None = None, *, argument: str = ""
) -> Dataset:
    """The dataset of all rows, or of the first ones; with an argument, a long one of unknown length is told about."""
    number, told, num_bytes = 0, not argument or stream.num_batches != UNKNOWN, 0
    with DatasetWriter(place, overwrite=True) as writer:
        for batch in stream.batches():
            _check_room(stream, place, writer.rows_written)
            rows = stream.by_column(batch, columns, number)
            left = None if num_rows is None else num_rows - writer.rows_written
            writer.write(rows if left is None else {name: each[:left] for name, each in rows.items()})
            number += 1
            num_bytes += sum(int(getattr(each, "nbytes", 0)) for each in rows.values())
            if not told and num_bytes > LONG_BYTES:
                told = True
                _tell_length(stream, place, writer.rows_written, argument)
            if num_rows is not None and writer.rows_written >= num_rows:
                break
    return writer.dataset


def _check_room(stream: Stream, place: Path, num_rows: int) -> None:
    """Raise ConfigurationError before a stream fills the disk: it may have no end."""
    free = shutil.disk_usage(place.parent).free
    if free < LEAST_FREE_BYTES:
        raise ConfigurationError(
            f"{stream.kind} has given {num_rows:,} rows so far, and the disk of {place.parent} has {free >> 20:,} MiB "
            "left. A stream without an end needs steps_per_epoch= (validation_steps=, steps=); one that is this long "
            "needs another run_dir, or steps_per_epoch=, with which rows are read while they are trained on."
        )


def _tell_length(stream: Stream, place: Path, num_rows: int, argument: str) -> None:
    warnings.warn(
        f"{stream.kind} has given {num_rows:,} rows so far; all that it gives is written to {place} before the first "
        f"step. If it never ends, stop this with Ctrl-C and say {argument}=, the number of its batches.",
        stacklevel=2,
    )


def _begun(place: Path, taken: Taken, first: Mapping[str, Rows]) -> Dataset:
    """An arriving dataset whose first part is there."""
    place.mkdir(parents=True)
    with DatasetWriter(part_path(str(place), 0, 1)) as writer:
        writer.write(first)
    batch_bytes = sum(shard.num_bytes for shard in writer.dataset.shards)
    most = max(1, min(MOST_BATCHES, PART_BYTES // batch_bytes))
    found = ArrivingDataset(
        str(place),
        identity=uuid.uuid4().hex,
        columns=writer.dataset.schema,
        parts=Parts(num_batches=taken.num_batches, most=1 << (most.bit_length() - 1)),
        batch_rows=taken.batch_rows,
    )
    write_description(found)
    return found
