"""How rows that arrive while they are read are cut into parts: arithmetic alone, so that every worker knows it.

The first part is one batch, so that training begins as soon as that is there, and each that follows has twice as many,
up to a limit: a slow source is waited for batch by batch at first, and a quick one makes few files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The cut of batches into parts of 1, 2, 4 ... `most` batches, and then of `most` each.

    Attributes:
        num_batches: how many there are; the last part may be short.
        most: batches of a part, a power of two.
    """

    num_batches: int
    most: int = 64

    def __post_init__(self) -> None:
        if self.num_batches < 1 or self.most < 1 or self.most & (self.most - 1):
            raise ValueError(f"{self}: there must be batches, and `most` a power of two")

    def __len__(self) -> int:
        return self.part_of(self.num_batches - 1) + 1

    def part_of(self, batch: int) -> int:
        """The number of the part that a batch is in."""
        if batch < self.most - 1:
            return (batch + 1).bit_length() - 1
        return self._num_growing + (batch - (self.most - 1)) // self.most

    def batches(self, part: int) -> tuple[int, int]:
        """The batches [first, end) of a part."""
        growing = self._num_growing
        if part < growing:
            first, size = (1 << part) - 1, 1 << part
        else:
            first, size = self.most - 1 + (part - growing) * self.most, self.most
        return first, min(first + size, self.num_batches)

    @property
    def _num_growing(self) -> int:
        """Parts before the first of `most` batches."""
        return self.most.bit_length() - 1
