"""What the columns of text files (CSV, JSON lines) hold, decided from all of their values.

A text file does not say whether `00501` is a number. Readers guess from the first rows, and what comes later is rounded
(ids beyond 2^53 beside a fraction), loses digits (a leading zero) or ends the reading. Here one scan looks at every
value and remembers in which ways they are written, with the first example of what is no plain number; then one table of
rules (`ColumnScan.decided`) takes the narrowest type that holds all of them exactly: bool, int64, uint64, float64, and
text where there is none.

Most batches are looked at by one cast of Arrow and at the first characters of what it took (`_Characters`); only values
that are unusual (huge, zero as a float, written as a code) are looked at one by one, each text once. Casts alone were
not trusted: they read `007`, `0x1F`, `+5.`, `1e400` as 7, 31, 5 and inf. Casting back and comparing, or a regular
expression, finds the same in more time than the parsing takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .requested import RequestedColumn

Asked: TypeAlias = Literal["text", "number"]
"""What was asked for: text as it stands, or a number however it is written."""
Spelling: TypeAlias = Literal["whole", "float", "exponent", "code", "bool", "text"]
"""How a value is written: 12 or -3; 1.5, 1e-05 or inf; 12E3 (a code or a number); 007, +5 or 0x1F; true; other."""
Trait: TypeAlias = Literal[Spelling, "hex", "blank", "inexact", "beyond", "word", "empty"]
"""What else is remembered of a column: hexadecimal digits, blanks around a value, numbers that float64 or int64 does
not hold, words for a missing value, and nothing at all (an empty field, null)."""
Rows: TypeAlias = Sequence[int] | npt.NDArray[np.int64]

# What stands for a missing number or bool; in a column of text these words are text, and "" is in quotes.
_WORDS: tuple[str, ...] = (
    *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "n/a", "NULL", "null"),
    *("-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "NaN", "nan"),
)
_SPELLINGS: Mapping[Spelling, re.Pattern[str]] = {
    "whole": re.compile(r"-?(0|[1-9][0-9]*)"),
    "exponent": re.compile(r"-?(0|[1-9][0-9]*)[eE][0-9]+"),
    "float": re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?(inf|Inf|INF|[iI]nfinity)"),
    "code": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|0[xX][0-9a-fA-F]{1,16}"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "text": re.compile(r".*", re.DOTALL),
}
_NUMBERS: frozenset[Trait] = frozenset({"whole", "float", "exponent", "code"})
_EXPONENT = r"^[+-]?[0-9]+[eE][0-9]"
_EXACT = 1 << 53  # up to here float64 holds every whole number
_HEAD = 64  # rows that are asked before all are
_DIGITS = 17  # of a float64 as programs write it


@dataclass(frozen=True, slots=True)
class Example:
    """A value as it is written, and where: the file, and the number of its row there."""

    text: str
    path: Path
    row: int


class ColumnScan:
    """What was seen of a column, with the first example of what is no plain number, and how many values are missing."""

    def __init__(self) -> None:
        self.seen: set[Trait] = set()
        self.first: dict[Trait, Example] = {}
        self.num_values = self.num_empty = self.num_words = 0
        self.is_whole = True
        """Whether all numbers are whole and fit int64, also those that are written with a point."""
        self._low = self._high = Decimal(0)

    def add(self, texts: pa.Array, path: Path, rows: Rows) -> None:
        """Look at values as they are written, null where there is none; `rows` are the numbers of their rows."""
        if texts.null_count:
            self.add_missing(path, np.asarray(rows)[texts.is_null().to_numpy(zero_copy_only=False)])
        self.num_values += len(texts) - texts.null_count
        if "text" in self.seen or texts.null_count == len(texts):
            return
        unusual = self._unusual(texts.drop_null())
        for one in unusual.value_counts().to_pylist() if len(unusual) else ():
            bare = one["values"].strip(" \t")
            traits: list[Trait] = ["word"] if bare in _WORDS else self._look(bare)
            self.num_words += one["counts"] if bare in _WORDS else 0
            if bare != one["values"]:
                traits.append("blank")
            for trait in traits:
                if trait not in self.first:
                    self._remember(trait, Example(bare, path, int(rows[pc.index(texts, one["values"]).as_py()])))
            if "text" in self.seen:
                return

    def add_missing(self, path: Path, rows: Rows) -> None:
        """Note that these rows have no value."""
        self.num_empty += len(rows)
        for row in rows[:1]:
            self._remember("empty", Example("", path, int(row)))

    def add_integers(self, values: pa.Array, path: Path, rows: Rows) -> None:
        """Look at int64 that a parser has read without a loss, null where there is none."""
        if values.null_count:
            self.add_missing(path, np.asarray(rows)[values.is_null().to_numpy(zero_copy_only=False)])
        if values.null_count < len(values):
            self.num_values += len(values) - values.null_count
            self.seen.add("whole")
            inexact = values.drop_null().filter(pa.array(self._is_inexact(values.drop_null().to_numpy())))
            for value in inexact[:1]:
                self._remember("inexact", Example(str(value), path, int(rows[pc.index(values, value).as_py()])))

    def add_floats(self, values: pa.Array) -> None:
        """Note numbers below 2^53 that a parser has read as floats, none of them missing."""
        self.num_values += len(values)
        self.seen |= {"float"} if len(values) else set()

    def decided(self, asked: Asked | None, *, has_codes: bool) -> tuple[pa.DataType, Trait | None]:
        """The type that holds all values, and of a column that is text for the sake of one value what that one is.

        `has_codes`: numbers that are written like codes are text unless numbers were asked for.
        """
        is_float = bool(self.seen & {"float", "exponent"})
        whole = _whole_type(self._low, self._high)
        kind = pa.float64() if is_float or whole is None else whole
        is_truth = not is_float and 0 <= self._low <= self._high <= 1
        if asked == "text" or not self.seen & _SPELLINGS.keys():
            return pa.string() if asked == "text" else pa.null(), None
        doubts: dict[Trait, bool] = {
            "text": "text" in self.seen,
            "bool": "bool" in self.seen and bool(self.seen & _NUMBERS) and not (asked and is_truth),
            "code": "code" in self.seen and has_codes and not asked,
            "exponent": "exponent" in self.seen and has_codes and not asked and "float" not in self.seen,
            "beyond": whole is None and not is_float and not (asked and "inexact" not in self.seen),
            "inexact": "inexact" in self.seen and is_float,
            "hex": "hex" in self.seen and is_float,
        }
        doubt = next((trait for trait, holds in doubts.items() if holds), None)
        if doubt is None:
            return pa.bool_() if "bool" in self.seen else kind, None
        return pa.string(), None if doubt == "text" and not asked else doubt

    def values(self, texts: pa.Array, kind: pa.DataType) -> pa.Array:
        """Values as they are written as the type that was decided; raises pa.ArrowException for others."""
        if pa.types.is_null(kind) or texts.type == kind:
            return pa.nulls(len(texts)) if pa.types.is_null(kind) else texts
        if "blank" in self.seen:
            texts = pc.ascii_trim(texts, " \t")
        if "code" in self.seen:
            texts = pc.replace_substring_regex(texts, r"^\+", "")
        if "word" in self.seen:
            texts = pc.if_else(pc.is_in(texts, value_set=pa.array(_WORDS)), None, texts)
        return texts.cast(kind)

    def parsed_type(self, kind: pa.DataType) -> pa.DataType:
        """What a parser may read a column of the type that was decided as: `values` makes the rest of text."""
        is_plain = not self.seen & {"blank", "code", "word", "bool"}
        return kind if is_plain and (pa.types.is_integer(kind) or pa.types.is_floating(kind)) else pa.string()

    def missing(self, kind: pa.DataType) -> tuple[int, Example | None]:
        """How many values are missing in a column of this type, and the first of them."""
        traits: tuple[Trait, ...] = ("empty",) if pa.types.is_string(kind) else ("empty", "word")
        found = [self.first[trait] for trait in self.first if trait in traits]
        first = min(found, key=lambda one: (one.path != found[0].path, one.row), default=None)
        return self.num_empty + (self.num_words if "word" in traits else 0), first

    def _remember(self, trait: Trait, example: Example) -> None:
        self.seen.add(trait)
        self.first.setdefault(trait, example)

    def _unusual(self, values: pa.Array) -> pa.Array:
        """The values that must be looked at one by one; the others are counted here."""
        if not self.seen & {"float", "exponent", "code", "bool", "beyond"}:
            whole = _cast(values, pa.int64())
            if whole is not None and _Characters.of(values).are_plain_whole():
                self.seen.add("whole")
                return _chosen(values, self._is_inexact(whole.to_numpy(zero_copy_only=False)))
        if self.seen & {"code", "bool"}:
            return values
        numbers = _cast(values, pa.float64())
        if numbers is None or _Characters.of(values).may_be_codes():
            return values
        found = numbers.to_numpy(zero_copy_only=False)
        if not (_has_fraction(found[:_HEAD]) or _has_fraction(found)):
            return values
        self.seen.add("float")
        self.is_whole = False
        sizes = np.abs(found)
        return _chosen(values, ~((sizes > 0) & (sizes < _EXACT)))  # NaN is neither

    def _look(self, text: str) -> list[Trait]:
        """What there is to remember of a value."""
        traits: list[Trait] = [next(kind for kind, pattern in _SPELLINGS.items() if pattern.fullmatch(text))]
        if traits[0] in ("text", "bool"):
            return traits
        bare = text.removeprefix("+")
        if bare[:2] in ("0x", "0X"):
            bare = str(int(bare, 16))
            traits.append("hex")
        if traits[0] == "code":
            traits.append("whole" if bare.removeprefix("-").isdigit() else "float")
        if "whole" in traits:
            self._low, self._high = min(self._low, Decimal(bare)), max(self._high, Decimal(bare))
            traits += [] if _whole_type(Decimal(bare), Decimal(bare)) == pa.int64() else ["beyond"]
        traits += [] if is_kept(bare) else ["inexact"]
        self.is_whole = self.is_whole and abs(float(bare)) < 1 << 63 and float(bare).is_integer()
        return traits

    def _is_inexact(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Count whole numbers, and say which float64 does not hold, if none was seen before."""
        low, high = int(numbers.min()), int(numbers.max())
        self._low, self._high = min(self._low, Decimal(low)), max(self._high, Decimal(high))
        if "inexact" in self.seen or max(-low, high) <= _EXACT:
            return np.zeros(len(numbers), np.bool_)
        with np.errstate(invalid="ignore"):  # what rounds up to 2^63 does not come back
            return numbers.astype(np.float64).astype(np.int64) != numbers


