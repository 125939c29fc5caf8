"""Gathering rows from files whose chunks are decoded as a whole, through a bounded store of decoded chunks."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format.chunks import Skipped
from ..format.manifest import Column, Manifest
from ..format.memory import aligned_empty
from ..format.ragged import Ragged, splits_of
from ..format.runs import Runs, copy_runs
from ..format.shards import Values
from ..order.order import RowIds
from ..read.stored_reader import Stamps, StoredReader
from ..write.blocks import Block
from .chunk_source import PARQUET_SUFFIXES, ChunkFile, open_checked

DECODED_BYTES = 512 << 20
_AT_ONCE_BYTES = 64 << 20
_MAX_OPEN_FILES = 64


class ChunkReader(StoredReader):
    """Rows of some columns of a dataset in Parquet shards, or of Arrow and Parquet files of other programs.

    A chunk (row group, record batch) is decoded when its first row is asked for. The chunks used last are kept, up to
    `decoded_bytes` (512 MiB), and always the one that is read from now: a fully shuffled pass over a dataset that does
    not fit decodes chunks again and again, a window shuffle or the stored order does not. It warns of that. Up to 64
    files stay open.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        columns: Sequence[str] | None = None,
        *,
        skipped: Skipped | None = None,
        stamps: Stamps | None = None,
        decoded_bytes: int = DECODED_BYTES,
    ) -> None:
        super().__init__(folder, manifest, columns, skipped=skipped, stamps=stamps)
        self._files: OrderedDict[int, ChunkFile] = OrderedDict()
        self._decoded: OrderedDict[int, tuple[Block, int]] = OrderedDict()
        self._max_bytes, self._num_bytes, self._row_bytes = decoded_bytes, 0, 1.0
        # Values of Arrow files that are not compressed are not copied when they are decoded.
        self._is_mapped = any(not shard.file.lower().endswith(PARQUET_SUFFIXES) for shard in manifest.shards)
        self.num_decoded = self._num_again = 0
        self._was_dropped = np.zeros(len(self._chunks.first_rows), bool)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the chunks that are held decoded now."""
        return self._num_bytes

    def close(self) -> None:  # noqa: D102
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._decoded.clear()
        self._num_bytes = 0
        super().close()

    def _fill(self, ids: RowIds, arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, Values]:
        chunks = self._chunks.of_rows(ids)
        within = ids - self._chunks.first_rows[chunks]
        if self._is_mapped and ids.size:
            self._look_at_sizes(np.unique(self._chunks.shards[chunks]))
        by_chunk = np.argsort(chunks, kind="stable")
        cuts = np.flatnonzero(np.diff(chunks[by_chunk])) + 1
        parts: dict[str, list[tuple[RowIds, Ragged]]] = {n: [] for n, c in self._columns.items() if c.is_variable}
        for places in np.split(by_chunk, cuts) if ids.size else []:
            block, rows = self._chunk(int(chunks[places[0]])), within[places]
            for name, values in block.items():
                if isinstance(values, Ragged):
                    parts[name].append((places, values.take(rows)))
                else:
                    arrays[name][places] = values[rows]
        found: dict[str, Values] = dict(arrays)
        for name, ragged in parts.items():
            found[name] = _in_places(self._columns[name], ragged, ids.size)
        return found

    def _chunk(self, number: int) -> Block:
        held = self._decoded.get(number)
        if held is not None:
            self._decoded.move_to_end(number)
            return held[0]
        chunks = self._chunks
        block = self._file(int(chunks.shards[number])).load(int(chunks.numbers[number]), list(self._columns))
        num_bytes = sum(values.nbytes for values in block.values())
        self._row_bytes = max(1.0, num_bytes / max(1, int(chunks.num_rows[number])))
        self.num_decoded += 1
        if self._was_dropped[number]:
            self._count_again()
        while self._decoded and self._num_bytes + num_bytes > self._max_bytes:
            dropped, (_, freed) = self._decoded.popitem(last=False)
            self._num_bytes -= freed
            self._was_dropped[dropped] = True
        self._decoded[number] = (block, num_bytes)
        self._num_bytes += num_bytes
        return block

    def _count_again(self) -> None:
        """Count a chunk that was decoded, dropped and decoded anew; warn when it is as many as the dataset has."""
        self._num_again += 1
        if self._num_again == self._was_dropped.size:
            warnings.warn(
                f"Dataset {self._folder} does not fit the {self._max_bytes:,} bytes that are kept decoded, and its "
                f"{self._was_dropped.size:,} chunks (row groups) are decoded again and again, because rows are asked "
                'for from everywhere. Read it with shuffle="window", or convert it to Arrow shards, which need no '
                "decoding (heliostat convert SOURCE DESTINATION).",
                stacklevel=2,
            )

    def _file(self, number: int) -> ChunkFile:
        if number in self._files:
            self._files.move_to_end(number)
            return self._files[number]
        self._check_unchanged(number)
        if len(self._files) >= _MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        file = open_checked(self._folder, self._manifest, self._manifest.shards[number])
        self._files[number] = file
        self._is_open[number] = True
        return file


def _in_places(column: Column, parts: Sequence[tuple[RowIds, Ragged]], num_rows: int) -> Ragged:
    """Rows that were taken chunk by chunk, in the order asked."""
    if len(parts) == 1 and np.array_equal(parts[0][0], np.arange(num_rows)):
        return parts[0][1]
    lengths = np.zeros(num_rows, np.int64)
    sources, starts = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for number, (places, rows) in enumerate(parts):
        lengths[places], sources[places] = rows.lengths, number
        starts[places] = rows.row_splits[:-1] * column.element_bytes
    splits = splits_of(lengths)
    out = aligned_empty((int(splits[-1]), *column.shape), column.dtype)
    data = {number: rows.values.reshape(-1).view(np.uint8) for number, (_, rows) in enumerate(parts)}
    copy_runs(data, Runs(sources, starts, lengths, column.element_bytes), splits, out)
    return Ragged(out, splits, column.kind)
