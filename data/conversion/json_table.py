"""JSON lines as a table: read twice, first to find out what every field holds, then to hand on its values.

Arrow's reader is fast, and its own types are wrong at the edges: whole numbers beyond int64, and beside a fraction, are
read as floats without a word. So the first reading takes its types for what they nearly always are, and reads a block
anew, by Python and with numbers as the text that they are, where a float reaches 2^53 (only from there on a whole
number can have lost something) or may have become zero. The second reading tells Arrow the types that were decided in
`text_values`; where a number must stay text, which Arrow refuses, Python reads. A second reading as decimals was not
taken: decimals hold neither 1e300 nor the text of a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ..errors import SourceError
from ..read.ahead import made_in_order
from .json_text import check_text
from .sources import PIECE_BYTES
from .tables import without_first
from .text_blocks import TextBlocks
from .text_tables import TextTable
from .text_values import Asked, ColumnScan

_NAN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?\bNaN\b', re.DOTALL)
_TINY = re.compile(rb"[eE]-[0-9]{3}")
_Rows: TypeAlias = npt.NDArray[np.int64]


class _Number(str):
    """A number as it is written."""


class JsonTable(TextTable):
    """Files with one JSON object per line, plain or packed (.gz, .bz2, .zst).

    A field is what its values on all lines need together, without a loss: int64, uint64, float64, or text for numbers
    that none of them holds. Lists are lists, text is text (also where it looks like a date), and the fields of an
    object become `object.field`. A field that a line does not have is a missing value, and so are null and NaN.

    Args:
        files: Paths.
        asked: By column, what it is read as whatever it holds.
        piece_bytes: About so many bytes of whole lines are read at once.

    Raises SourceError.
    """

    kind, what = "json", "JSON lines"
    has_codes, counted_from = False, 0
    missing_text = "{path}: Column {name} has {count}, the first in {row} (not there, null or NaN)"

    def __init__(
        self, files: Sequence[Path], *, asked: Mapping[str, Asked] | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        super().__init__(files, asked, piece_bytes)
        self._has_text_numbers = False
        self._blocks: dict[Path, TextBlocks] = {}
        found = pa.schema([])
        for path in self.files:
            self._rows.append(0)
            for block, table in self._tables(path, None):
                found = _unified(found, table.schema, path, self._rows[-1])
                self._scan(block, table, path, self._rows[-1])
                self._rows[-1] += table.num_rows
        self.num_rows = sum(self._rows)
        if not self.num_rows:
            raise SourceError(f"{self.files[0]} holds no JSON lines: it has 0 rows.", path=self.files[0])
        self.schema = self._written = _changed(found, self._decided)

    def _batches(self, path: Path, skipped: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # Whole objects are read: a column may be a field inside of one.
        del names
        tables = self._tables(path, self._written)
        yield from without_first(
            (batch for _, table in tables for batch in table.combine_chunks().to_batches()), skipped
        )

    def _tables(self, path: Path, schema: pa.Schema | None) -> Iterator[tuple[bytes, pa.Table]]:
        """Blocks of lines, and what is in them: of types that are found for each, the first time, or of the schema."""
        if schema is None:
            self._blocks[path] = TextBlocks(path, self.what, self._block_bytes, lambda data: data.rfind(b"\n") + 1)
        blocks = self._blocks[path].first() if schema is None else self._blocks[path].again()
        row = 0
        making = made_in_order(lambda raw: self._table(raw, path, 0, schema), blocks, name="heliostat-json")
        with closing(making):
            for raw, made in making:
                # What cannot be read is read again, for the sake of the error, with its row as the file counts it.
                block, table = made.result() if made.exception() is None else self._table(raw, path, row, schema)
                if table is not None:
                    yield block, table
                    row += table.num_rows

    def _table(self, raw: bytes, path: Path, row: int, schema: pa.Schema | None) -> tuple[bytes, pa.Table | None]:
        """A block as it is parsed, and what is in it; None if that is only blanks."""
        if raw.isspace():
            return raw, None
        if schema is None:
            check_text(raw, path, row)
        # One rule for tables of text: NaN is a missing value.
        block = raw if b"NaN" not in raw else _NAN.sub(lambda found: found[1] or b"null", raw)
        if schema is not None and self._has_text_numbers:
            return block, _read(block, path, row, schema)
        return block, _parsed(block, path, row, schema)

    def _scan(self, block: bytes, table: pa.Table, path: Path, row: int) -> None:
        rows = np.arange(row, row + table.num_rows)
        leaves = [leaf for name in table.schema.names for leaf in _leaves(name, table[name].combine_chunks(), rows)]
        if any(_is_doubtful(values, block) for _, values, _ in leaves):
            written = _read(block, path, row, _changed(table.schema, _as_written))
            leaves = [
                leaf for name in written.schema.names for leaf in _leaves(name, written[name].combine_chunks(), rows)
            ]
        for name in {name for name, _, _ in leaves} - self._scans.keys():
            self._scans[name] = ColumnScan()
            self._scans[name].add_missing(self.files[0], range(sum(self._rows)))  # the lines without it so far
        for name in self._scans.keys() - {name for name, _, _ in leaves}:
            self._scans[name].add_missing(path, rows)
        for name, values, numbers in leaves:
            if pa.types.is_int64(values.type):
                self._scans[name].add_integers(values, path, numbers)
                continue
            if pa.types.is_large_string(values.type):
                self._scans[name].add(values.cast(pa.string()), path, numbers)
                continue
            self._scans[name].add_missing(path, numbers[values.is_null().to_numpy(zero_copy_only=False)])
            if pa.types.is_float64(values.type):
                self._scans[name].add_floats(values.drop_null())

    def _decided(self, name: str, kind: pa.DataType) -> pa.DataType:
        """The type of a list, and of what lies inside of objects and lists."""
        if pa.types.is_list(kind):
            self.lists.add(name)
        if pa.types.is_struct(kind):
            self.account.add("left out", name, unit="column", detail="its objects have no fields")
        if not (pa.types.is_int64(kind) or pa.types.is_float64(kind)):
            return kind
        found, _ = self._scans[name].decided(self._asked.get(name), has_codes=False)
        self._has_text_numbers |= pa.types.is_string(found)
        return found


def _changed(schema: pa.Schema, change: Callable[[str, pa.DataType], pa.DataType]) -> pa.Schema:
    """The schema with other types of lists and of what lies inside of objects and lists.

    `change` is given the name of a column and a type.
    """

    def changed(name: str, kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return change(name, pa.list_(changed(name, kind.value_type)))
        if pa.types.is_struct(kind) and kind.num_fields:
            return pa.struct([(field.name, changed(f"{name}.{field.name}", field.type)) for field in kind])
        return change(name, kind)

    return pa.schema([(field.name, changed(field.name, field.type)) for field in schema])


def _as_written(_: str, kind: pa.DataType) -> pa.DataType:
    """Numbers as large text, which no text of the file is."""
    return pa.large_string() if pa.types.is_int64(kind) or pa.types.is_float64(kind) else _no_time("", kind)


def _no_time(_: str, kind: pa.DataType) -> pa.DataType:
    """Text that looks like a date was recognised as one: it stays text."""
    return pa.string() if pa.types.is_temporal(kind) else kind


def _leaves(name: str, array: pa.Array, rows: _Rows) -> Iterator[tuple[str, pa.Array, _Rows]]:
    """The values inside of objects and lists by the name of their column, with the numbers of their rows."""
    if pa.types.is_struct(array.type) and array.type.num_fields:
        # `flatten` makes the fields of a missing object missing.
        for field, values in zip(array.type, array.flatten(), strict=True):
            yield from _leaves(f"{name}.{field.name}", values, rows)
    elif pa.types.is_list(array.type):
        missing = rows[array.is_null().to_numpy(zero_copy_only=False)]
        yield name, pa.nulls(len(missing)), missing
        yield from _leaves(name, array.flatten(), rows[pc.list_parent_indices(array).to_numpy()])
    else:
        yield name, array, rows


def _is_doubtful(values: pa.Array, block: bytes) -> bool:
    """Whether floats may stand for numbers that they do not hold."""
    if not pa.types.is_float64(values.type):
        return False
    sizes = np.abs(values.drop_null().to_numpy(zero_copy_only=False))
    return bool((sizes >= 1 << 53).any() or ((sizes == 0).any() and _TINY.search(block)))


def _read(block: bytes, path: Path, row: int, schema: pa.Schema) -> pa.Table:
    """Lines as Python reads them: numbers stay as they are written where the schema has text."""
    rows: list[object] = []
    try:
        for line in block.splitlines():
            if line.strip():
                found = json.loads(line, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
                rows.append(_typed(found, pa.struct(schema)))
    except ValueError as error:
        raise SourceError(
            f"{path} cannot be read as JSON lines: {error} in row {row + len(rows)}. Every line should be one JSON "
            "object.",
            path=path,
        ) from error
    return pa.Table.from_pylist(rows, schema)


def _typed(value: object, kind: pa.DataType) -> object:
    """A value with numbers as they are written as one that Arrow takes for the type."""
    if isinstance(value, _Number) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return int(value) if pa.types.is_integer(kind) else float(value)
    if isinstance(value, dict):
        return {field.name: _typed(value.get(field.name), field.type) for field in kind}
    return [_typed(one, kind.value_type) for one in value] if isinstance(value, list) else value


def _parsed(block: bytes, path: Path, row: int, schema: pa.Schema | None) -> pa.Table:
    options = None
    if schema is not None:
        options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = pyarrow.json.read_json(
            pa.BufferReader(block),
            # One block: several would be inferred one by one.
            read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1, use_threads=False),
            parse_options=options,
        )
        if schema is None and not _is_valid(table):
            return _parsed(block, path, row, _changed(table.schema, _no_time))
        return table
    except (pa.ArrowException, OSError) as error:
        is_array = row == 0 and block.lstrip().startswith(b"[")
        remedy = "It is one JSON array: write its elements one per line, such as with jq -c '.[]'."
        raise SourceError(
            f"{path} cannot be read as JSON lines: {error} (counted from row {row} on). "
            + (remedy if is_array else "Every line should be one JSON object, with values of one kind per field."),
            path=path,
        ) from error


def _is_valid(table: pa.Table) -> bool:
    """Whether lists have all their values: Arrow loses nulls that come before any value, unless it is told the type."""
    try:
        table.validate()
    except pa.ArrowInvalid:
        return False
    return True


def _unified(schema: pa.Schema, found: pa.Schema, path: Path, row: int) -> pa.Schema:
    try:
        return pa.unify_schemas([schema, _changed(found, _no_time)], promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(
            f"{path} cannot be read as JSON lines: values from row {row} on are of another kind than those before "
            f"({error}). Every field needs values of one kind.",
            path=path,
        ) from error
