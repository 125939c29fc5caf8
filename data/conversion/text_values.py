"""What the columns of text files (CSV, JSON lines) hold, decided from all of their values.

A text file does not say whether `00501` is a number. Readers guess from the first rows, and what comes later is rounded
(ids beyond 2^53 beside a fraction), loses digits (a leading zero) or ends the reading. Here one scan looks at every
value and keeps, of each way to write one, the first example; then one table of rules (`ColumnScan.decided`) takes the
narrowest type that holds all of them exactly: bool, int64, uint64, float64, and text where there is none. A column
that is text although all its values could be read as numbers is an entry of the account, with the value for whose sake.

Most batches are decided by two casts of Arrow; only values that are unusual (huge, zero as a float, written as a code)
are looked at one by one, each text once. Casts were not trusted alone: they read `0x1F`, `+5`, `1e400` as 31, 5, inf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadColumnError
from ..format.account import Account
from .requested import RequestedColumn

Asked: TypeAlias = Literal["text", "number"]
"""What was asked for: text as it stands, or a number however it is written."""
Spelling: TypeAlias = Literal["whole", "float", "exponent", "code", "bool", "text"]
"""How a value is written: 12 or -3; 1.5, 1e-05 or inf; 12E3 (a code or a number); 007, +5 or 0x1F; true; other."""
Trait: TypeAlias = Literal[Spelling, "hex", "blank", "inexact", "beyond", "word", "empty"]
"""What else is remembered of a column: hexadecimal digits, blanks around a number, numbers that float64 or int64 does
not hold, words for a missing value, and nothing at all (an empty field, null)."""

MISSING_WORDS = pa.array(
    [
        *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "n/a", "NULL", "null"),
        *("-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "NaN", "nan"),
    ]
)
"""What stands for a missing number or bool; in a column of text these words are text, and "" is in quotes."""
_SPELLINGS: tuple[tuple[Spelling, re.Pattern[str]], ...] = (
    ("whole", re.compile(r"-?(0|[1-9][0-9]*)")),
    ("exponent", re.compile(r"-?(0|[1-9][0-9]*)[eE][0-9]+")),
    (
        "float",
        re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?[iI][nN][fF]([iI][nN][iI][tT][yY])?"),
    ),
    ("code", re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|0[xX][0-9a-fA-F]{1,16}")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
)
# Of what a cast takes for a float: what is written as a code may be.
_CODE_LIKE = r"^[+]|^[+-]?0[0-9]|^[+-]?[0-9]+[eE][0-9]"
_NUMBERS: frozenset[Trait] = frozenset({"whole", "float", "exponent", "code"})
_EXACT = 1 << 53  # up to here float64 holds every whole number
_DIGITS = 17  # of a float64 as programs write it
_WHY: Mapping[Trait, str] = {
    "code": "is written like a code; --column {name}={number} (columns=) makes it a number",
    "exponent": "is written like a code; --column {name}=float64 (columns=) makes it a number",
    "inexact": "is a number that a column with fractions (float64) does not hold; --column {name}=string says so",
    "beyond": "is beyond 64 bits, together with the others; --column {name}=string says so",
    "bool": "stands beside numbers; --column {name}=bool (columns=) takes true, false, 1 and 0",
    "hex": "stands beside fractions",
    "text": "is no number",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A value as it is written, and where: the number of the row counts from the first of its file."""

    text: str
    path: Path
    row: int


