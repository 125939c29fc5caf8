"""Results of calls as far as another worker may still need them, and the memory that sums lie in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..vectors import BucketOp, Layout, Vector, joined

Result = Vector | memoryview  # of an all-reduce: its sum; of a broadcast, or handed over by another worker: bytes


@dataclass(frozen=True, slots=True)
class Buckets:
    """How the vectors of a sum lie in memory.

    Attributes:
        layout: of every bucket its dtype and length.
        ops: of every bucket how it is added up.
        new: makes memory for one sum, not initialised.
    """

    layout: Layout
    ops: tuple[BucketOp, ...]
    new: Callable[[], Vector]


class Results:
    """Results by the number of their call.

    An all-reduce waits for everybody, so who has its sum knows that all have entered it: results of earlier calls are
    needed by nobody any more and are dropped then. That keeps one vector, and the payloads of a few broadcasts.
    """

    def __init__(self) -> None:
        self._by_call: dict[int, Result] = {}
        self._memory: dict[Callable[[], Vector], list[Vector]] = {}  # by its maker, for layouts differ

    def __contains__(self, call: int) -> bool:
        return call in self._by_call

    def keep(self, call: int, result: Result) -> None:
        """Keep a result."""
        self._by_call[call] = result

    def clear(self) -> None:
        """Forget all results."""
        self._by_call.clear()

    def first_lacking(self, call: int) -> int:
        """The first call from `call` on whose result is not here; -1 for -1."""
        while call >= 0 and call in self._by_call:
            call += 1
        return call

    def payload(self, call: int) -> memoryview:
        """A result as bytes, to be handed to another worker."""
        result = self._by_call[call]
        return joined(result) if isinstance(result, tuple) else result

    def take_sum(self, call: int, buckets: Buckets, *, alone: bool) -> Vector | None:
        """The sum of a call, None if it is not here; results of earlier calls are dropped.

        Args:
            call: its number.
            buckets: how it lies in memory.
            alone: whether there is no other worker that may need it.
        """
        result = self._by_call.get(call)
        if result is None:
            return None
        vector = result if isinstance(result, tuple) else _vector_of(result, self.memory(call, buckets, alone=alone))
        self._by_call = {number: each for number, each in self._by_call.items() if number > call}
        self._by_call[call] = vector
        return vector

    def memory(self, call: int, buckets: Buckets, *, alone: bool) -> Vector:
        """Memory for the sum of a call, that of earlier sums with the same buckets; what the call before has brought is
        kept where another worker may need it.

        Args:
            call: its number.
            buckets: how the sum lies in memory.
            alone: whether there is no other worker.
        """
        last, made = self._by_call.get(call - 1), self._memory.setdefault(buckets.new, [])
        for vector in made:
            if vector is not last or alone:
                return vector
        made.append(buckets.new())
        return made[-1]


def _vector_of(payload: memoryview, out: Vector) -> Vector:
    offset = 0
    for bucket in out:
        bucket[:] = np.frombuffer(payload, dtype=bucket.dtype, count=bucket.size, offset=offset)
        offset += bucket.nbytes
    return out
