"""JSON lines as a table: read twice, first to find out what every field holds, then to hand on its values."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json

from ..errors import SourceError
from .sources import PIECE_BYTES, size_of
from .tables import Table, TablePart

_MAX_LINE_BYTES = 1 << 28  # as of a row of CSV; a small compressed file may hold one without end
_MAX_DEPTH = 100  # of lists and objects inside of each other: parsers and schemas are recursive
_OPENS, _CLOSES, _QUOTE, _BREAK = 1, 2, 3, 4  # what a byte of JSON may do; 0: nothing
_STEPS = np.array([0, 1, -1, 0, 0], np.int8)
_KINDS = np.zeros(256, np.int8)
_KINDS[list(b"[{")], _KINDS[list(b"]}")], _KINDS[ord('"')], _KINDS[ord("\n")] = _OPENS, _CLOSES, _QUOTE, _BREAK


class JsonTable(Table):
    """Files with one JSON object per line, plain or compressed (.gz, .bz2, .zst).

    A field is what its values on all lines need together: integers and others are float64, lists are lists, text is
    text (also where it looks like a date), and the fields of an object become `object.field`. A field that a line does
    not have is a missing value. About `piece_bytes` bytes of whole lines are read at once.
    """

    kind = "json"

    def __init__(self, files: Sequence[Path], *, piece_bytes: int = PIECE_BYTES) -> None:
        self.files, self.num_bytes = tuple(files), size_of(files, "JSON lines")
        self._piece_bytes = piece_bytes
        schema, self._rows = pa.schema([]), []
        for path in self.files:
            rows = 0
            for block, _ in _blocks(path, piece_bytes):
                table = _parsed(block, path, rows)
                schema = _unified(schema, table.schema, path, rows)
                rows += table.num_rows
            self._rows.append(rows)
        self.schema, self.num_rows = schema, sum(self._rows)
        if not self.num_rows:
            raise SourceError(f"{self.files[0]} holds no JSON lines: it has 0 rows.", path=self.files[0])

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        # Whole objects are read: a column may be a field inside of one.
        done = bytes_before = 0
        for path, num_rows in zip(self.files, self._rows, strict=True):
            row = 0
            for block, num_bytes in _blocks(path, self._piece_bytes) if done + num_rows > first_row else ():
                table = _parsed(block, path, row, self.schema)
                skipped = min(table.num_rows, max(0, first_row - done - row))
                start = row
                for batch in table.slice(skipped).to_batches():
                    yield TablePart(batch, path, start + skipped, bytes_before + num_bytes)
                    start += batch.num_rows
                row += table.num_rows
            done, bytes_before = done + num_rows, bytes_before + path.stat().st_size


def _blocks(path: Path, block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a file, a block at once, and the bytes of the file that were read up to their end."""
    with pa.OSFile(str(path)) as raw:
        # What comes after the last line break waits for the next block.
        codec = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(path.suffix.lower())
        rest = b""
        try:
            stream = raw if codec is None else pa.CompressedInputStream(raw, codec)
            while data := stream.read(block_bytes):
                whole, line_break, after = (rest + data).rpartition(b"\n")
                rest = after
                if len(rest) > max(_MAX_LINE_BYTES, block_bytes):
                    raise SourceError(
                        f"{path} has a line of more than {_MAX_LINE_BYTES} bytes. JSON lines have one object per line.",
                        path=path,
                    )
                if line_break and whole.strip():
                    yield whole, raw.tell()
        except OSError as error:
            raise SourceError(f"{path} cannot be read as JSON lines: {error}", path=path) from error
        if rest.strip():
            yield rest, raw.tell()


def _parsed(block: bytes, path: Path, row: int, schema: pa.Schema | None = None) -> pa.Table:
    _check_depth(block, path, row)
    options = None
    if schema is not None:
        options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        return pyarrow.json.read_json(
            io.BytesIO(block),
            # One block: several would be inferred one by one.
            read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
            parse_options=options,
        )
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{path} cannot be read as JSON lines: {error} (counted from row {row} on). Every line should be one "
            "JSON object, with values of one kind per field.",
            path=path,
        ) from error


def _check_depth(block: bytes, path: Path, row: int) -> None:
    """Raise SourceError for a line whose values are nested too deep: it would end the process."""
    # Without these, a quotation mark begins or ends text, and the parity of their number so far says where it is open.
    unescaped = block.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in block else block
    kinds = _KINDS[np.frombuffer(unescaped, np.uint8)]
    kinds = kinds[kinds != 0]
    is_text = np.cumsum(kinds == _QUOTE, dtype=np.uint8) & 1
    steps = np.where(is_text, 0, _STEPS[kinds])
    too_deep = np.flatnonzero(np.cumsum(steps, dtype=np.int32) > _MAX_DEPTH)
    if too_deep.size:
        line = row + 1 + int(np.count_nonzero(kinds[: too_deep[0]] == _BREAK))
        raise SourceError(
            f"{path} has values nested more than {_MAX_DEPTH} deep in line {line}. Store them flat, or as text.",
            path=path,
        )


def _unified(schema: pa.Schema, found: pa.Schema, path: Path, row: int) -> pa.Schema:
    try:
        return pa.unify_schemas([schema, _text_for_times(found)], promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(
            f"{path} cannot be read as JSON lines: values from row {row} on are of another kind than those before "
            f"({error}). Every field needs values of one kind.",
            path=path,
        ) from error


def _text_for_times(schema: pa.Schema) -> pa.Schema:
    """Text that looks like a date was recognised as one: it stays text."""
    return pa.schema([(field.name, _text_for_time(field.type)) for field in schema])


def _text_for_time(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_text_for_time(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(n).name, _text_for_time(kind.field(n).type)) for n in range(kind.num_fields)])
    return kind