@dataclass(frozen=True, slots=True)
class _Characters:
    """The bytes of texts [n], none of them missing or empty, and where each begins and ends."""

    texts: pa.Array
    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: pa.Array) -> Self:
        """The characters of an array of strings with 32-bit offsets."""
        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
        return cls(texts, np.frombuffer(texts.buffers()[2], np.uint8), offsets[:-1], offsets[1:])

    def are_plain_whole(self) -> bool:
        """Whether texts that a cast took for int64 are written as programs do: no leading zeros, -0, 0x."""
        digits, _ = self._after_minus()
        is_zero = (digits == ord("0")) & (self.ends - self.starts == 1)
        return bool(((digits >= ord("1")) | is_zero).all())

    def may_be_codes(self) -> bool:
        """Whether of texts that a cast took for floats one begins with a plus sign or a leading zero, or is 12E3."""
        digits, starts = self._after_minus()
        if (digits == ord("+")).any():
            return True
        zeros = starts[(digits == ord("0")) & (self.ends - starts > 1)]
        seconds = self.data[zeros + 1]
        if ((seconds >= ord("0")) & (seconds <= ord("9"))).any():
            return True
        low = int(self.starts[0])
        used = self.data[low : int(self.ends[-1])]
        places = np.flatnonzero((used | 0x20) == ord("e")) + low
        with_exponent = self.texts.take(pa.array(np.searchsorted(self.ends, places, side="right")))
        return bool(pc.any(pc.match_substring_regex(with_exponent, _EXPONENT)).as_py())

    def _after_minus(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """The first character of each text that is no minus sign, and its place."""
        is_minus = self.data[self.starts] == ord("-")
        starts = self.starts + is_minus if is_minus.any() else self.starts
        return self.data[starts], starts


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
    if np.isinf(value) or value == 0:
        return "inf" in mantissa or not mantissa.strip("-0.")
    is_written_by_program = bool(exponent) and len(mantissa.strip("-").replace(".", "")) <= _DIGITS
    if abs(value) < _EXACT or is_written_by_program:
        return True
    return Decimal(text) != Decimal(text).to_integral_value() or Decimal(text) == Decimal(value)


def _whole_type(low: Decimal, high: Decimal) -> pa.DataType | None:
    if low >= -(1 << 63) and high < 1 << 63:
        return pa.int64()
    return pa.uint64() if low >= 0 and high < 1 << 64 else None


def _has_fraction(numbers: npt.NDArray[np.float64]) -> bool:
    return bool((np.isfinite(numbers) & (numbers != np.trunc(numbers))).any())


def _chosen(values: pa.Array, are_chosen: npt.NDArray[np.bool_]) -> pa.Array:
    return values.filter(pa.array(are_chosen)) if are_chosen.any() else values[:0]


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowException:
        return None
