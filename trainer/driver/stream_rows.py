"""The rows of a stream, one after the other, however its batches cut them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..columns import Columns
from ..errors import ConfigurationError
from .arrays import Rows
from .streams import Batch, Stream


class StreamRows:
    """The rows of a stream, one after the other, however its batches cut them.

    Args:
        stream: where they come from; begun anew at its end.
        columns: which are read.
        batches: instead of all of the stream's, these alone.

    Attributes:
        num_passes: how many times the stream has come to its end.
    """

    def __init__(self, stream: Stream, columns: Columns, batches: Iterable[Batch] | None = None) -> None:
        self._stream, self._columns = stream, columns
        self._batches = stream.batches() if batches is None else iter(batches)
        self._pieces: deque[dict[str, Rows]] = deque()  # rows that were read and not taken yet
        self._num_batches = self._num_rows = 0
        self.num_passes = 0

    def skip(self, num_rows: int) -> None:
        """Pass over rows."""
        while num_rows:
            piece = self._next(num_rows)
            num_rows -= _len(piece)

    def take(self, num_rows: int) -> dict[str, Rows]:
        """The next rows by column: arrays ``[num_rows, ...]``, or lists of texts."""
        pieces = []
        while num_rows:
            pieces.append(self._next(num_rows))
            num_rows -= _len(pieces[-1])
        return {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]}

    def _next(self, most: int) -> dict[str, Rows]:
        """Some rows, at least one and at most so many."""
        if not self._pieces:
            self._pieces.append(self._read())
        piece = self._pieces.popleft()
        if _len(piece) > most:
            self._pieces.appendleft({name: rows[most:] for name, rows in piece.items()})
            piece = {name: rows[:most] for name, rows in piece.items()}
        return piece

    def _read(self) -> dict[str, Rows]:
        """The rows of the next batch that has some."""
        while True:
            batch = next(self._batches, None)
            if batch is None:
                if not self._num_rows:
                    raise ConfigurationError(f"data is a {self._stream.kind} that gave no rows.")
                self._batches, self._num_rows, self.num_passes = self._stream.batches(), 0, self.num_passes + 1
                continue
            found = self._stream.by_column(batch, self._columns, self._num_batches)
            self._num_batches += 1
            if _len(found):
                self._num_rows += _len(found)
                return found


def _len(rows: Mapping[str, Rows]) -> int:
    return len(next(iter(rows.values())))


def _joined(pieces: Sequence[Rows]) -> Rows:
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], list):
        return [text for piece in pieces for text in piece]
    return np.concatenate(pieces)
