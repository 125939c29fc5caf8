"""Text files (CSV, JSON lines) as tables: blocks of whole rows, and what both kinds say of their columns.

A text file is read twice: a scan of all values decides what every column is (`text_values`), a second reading hands on
the rows. So types, numbers of rows and missing values are known before the first row is written, for the price of
parsing twice. Keeping what the first reading parsed was not taken: it would need the memory, or the disk, of all rows.

Blocks of rows are parsed by threads, some blocks ahead of the one that is looked at: Arrow's parsers take most of the
time and need no Python. Arrow's own threads parse a block, or read the next one, but not several at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ..errors import BadColumnError
from .tables import FileTable
from .text_values import Asked, ColumnScan, Trait

_WHY: Mapping[Trait, str] = {
    "code": "is written like a code; --column {name}={number} (columns=) makes it a number",
    "exponent": "is written like a code; --column {name}=float64 (columns=) makes it a number",
    "inexact": "is a number that float64 does not hold, which fractions need; --column {name}=string says so",
    "beyond": "is beyond 64 bits, together with the others; --column {name}=string says so",
    "bool": "stands beside numbers; --column {name}=bool (columns=) takes true, false, 1 and 0",
    "hex": "stands beside fractions",
    "text": "is no number",
}


class TextTable(FileTable):
    """Text files whose columns are decided by a scan of all values, each row read once more when it is handed on."""

    has_codes: ClassVar[bool]
    """Whether numbers that are written like codes may be codes."""
    missing_text: ClassVar[str]
    """How missing values are told, with {name}, {path}, {count} and {row}."""

    def __init__(self, files: Sequence[Path], asked: Mapping[str, Asked] | None, piece_bytes: int) -> None:
        super().__init__(files)
        self._asked, self._block_bytes = dict(asked or {}), piece_bytes
        self._scans: dict[str, ColumnScan] = {}
        self.lists: set[str] = set()
        """Columns whose rows are lists."""

    def row_text(self, row: int) -> str:
        """A row of a file in words."""
        return f"row {row}"

    def why_not_numeric(self, name: str) -> str:  # noqa: D102
        first = self._scans[name].first if name in self._scans else {}
        for trait in _WHY:
            if trait in first:
                where = f"{first[trait].text[:80]!r} in {self.row_text(first[trait].row)}"
                return f"{where}. Turn it into integer ids, ask for a number (--column {name}=float64)"
        return super().why_not_numeric(name)

    def take(self, name: str, fills: Mapping[str, object]) -> None:
        """Enter into the account that a column is text for the sake of a value; raises BadColumnError if numbers were
        asked for, and for missing values that are not filled."""
        if name in self._keys:
            return
        scan, asked = self._scans[name], self._asked.get(name)
        kind, doubt = scan.decided(asked, has_codes=self.has_codes)
        if doubt is not None:
            found = scan.first[doubt]
            value, number = repr(found.text[:80]), "float64" if scan.seen & {"float", "exponent"} else "int64"
            why, _, way_out = _WHY[doubt].format(name=name, number=number).partition("; ")
            where = f"{value} in {self.row_text(found.row)}"
            if asked == "number" or name in self.lists:
                raise BadColumnError(
                    f"Column {name!r} of {found.path} should be numbers, but {where} {why}. Ask for text "
                    f"(--column {name}=string), which lists do not hold, or mend the value.",
                    path=found.path,
                    column=name,
                )
            count = scan.num_values - scan.num_words
            self.account.add(
                "read as", name, count=count, detail=f"text, since in {found.path.name} {where} {why}; {way_out}"
            )
        count, first = scan.missing(kind)
        if first is not None and fills.get(name) is None:
            plural = "s" if count > 1 else ""
            said = self.missing_text.format(
                name=repr(name), path=first.path, count=f"{count} missing value{plural}", row=self.row_text(first.row)
            )
            raise BadColumnError(
                f"{said}. Fill them with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or drop these "
                "rows.",
                path=first.path,
                column=name,
            )
