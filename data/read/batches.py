"""Batches of a whole pass, in row order, for any loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..order.order import RowOrder
from .prefetch import Prefetcher
from .reader import Reader
from .stretches import Stretch, stretches

# Rows whose ids and places are worked out at once: as many as the row order computes at once.
_STRETCH_ROWS = 8192


def iterate_batches(
    make_reader: Callable[[], Reader],
    order: RowOrder,
    batch_size: int,
    *,
    prefetch_bytes: int = 0,
    num_threads: int = 1,
) -> Iterator[dict[str, Any]]:
    """Batches of one pass as dicts of new arrays [rows, *shape] and `Ragged`, the last one maybe short; closes the
    readers at the end.

    Raises PlanError at once for a bad batch size, RowError or ShardError on the way.
    """
    if prefetch_bytes < 1:
        return _on_demand(make_reader, stretches(order, batch_size, _STRETCH_ROWS), batch_size)
    return _ahead(make_reader, stretches(order, batch_size), prefetch_bytes, num_threads)


def _on_demand(
    make_reader: Callable[[], Reader], parts: Iterator[Stretch], batch_size: int
) -> Iterator[dict[str, Any]]:
    with make_reader() as reader:
        for part in parts:
            batches = reader.gather_batches(part.row_ids(), batch_size)
            for position in range(part.start, part.stop, batch_size):
                reader.expect(part.order, position)
                yield next(batches)


def _ahead(
    make_reader: Callable[[], Reader], parts: Iterator[Stretch], prefetch_bytes: int, num_threads: int
) -> Iterator[dict[str, Any]]:
    with Prefetcher(make_reader, parts, max_bytes=prefetch_bytes, num_threads=num_threads) as prefetcher:
        yield from prefetcher
