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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ..errors import SourceError
from .sources import PIECE_BYTES, size_of
from .tables import Table, TablePart
from .text_files import blocks
from .text_values import Asked, ColumnScan, check_missing, note_text, refused_number

_MAX_DEPTH = 100  # of lists and objects inside of each other: parsers and schemas are recursive
_MARKS = b'[]{}"\n'
_OTHERS = bytes(sorted(set(range(256)) - set(_MARKS)))
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_NAN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?\bNaN\b', re.DOTALL)
_TINY = re.compile(rb"[eE]-[0-9]{3}")
_Rows: TypeAlias = npt.NDArray[np.int64]


class _Number(str):
    """A number as it is written."""


class JsonTable(Table):
    """Files with one JSON object per line, plain or packed (.gz, .bz2, .zst).

    A field is what its values on all lines need together, without a loss: int64, uint64, float64, or text for numbers
    that none of them holds. Lists are lists, text is text (also where it looks like a date), and the fields of an
    object become `object.field`. A field that a line does not have is a missing value, and so are null and NaN.

    Args:
        files: Paths.
        asked: By column, what it is read as whatever it holds.
        piece_bytes: About so many bytes of whole lines are read at once.

    Raises SourceError, BadColumnError.
    """

    kind = "json"

    def __init__(
        self, files: Sequence[Path], *, asked: Mapping[str, Asked] | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self.files, self.num_bytes = tuple(files), size_of(files, "JSON lines")
        self._piece_bytes = piece_bytes
        self._scans: dict[str, ColumnScan] = {}
        self._asked, self._has_text_numbers = asked or {}, False
        found, self._rows = pa.schema([]), []
        for path in self.files:
            self._rows.append(0)
            for block, table, _ in self._tables(path, None):
                found = _unified(found, table.schema, path, self._rows[-1])
                self._scan(block, table, path, self._rows[-1])
                self._rows[-1] += table.num_rows
        self.num_rows = sum(self._rows)
        if not self.num_rows:
            raise SourceError(f"{self.files[0]} holds no JSON lines: it has 0 rows.", path=self.files[0])
        self.schema = pa.schema([(field.name, self._decided(field.name, field.type)) for field in found])

    def parts(self, first_row: int, names: Sequence[str]) -> Iterator[TablePart]:  # noqa: D102
        # Whole objects are read: a column may be a field inside of one.
        done = bytes_before = 0
        for path, num_rows in zip(self.files, self._rows, strict=True):
            row = 0
            for _, table, num_bytes in self._tables(path, self.schema) if done + num_rows > first_row else ():
                skipped = min(table.num_rows, max(0, first_row - done - row))
                start = row
                for batch in table.slice(skipped).to_batches():
                    yield TablePart(batch, path, start + skipped, bytes_before + num_bytes)
                    start += batch.num_rows
                row += table.num_rows
            done, bytes_before = done + num_rows, bytes_before + path.stat().st_size

    def check_nulls(self, names: Sequence[str], fills: Mapping[str, Any]) -> None:  # noqa: D102
        scans = {name: self._scans[name] for name in names if name in self._scans and fills.get(name) is None}
        said = "{path}: Column {name} has {count}, the first in row {row} (not there, null or NaN)."
        check_missing({name: (scan.num_empty, scan.first.get("empty")) for name, scan in scans.items()}, said)

    def _tables(self, path: Path, schema: pa.Schema | None) -> Iterator[tuple[bytes, pa.Table, int]]:
        """Blocks of lines, what is in them, and the bytes of the file up to their end."""
        row = 0
        for raw, num_bytes in blocks(path, "JSON lines", self._piece_bytes, _end):
            if raw.isspace():
                continue
            _check_text(raw, path, row)
            # One rule for tables of text: NaN is a missing value.
            block = raw if b"NaN" not in raw else _NAN.sub(lambda found: found[1] or b"null", raw)
            if schema is not None and self._has_text_numbers:
                rows = [_typed(one, pa.struct(schema)) for _, one in _read(block, path, row)]
                table = pa.Table.from_pylist(rows, schema)
            else:
                table = _parsed(block, path, row, schema)
            yield block, table, num_bytes
            row += table.num_rows

    def _scan(self, block: bytes, table: pa.Table, path: Path, row: int) -> None:
        rows = np.arange(row, row + table.num_rows)
        leaves: dict[str, list[tuple[pa.Array, _Rows]]] = {}
        for name, column in zip(table.schema.names, table.columns, strict=True):
            _add_leaves(leaves, name, column.combine_chunks(), rows)
        for name in [*self._scans, *(name for name in leaves if name not in self._scans)]:
            if name not in self._scans:
                self._scans[name] = ColumnScan()
                self._scans[name].add_missing(self.files[0], range(sum(self._rows)))  # the lines without it so far
            if name not in leaves:
                self._scans[name].add_missing(path, rows)
        is_doubtful = any(_is_doubtful(values, block) for found in leaves.values() for values, _ in found)
        texts: dict[str, list[tuple[str, int]]] = {}
        for number, line in _read(block, path, row) if is_doubtful else ():
            _add_texts(texts, "", line, number)
        for name, found in leaves.items():
            for values, numbers in found:
                is_valid = values.is_valid().to_numpy(zero_copy_only=False)
                self._scans[name].add_missing(path, numbers[~is_valid])
                known = values.drop_null()
                if not is_doubtful and pa.types.is_int64(values.type):
                    self._scans[name].add_wholes(known.to_numpy(zero_copy_only=False), path, numbers[is_valid])
                elif not is_doubtful and pa.types.is_float64(values.type):
                    self._scans[name].add_floats(known.to_numpy(zero_copy_only=False), path, numbers[is_valid])
        for name, written in texts.items():
            self._scans[name].add(pa.array([text for text, _ in written]), path, [number for _, number in written])

    def _decided(self, name: str, kind: pa.DataType, *, in_list: bool = False) -> pa.DataType:
        if pa.types.is_struct(kind):
            if not kind.num_fields:
                self.account.add("left out", name, unit="column", detail="its objects have no fields")
            inside = [(field.name, self._decided(f"{name}.{field.name}", field.type)) for field in kind]
            return pa.struct(inside)
        if pa.types.is_list(kind):
            return pa.list_(self._decided(name, kind.value_type, in_list=True))
        if not (pa.types.is_int64(kind) or pa.types.is_float64(kind)):
            return kind
        scan, asked = self._scans[name], self._asked.get(name)
        found, doubt = scan.decided(asked, has_codes=False)
        self._has_text_numbers |= pa.types.is_string(found)
        if doubt is None:
            return found
        where = f"row {scan.first[doubt].row}"
        if in_list or asked == "number":
            raise refused_number(name, scan, doubt, where)
        note_text(self.account, name, scan, doubt, f"{where} of {scan.first[doubt].path.name}")
        return found


def _end(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _add_leaves(found: dict[str, list[tuple[pa.Array, _Rows]]], name: str, array: pa.Array, rows: _Rows) -> None:
    """The values inside of objects and lists by the name of their column, each with the number of its row."""
    if pa.types.is_struct(array.type):
        # `flatten` makes the fields of a missing object missing.
        for field, values in zip(array.type, array.flatten(), strict=True):
            _add_leaves(found, f"{name}.{field.name}", values, rows)
        return
    if pa.types.is_list(array.type):
        missing = array.filter(array.is_null())
        found.setdefault(name, []).append((missing, rows[array.is_null().to_numpy(zero_copy_only=False)]))
        _add_leaves(found, name, array.flatten(), rows[pc.list_parent_indices(array).to_numpy()])
        return
    found.setdefault(name, []).append((array, rows))


def _add_texts(found: dict[str, list[tuple[str, int]]], name: str, value: Any, row: int) -> None:
    """The numbers inside of a value as they are written, by the name of their column."""
    if isinstance(value, _Number):
        found.setdefault(name, []).append((value, row))
    elif isinstance(value, dict):
        for key, inside in value.items():
            _add_texts(found, f"{name}.{key}" if name else key, inside, row)
    elif isinstance(value, list):
        for inside in value:
            _add_texts(found, name, inside, row)


def _is_doubtful(values: pa.Array, block: bytes) -> bool:
    """Whether floats may stand for numbers that they do not hold."""
    if not pa.types.is_float64(values.type):
        return False
    sizes = np.abs(values.drop_null().to_numpy(zero_copy_only=False))
    return bool((sizes >= 1 << 53).any() or ((sizes == 0).any() and _TINY.search(block)))


def _read(block: bytes, path: Path, row: int) -> Iterator[tuple[int, Any]]:
    """Every line as Python reads it, with numbers as they are written, and its number."""
    try:
        for line in block.splitlines():
            if line.strip():
                yield row, json.loads(line, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
                row += 1
    except ValueError as error:
        raise SourceError(
            f"{path} cannot be read as JSON lines: {error} in row {row}. Every line should be one JSON object.",
            path=path,
        ) from error


def _typed(value: Any, kind: pa.DataType) -> Any:
    """A value with numbers as they are written as one that Arrow takes for the type."""
    if isinstance(value, _Number) and not pa.types.is_string(kind):
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
            return _parsed(block, path, row, _text_for_times(table.schema))
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


def _check_text(block: bytes, path: Path, row: int) -> None:
    """Raise SourceError for what Arrow takes without a look: text that is not UTF-8, and values nested too deep, which
    would end the process."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = row + 1 + block.count(b"\n", 0, error.start)
        raise SourceError(
            f"{path} cannot be read as JSON lines: line {line} is no UTF-8 text ({error.reason}). Turn it into UTF-8, "
            "such as with iconv -f latin1 -t utf-8.",
            path=path,
        ) from error
    # Without these, a quotation mark begins or ends text, and the parity of their number so far says where it is open.
    unescaped = block.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in block else block
    marks = np.frombuffer(unescaped.translate(None, _OTHERS), np.uint8)
    is_text = np.cumsum(marks == ord('"'), dtype=np.uint8) & 1
    too_deep = np.flatnonzero(np.cumsum(_STEPS[marks] * (1 - is_text)) > _MAX_DEPTH)
    if too_deep.size:
        line = row + 1 + int(np.count_nonzero(marks[: too_deep[0]] == ord("\n")))
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
        return pa.struct([(field.name, _text_for_time(field.type)) for field in kind])
    return kind
