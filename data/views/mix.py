"""Datasets mixed by weight: which row of which dataset stands at a position, in closed form.

Every position of all passes, one after the other, belongs to one stream: a binary tree divides the positions between
its two halves of the streams as evenly as whole numbers allow (the first half has round(p·w) of the first p), and so on
down to single streams. A stream counts on from pass to pass, and takes its rows in the row order of its own passes. So
what is read is a function of (seed, epoch, position), and nothing has to be kept to resume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dataset import Dataset
from ..errors import PlanError, SelectionError
from ..format.columns import Column
from ..order.bijection import Integers, hashed
from ..order.order import MAX_ROWS, ORDER_VERSION, RowIds, RowOrder, Shuffle, checked_integer
from ..order.window import parse_shuffle
from ..read.reader import Out, Reader
from ..read.upcoming import Order
from .assemble import Part, assembled, check_same_columns
from .concatenate import Joined
from .view import chosen_columns, fingerprint_of

MIX_VERSION = 1
"""Changes whenever any mix changes."""

# Shares are whole multiples of 2**-32, so that counts are exact integers.
_SHARE_BITS = 32
_LOW_BITS = np.int64((1 << _SHARE_BITS) - 1)


def mix(
    datasets: Sequence[Dataset],
    weights: Sequence[float] | None = None,
    *,
    num_rows: int | None = None,
    seed: int = 0,
    shuffle: Shuffle = "full",
) -> Dataset:
    """Rows of several datasets in proportion to `weights` (None: to their numbers of rows), evenly spread.

    Each dataset is read in passes of its own, and goes on in the next pass of the mix where it stopped; one that is
    small or heavy comes several times per pass.

    Args:
        datasets: one or more; their columns must be alike.
        weights: what each is read in proportion to; its number of rows for None.
        num_rows: rows of a pass; those of all datasets together for None.
        seed: of the orders in which the datasets are read.
        shuffle: how each is read, see `Dataset.batches`.

    Raises:
        SelectionError: datasets that are not alike, or weights that are none.
        PlanError: a number of rows, a seed or a shuffle that cannot be.

    Example:
        >>> red, blue = dataset.take(5), dataset.skip(5)
        >>> len(mix([red, blue], weights=[0.8, 0.2], num_rows=100))
        100
    """
    check_same_columns(datasets, "mix")
    shares = [len(dataset) for dataset in datasets] if weights is None else list(weights)
    if len(shares) != len(datasets) or not all(math.isfinite(w) and w > 0 for w in shares):
        raise SelectionError(f"mix: {len(datasets)} datasets need as many weights above 0; got {shares}.")
    total = sum(map(len, datasets)) if num_rows is None else checked_integer("num_rows", num_rows, 1, MAX_ROWS)
    parse_shuffle(shuffle)
    return Mix(datasets, [float(w) for w in shares], total, checked_integer("seed", seed, 0, 1 << 64), shuffle)


def mix_streams(positions: Integers, weights: Sequence[float]) -> tuple[Integers, Integers]:
    """For positions [rows] >= 0 the number of the stream and the row's number in that stream, both int64 [rows]."""
    streams, numbers = np.empty_like(positions), np.empty_like(positions)
    for stream, places, own in _divided(positions, np.arange(positions.size), list(weights), 0):
        streams[places], numbers[places] = stream, own
    return streams, numbers


def _divided(
    positions: Integers, places: Integers, weights: Sequence[float], first: int
) -> Iterator[tuple[int, Integers, Integers]]:
    """(stream, places, numbers in the stream) for the positions that belong to the streams from `first` on."""
    if len(weights) == 1:
        yield first, places, positions
        return
    half = len(weights) // 2
    share = round(sum(weights[:half]) / sum(weights) * (1 << _SHARE_BITS))
    before = _rounded_share(positions, share)
    is_left = _rounded_share(positions + 1, share) > before
    yield from _divided(before[is_left], places[is_left], weights[:half], first)
    is_right = ~is_left
    yield from _divided((positions - before)[is_right], places[is_right], weights[half:], first + half)


def _rounded_share(counts: Integers, share: int) -> Integers:
    """round(counts · share / 2**32), halves up, without overflow below 2**62."""
    low = (counts & _LOW_BITS).astype(np.uint64) * np.uint64(share) + np.uint64(1 << (_SHARE_BITS - 1))
    return (counts >> _SHARE_BITS) * share + (low >> np.uint64(_SHARE_BITS)).astype(np.int64)