class ColumnScan:
    """What was seen of a column: the first example of everything, how many values are missing, the range of numbers."""

    def __init__(self) -> None:
        self.first: dict[Trait, Example] = {}
        self.num_values = self.num_empty = self.num_words = 0
        self.is_whole = True
        """Whether all numbers are whole and fit int64, also those that are written with a point."""
        self._low: int | Decimal = 0
        self._high: int | Decimal = 0

    def add(self, texts: pa.Array, path: Path, rows: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Look at values as they are written, null where there is none; `rows` are the numbers of their rows."""
        if texts.null_count:
            self.add_missing(path, np.asarray(rows)[texts.is_null().to_numpy(zero_copy_only=False)])
        self.num_values += len(texts) - texts.null_count
        if "text" in self.first:
            return
        if "blank" in self.first:
            texts = pc.ascii_trim(texts, " \t")
        is_word = pc.is_in(texts, value_set=MISSING_WORDS)
        num_words = pc.sum(is_word).as_py() or 0
        if num_words:
            self.num_words += num_words
            self._remember("word", texts, pc.index(is_word, True).as_py(), path, rows)
            texts = pc.if_else(is_word, None, texts)
        for text in self._unusual(texts, path, rows).unique().to_pylist():
            for trait in self._look(text):
                if trait not in self.first:
                    self._remember(trait, texts, pc.index(texts, text).as_py(), path, rows)
            if "text" in self.first:
                return

    def add_missing(self, path: Path, rows: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Note that these rows have no value."""
        if len(rows):
            self.num_empty += len(rows)
            self.first.setdefault("empty", Example("", path, int(rows[0])))

    def add_wholes(self, numbers: npt.NDArray[np.int64], path: Path, rows: npt.NDArray[np.int64]) -> None:
        """Look at whole numbers that a parser has read."""
        self.num_values += len(numbers)
        places: dict[Trait, list[int]] = {"whole": [0][: len(numbers)], "inexact": self._inexact(numbers)}
        for trait, found in places.items():
            for place in found:
                self.first.setdefault(trait, Example(str(numbers[place]), path, int(rows[place])))

    def add_floats(self, numbers: npt.NDArray[np.float64], path: Path, rows: npt.NDArray[np.int64]) -> None:
        """Look at numbers below 2^53 that a parser has read as floats."""
        self.num_values += len(numbers)
        for number, row in zip(numbers[:1].tolist(), rows[:1].tolist(), strict=True):
            self.first.setdefault("float", Example(repr(number), path, row))

    def decided(self, asked: Asked | None, *, has_codes: bool) -> tuple[pa.DataType, Trait | None]:
        """The type that holds all values, and of a column that is text for the sake of one value what that one is.

        `has_codes`: numbers that are written like codes are text unless numbers were asked for.
        """
        has = self.first.keys()
        number = pa.float64() if has & {"float", "exponent"} else _whole_type(self._low, self._high)
        doubt: Trait | None = None
        if asked == "text":
            return pa.string(), None
        if "text" in has:
            return pa.string(), "text" if asked else None
        if "bool" in has:
            if not has & _NUMBERS or (asked and not has & {"float", "exponent"} and 0 <= self._low <= self._high <= 1):
                return pa.bool_(), None
            doubt = "bool"
        elif not has & _NUMBERS:
            return pa.null(), None
        elif "code" in has and has_codes and not asked:
            doubt = "code"
        elif "exponent" in has and has_codes and not asked and "float" not in has:
            doubt = "exponent"
        elif number is None:
            number, doubt = pa.float64(), None if asked and "inexact" not in has else "beyond"
        elif number == pa.float64():
            doubt = "inexact" if "inexact" in has else "hex" if "hex" in has else None
        return (number, None) if doubt is None else (pa.string(), doubt)

    def values(self, texts: pa.Array, kind: pa.DataType) -> pa.Array:
        """Values as they are written as the type that was decided; raises pa.ArrowException for others."""
        if pa.types.is_null(kind):
            return pa.nulls(len(texts))
        if pa.types.is_string(kind):
            return texts
        if self.first.keys() & {"blank", "code"}:
            texts = pc.replace_substring_regex(pc.ascii_trim(texts, " \t"), r"^\+", "")
        if "word" in self.first:
            texts = pc.if_else(pc.is_in(texts, value_set=MISSING_WORDS), None, texts)
        return texts.cast(kind)

    def num_missing(self, kind: pa.DataType) -> int:
        """How many values are missing in a column of this type."""
        return self.num_empty if pa.types.is_string(kind) else self.num_empty + self.num_words

    def first_missing(self, kind: pa.DataType) -> Example | None:
        """Where the first of them is."""
        kinds: tuple[Trait, ...] = ("empty",) if pa.types.is_string(kind) else ("empty", "word")
        found = [self.first[one] for one in self.first if one in kinds]
        return min(found, key=lambda one: (one.path != found[0].path, one.row), default=None)

    def _unusual(self, texts: pa.Array, path: Path, rows: Sequence[int] | npt.NDArray[np.int64]) -> pa.Array:
        """The values that must be looked at one by one; the others are counted."""
        values = texts.drop_null()
        seen = self.first.keys()
        if not seen & {"float", "exponent", "code", "bool", "beyond"}:
            whole = _cast(values, pa.int64())
            if whole is not None and whole.cast(pa.string()).equals(values):
                if len(values):
                    self._remember("whole", texts, pc.index(texts.is_valid(), True).as_py(), path, rows)
                return values.take(pa.array(self._inexact(whole.to_numpy(zero_copy_only=False)), pa.int64()))
        if seen & {"code", "bool"} or pc.any(pc.match_substring_regex(values, _CODE_LIKE)).as_py():
            return values
        numbers = _cast(values, pa.float64())
        if numbers is None:
            return values
        found = numbers.to_numpy(zero_copy_only=False)
        has_fraction = found != np.trunc(found)
        if not has_fraction.any():
            return values
        self.is_whole = False
        if "float" not in seen:
            place = int(np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))[int(has_fraction.argmax())])
            self._remember("float", texts, place, path, rows)
        return values.filter(pa.array((np.abs(found) >= _EXACT) | (found == 0)))

    def _look(self, text: str) -> list[Trait]:
        """What there is to remember of a value."""
        bare = text.strip(" \t")
        spelling = _spelling(bare)
        traits: list[Trait] = [spelling]
        if spelling in ("text", "bool"):
            return traits
        if bare != text:
            traits.append("blank")
        bare = bare.removeprefix("+")
        if bare[:2] in ("0x", "0X"):
            bare = str(int(bare, 16))
            traits.append("hex")
        if bare.removeprefix("-").isdigit():
            traits.append("whole")
            self._low, self._high = min(self._low, Decimal(bare)), max(self._high, Decimal(bare))
            if not -(1 << 63) <= Decimal(bare) < 1 << 63:
                traits.append("beyond")
        elif spelling == "code":
            traits.append("float")
        if not is_kept(bare):
            traits.append("inexact")
        self.is_whole = self.is_whole and abs(float(bare)) < 1 << 63 and float(bare).is_integer()
        return traits

    def _inexact(self, numbers: npt.NDArray[np.int64]) -> list[int]:
        """Count whole numbers; where the first is that float64 does not hold, if none was seen before."""
        if not len(numbers):
            return []
        low, high = int(numbers.min()), int(numbers.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        if "inexact" in self.first or max(-low, high) <= _EXACT:
            return []
        with np.errstate(invalid="ignore"):  # what rounds up to 2^63 does not come back
            is_lost = numbers.astype(np.float64).astype(np.int64) != numbers
        return np.flatnonzero(is_lost)[:1].tolist()

    def _remember(
        self, trait: Trait, texts: pa.Array, place: int, path: Path, rows: Sequence[int] | npt.NDArray[np.int64]
    ) -> None:
        if trait not in self.first:
            self.first[trait] = Example(texts[place].as_py(), path, int(rows[place]))


def asked_of(requested: Mapping[str, RequestedColumn]) -> dict[str, Asked]:
    """What was asked for of columns of a text file; those of which nothing was are left out."""
    found: dict[str, Asked] = {name: "number" for name, one in requested.items() if one.dtype is not None}
    return found | {name: "text" for name, one in requested.items() if one.kind in ("string", "bytes")}


def is_kept(text: str) -> bool:
    """Whether float64 keeps a number: a finite one stays finite, one that is not zero so, a whole one itself.

    Fractions round, as every reader does. So do numbers with an exponent and no more digits than a float64 is written
    with: 1e23 is how a program writes the float64 that is nearest to it.
    """
    value = float(text)
    mantissa, exponent, _ = text.lower().partition("e")
    if np.isinf(value):
        return "inf" in text.lower()
    if value == 0:
        return not mantissa.strip("-0.")
    is_written_by_program = bool(exponent) and len(mantissa.strip("-").replace(".", "")) <= _DIGITS
    number = Decimal(text)
    return abs(value) < _EXACT or is_written_by_program or number != number.to_integral_value() or number == value


def note_text(account: Account, name: str, scan: ColumnScan, doubt: Trait, where: str) -> None:
    """Enter into the account that a column is text, and for the sake of which value."""
    number = "float64" if scan.first.keys() & {"float", "exponent"} else "int64"
    why = _WHY[doubt].format(name=name, number=number)
    count, example = scan.num_values - scan.num_words, scan.first[doubt].text
    account.add("read as", name, count=count, detail=f"text, since {example!r} in {where} {why}")


def refused_number(name: str, scan: ColumnScan, doubt: Trait, where: str) -> BadColumnError:
    """The error for a column that must be numbers (asked for, or lists), and holds something that none is equal to."""
    found = scan.first[doubt]
    return BadColumnError(
        f"Column {name!r} of {found.path} should be numbers, but {found.text[:80]!r} in {where} "
        f"{_WHY[doubt].partition(';')[0]}. Ask for text (--column {name}=string), which lists do not hold, or mend the "
        "value.",
        path=found.path,
        column=name,
    )


def check_missing(found: Mapping[str, tuple[int, Example | None]], said: str) -> None:
    """Raise BadColumnError that names every column with missing values, each with the option that fills them.

    `found` has their number and the first; `said` is how that is told, with {name}, {path}, {count}
    (such as 2 missing values) and {row}.
    """
    missing = {name: (count, example) for name, (count, example) in found.items() if example is not None}
    lines = [
        said.format(
            name=repr(name), path=example.path, count=f"{count} missing value{'s' * (count > 1)}", row=example.row
        )
        + f" Fill them with fill_nulls={{{name!r}: value}} (--fill-null {name}=VALUE), or drop these rows."
        for name, (count, example) in missing.items()
    ]
    for name, (_, example) in missing.items():
        raise BadColumnError("\n".join(lines), path=example.path, column=name)


def _spelling(bare: str) -> Spelling:
    for spelling, pattern in _SPELLINGS:
        if pattern.fullmatch(bare):
            return spelling
    return "text"


def _whole_type(low: int | Decimal, high: int | Decimal) -> pa.DataType | None:
    if low >= -(1 << 63) and high < 1 << 63:
        return pa.int64()
    return pa.uint64() if low >= 0 and high < 1 << 64 else None


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowException:
        return None
