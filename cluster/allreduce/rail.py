"""What goes over the connection between two workers of equal place on two hosts (`rails.py`), and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .exchange import Incoming
from .shared import NUM_SLOTS
from .wire import HEADER_BYTES, Cursor, Header


class Item(NamedTuple):
    """What a rail carries next: block `number`, of the host's sums or of the finished slice."""

    is_sum: bool
    number: int


def rail_order(num_blocks: int, num_hosts: int, sender: int, receiver: int) -> list[Item]:
    """Return what one host sends to another, in order.

    The receiver finishes its blocks, the sender its own. A finished block goes after the sums of a few later blocks, so
    that these are under way meanwhile; no more than shared memory has slots, or one could wait for the other.
    """
    ahead = min(num_hosts, NUM_SLOTS)
    items = [(number, False) for number in range(receiver, num_blocks, num_hosts)]
    items += [(number + ahead, True) for number in range(sender, num_blocks, num_hosts)]
    return [Item(is_sum, at - ahead if is_sum else at) for at, is_sum in sorted(items)]


class Rail:
    """One connection to the worker of equal place on another host."""

    def __init__(
        self,
        header: Callable[[int], Header],
        outgoing: Sequence[tuple[Item, Sequence[memoryview]]],
        incoming: Sequence[tuple[Item, Sequence[memoryview]]],
    ) -> None:
        pieces = [piece for _, each in outgoing for piece in each]
        self._to_send = [(item, sum(map(len, each))) for item, each in outgoing]
        self.outgoing = Cursor([header(sum(map(len, pieces))).pack(), *pieces], HEADER_BYTES)
        inbox = [piece for _, each in incoming for piece in each]
        self._to_come = [(item, sum(map(len, each))) for item, each in incoming]
        self.incoming = Incoming(header(sum(map(len, inbox))), lambda _: inbox)
        self._num_sent = self._num_come = self._come_bytes = 0
        self.here = {True: -1, False: -1}

    def release(self, num_values: int, num_sums: int) -> None:
        """Let go what is ready: values of blocks below `num_values`, finished blocks below `num_sums`."""
        while self._num_sent < len(self._to_send):
            item, size = self._to_send[self._num_sent]
            if item.number >= (num_sums if item.is_sum else num_values):
                return
            self.outgoing.limit += size
            self._num_sent += 1

    def listen(self) -> None:
        """Note what has come: `here[is_sum]` is the last block of each kind."""
        while self._num_come < len(self._to_come):
            item, size = self._to_come[self._num_come]
            if self._come_bytes + size > self.incoming.body_bytes:
                self.incoming.own_debt = not item.is_sum
                return
            self._come_bytes += size
            self._num_come += 1
            self.here[item.is_sum] = item.number