class Mix(Joined):
    """Rows of several datasets with equal columns, in proportion to weights; made by `mix`."""

    def __init__(
        self, datasets: Sequence[Dataset], weights: Sequence[float], num_rows: int, seed: int, shuffle: Shuffle
    ) -> None:
        super().__init__(datasets, "mix")
        self.weights = tuple(weights)
        self._num_rows, self._seed, self._shuffle = num_rows, seed, shuffle

    def __len__(self) -> int:
        return self._num_rows

    @property
    def fingerprint(self) -> str:  # noqa: D102
        return fingerprint_of(
            "Mix",
            [MIX_VERSION, ORDER_VERSION],
            [dataset.fingerprint for dataset in self.datasets],
            [self.weights, self._num_rows, self._seed, self._shuffle],
        )

    @property
    def is_random(self) -> bool:
        """True: a pass goes on where the one before it stopped."""
        return True

    def reader(self, columns: Sequence[str] | None = None) -> Reader:  # noqa: D102
        chosen = chosen_columns(self, columns)
        streams = [
            _Stream(dataset, list(chosen), _stream_seed(self._seed, number), self._shuffle)
            for number, dataset in enumerate(self.datasets)
        ]
        return _MixReader(streams, chosen, self.name, self._num_rows, self.weights)


def _stream_seed(seed: int, stream: int) -> int:
    # Streams of equal length must not be read in the same order.
    return int(hashed(np.array([stream], np.uint64), seed)[0])


class _Stream:
    """The rows of one dataset, pass after pass."""

    def __init__(self, dataset: Dataset, columns: Sequence[str], order_seed: int, shuffle: Shuffle) -> None:
        self._num_rows, self._order_seed, self._shuffle = len(dataset), order_seed, shuffle
        self._is_random, self._pass_seed, self._epoch = dataset.is_random, 0, -1
        self.reader = dataset.reader(columns)

    def start_pass(self, seed: int) -> None:
        self._pass_seed, self._epoch = seed, -1

    def rows(self, numbers: Integers) -> RowIds:
        """The row ids of the rows with these numbers, counted over all passes."""
        ids = np.empty_like(numbers)
        for epoch, places in self._passes(numbers):
            order = RowOrder(num_rows=self._num_rows, seed=self._order_seed, epoch=epoch, shuffle=self._shuffle)
            ids[places] = order.at(numbers[places] - epoch * self._num_rows)
        return ids

    def parts(self, places: Integers, numbers: Integers) -> Iterator[Part]:
        """The rows with these numbers, to stand at these places."""
        ids, passes = self.rows(numbers), self._passes(numbers)
        if self._is_random:
            for epoch, group in passes:
                self._read_for(epoch)
                yield places[group], self.reader.gather(ids[group])
        elif passes:
            self._read_for(passes[0][0] if self._epoch < 0 else self._epoch)
            yield places, self.reader.gather(ids)

    def _passes(self, numbers: Integers) -> list[tuple[int, Integers]]:
        epochs = numbers // self._num_rows
        return [(epoch, np.flatnonzero(epochs == epoch)) for epoch in np.unique(epochs).tolist()]

    def _read_for(self, epoch: int) -> None:
        if epoch != self._epoch:
            self.reader.start_pass(seed=self._pass_seed, epoch=epoch)
            self._epoch = epoch


class _MixReader(Reader):
    def __init__(
        self,
        streams: Sequence[_Stream],
        columns: Mapping[str, Column],
        name: str,
        num_rows: int,
        weights: Sequence[float],
    ) -> None:
        super().__init__(name, num_rows, columns, [stream.reader for stream in streams])
        self._streams, self._weights, self._first = streams, weights, 0

    def start_pass(self, *, seed: int, epoch: int) -> None:
        if (epoch + 1) * self._num_rows >= MAX_ROWS:
            raise PlanError(f"Epoch {epoch} of {self._name} begins after more rows than can be counted (2**62).")
        self._first, self._orders = epoch * self._num_rows, (None, ())
        for stream in self._streams:
            stream.start_pass(seed)

    def base_orders(self, order: Order) -> Sequence[tuple[Reader, Order]]:
        return [
            (stream.reader, _StreamOrder(order, stream, number, self._first, self._weights))
            for number, stream in enumerate(self._streams)
        ]

    def gather_checked(self, ids: RowIds, out: Out | None) -> dict[str, Any]:
        owners, numbers = mix_streams(ids + self._first, self._weights)
        parts: list[Part] = []
        for number in np.unique(owners).tolist():
            places = np.flatnonzero(owners == number)
            parts.extend(self._streams[number].parts(places, numbers[places]))
        return assembled(self._columns, ids.size, parts, out)


@dataclass(frozen=True, slots=True, eq=False)
class _StreamOrder:
    """Those rows of a pass over a mix that are of one stream, by their ids there; `first` is the first position of the
    pass, counted over all passes."""

    order: Order
    stream: _Stream
    number: int
    first: int
    weights: Sequence[float]

    @property
    def num_rows(self) -> int:
        return self.order.num_rows

    def rows(self, start: int, stop: int) -> RowIds:
        owners, numbers = mix_streams(self.order.rows(start, stop) + self.first, self.weights)
        return self.stream.rows(numbers[owners == self.number])
