"""Splits that keep rows together, classes in proportion, or the past apart from the future.

Rows are put into groups: those of one value of `by`, else each row is its own. The groups of one class of `stratify`
stand in the order of hashes of (seed, value), so that a group keeps its place among the others when rows are added;
the first part gets groups from the front, as many as come nearest to its share of the class. Which row is where takes
4 bytes of memory per row; while it is found out 24 more.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import xxhash

from ..dataset import Dataset
from ..errors import SelectionError
from ..format.columns import Column
from ..format.ragged import Ragged, Values
from ..order.bijection import Words, hashed, round_keys, two_words
from ..order.order import checked_integer
from .selection import RowIndex, Selection, Span
from .split_side import SplitSide
from .view import chosen_columns

SPLIT_BY_VERSION = 1
"""Changes whenever any split by columns changes."""

_SCAN_ROWS = 1 << 16


def split(
    dataset: Dataset,
    fraction: float,
    *,
    seed: int = 0,
    by: str | None = None,
    stratify: str | None = None,
    gap: int | None = None,
) -> tuple[Dataset, Dataset]:
    """See `Dataset.split`."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise SelectionError(
            f"{dataset.name}.split({fraction!r}): the share of the first part must lie between 0 and 1, such as 0.9.",
            path=dataset.name,
        )
    seed, num_rows = checked_integer("seed", seed, 0, 1 << 64), len(dataset)
    if gap is not None:
        if seed or by is not None or stratify is not None:
            raise SelectionError(
                f"{dataset.name}.split: gap= divides the rows in stored order; it does not go together with seed=, by= "
                "or stratify=.",
                path=dataset.name,
            )
        return split_with_gap(dataset, fraction, gap)
    if by is not None or stratify is not None:
        return split_by_columns(dataset, fraction, seed, by, stratify)
    num_chosen = round(fraction * num_rows)
    call = f"split({fraction}, seed={seed})"
    first, second = (
        Selection(
            dataset,
            SplitSide(num_rows=num_rows, num_chosen=num_chosen, seed=seed, first=side == 0),
            f"{call}[{side}]",
        )
        for side in (0, 1)
    )
    return first, second


def split_with_gap(dataset: Dataset, fraction: float, gap: int) -> tuple[Dataset, Dataset]:
    """The first rows and the last ones, in stored order, `gap` rows between them left out; raises SelectionError."""
    gap, num_rows = checked_integer("gap", gap, 0, 1 << 62), len(dataset)
    if gap > num_rows - 2:
        raise SelectionError(
            f"{dataset.name}.split(gap={gap}) leaves no two rows of {num_rows:,}. Give a smaller gap.",
            path=dataset.name,
        )
    end = round(fraction * (num_rows - gap))
    call = f"split({fraction}, gap={gap})"
    return (
        Selection(dataset, Span(0, end), f"{call}[0]"),
        Selection(dataset, Span(min(end + gap, num_rows), num_rows), f"{call}[1]"),
    )


def split_by_columns(
    dataset: Dataset, fraction: float, seed: int, by: str | None, stratify: str | None
) -> tuple[Dataset, Dataset]:
    """The two parts of a split by the values of columns, both in stored order; raises SelectionError."""
    if dataset.is_random:
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass, so a split by their values would not hold. Split "
            "first, then mix or change at random.",
            path=dataset.name,
        )
    key = int(round_keys([SPLIT_BY_VERSION, *two_words(seed)])[0])
    rows = np.arange(len(dataset), dtype=np.int64)
    groups = hashed(rows.astype(np.uint64) if by is None else _values(dataset, by), key)
    classes = np.zeros(len(dataset), np.uint64) if stratify is None else _values(dataset, stratify)
    is_first = _is_first(groups, classes, fraction)
    if by is not None and stratify is not None:
        _check_one_class_each(dataset, groups, classes, by, stratify)
    named = "".join(f", {word}={name!r}" for word, name in (("by", by), ("stratify", stratify)) if name is not None)
    call = f"split({fraction}, seed={seed}{named})"
    return (
        Selection(dataset, RowIndex(rows[is_first], len(dataset)), f"{call}[0]"),
        Selection(dataset, RowIndex(rows[~is_first], len(dataset)), f"{call}[1]"),
    )


def _is_first(groups: Words, classes: Words, fraction: float) -> npt.NDArray[np.bool_]:
    """bool [rows]: which rows the first part gets."""
    # All rows of a class stand together, in it all rows of a group, and the groups in the order of their hashes.
    order = np.lexsort((groups, classes))
    is_first = np.zeros(len(groups), bool)
    num_done = 0
    for low, high in pairwise(_cuts(classes[order]).tolist()):
        # Of all classes together the first part has its exact share, so that what one is short of another gets.
        wanted = round(fraction * high) - num_done
        cuts = _cuts(groups[order[low:high]])
        if len(cuts) > 2 and high - low == len(groups):
            cuts = cuts[1:-1]  # of one class neither part is empty
        count = int(cuts[np.argmin(np.abs(cuts - wanted))])
        is_first[order[low : low + count]] = True
        num_done += count
    return is_first


def _cuts(values: Words) -> npt.NDArray[np.int64]:
    """Where runs of equal values begin, and where the last one ends."""
    return np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]))


def _check_one_class_each(dataset: Dataset, groups: Words, classes: Words, by: str, stratify: str) -> None:
    order = np.lexsort((classes, groups))
    is_mixed = (groups[order][1:] == groups[order][:-1]) & (classes[order][1:] != classes[order][:-1])
    if is_mixed.any():
        place = int(np.argmax(is_mixed))
        one, other = sorted(order[place : place + 2].tolist())
        raise SelectionError(
            f"{dataset.name}.split: rows {one} and {other} have the same {by!r} and different {stratify!r}, so the "
            f"rows of one {by!r} cannot both stay together and be divided by {stratify!r}. Give one of the two.",
            path=dataset.name,
            column=by,
        )


def _values(dataset: Dataset, name: str) -> Words:
    """A word per row that is equal where the values of the column are, uint64 [rows]."""
    column = chosen_columns(dataset, [name])[name]
    if column.kind == "list" or column.shape:
        raise SelectionError(
            f"{dataset.name}.split: the rows of column {name!r} are {column.kind} {column.dtype} {column.shape}; split "
            "by a column with one number, text or bytes per row.",
            path=dataset.name,
            column=name,
        )
    batches = dataset.batches(_SCAN_ROWS, shuffle=False, columns=[name])
    return np.concatenate([_words(column, batch[name]) for batch in batches])


def _words(column: Column, values: Values) -> Words:
    if isinstance(values, Ragged):
        data = values.to_list()
        texts = (one.encode() for one in data) if column.kind == "string" else data
        return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(values))
    if column.dtype.kind == "f":
        return (values.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 equals 0.0
    return values.astype(np.int64 if column.dtype.kind == "i" else np.uint64).view(np.uint64)
