"""What travels between two workers after the handshake: frames of a fixed header and a payload.

A receiver always knows which frame comes next and how long it is (or how long it may be), so a length on the wire is
only ever compared, never trusted. Payloads are raw memory of the host's byte order; nothing is pickled.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..errors import Call
from ..tree import Array

MAGIC = b"HELI"
VERSION = 1
_HEADER = struct.Struct("!4sBBxxIQQQ")
HEADER_BYTES = _HEADER.size
MAX_FAREWELL_BYTES = 2048


class Kind(IntEnum):
    """What a frame carries."""

    CONTRIBUTION = 1  # slices of the sender's nodes, for the worker that sums this slice
    SUM = 2  # the finished slice of the sender
    EXCHANGE = 3  # the sender's whole nodes: every worker sums everything
    BROADCAST = 4  # bytes of the root
    FAREWELL = 5  # the sender stops; why, as text
    BLOCKS = 6  # one `Token` for each block that lies ready in memory shared with the receiver

    @property
    def call(self) -> str:
        """The call that a frame of this kind belongs to, in words."""
        return {Kind.BROADCAST: "broadcast", Kind.FAREWELL: "its end"}.get(self, "all-reduce")


class Token(IntEnum):
    """What one byte of a BLOCKS frame says."""

    NODES = 1  # the next block of the sender's nodes for the receiver's slice is there
    SUM = 2  # the next block of the sender's finished slice is there
    LEFT = 3  # a FAREWELL frame follows instead of the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fixed part of a frame.

    `agreement` is a checksum of what all workers must have in common in this call (who brings which nodes, the layout,
    the operations); `length` counts the bytes that follow.
    """

    kind: Kind
    generation: int
    sequence: int
    agreement: int
    length: int

    def pack(self) -> bytes:
        """Return the header's bytes, in network order."""
        return _HEADER.pack(MAGIC, VERSION, self.kind, self.agreement, self.generation, self.sequence, self.length)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Header:
        """Read a header; ValueError (in words for a message) if it is not one of this protocol."""
        magic, version, kind, agreement, generation, sequence, length = _HEADER.unpack(data)
        if magic != MAGIC:
            raise ValueError(f"it begins with {magic!r} instead of {MAGIC!r}")
        if version != VERSION:
            raise ValueError(f"protocol version {version}, this worker speaks {VERSION}")
        if kind not in Kind.__members__.values():
            raise ValueError(f"unknown kind of frame {kind}")
        return cls(kind=Kind(kind), generation=generation, sequence=sequence, agreement=agreement, length=length)


def header_of(call: Call, kind: Kind, agreement: int, length: int) -> Header:
    """Return the header of a frame of this call."""
    return Header(
        kind=kind, generation=call.generation, sequence=call.sequence or 0, agreement=agreement, length=length
    )


def pack_farewell(reason: str) -> bytes:
    """Return the payload of a FAREWELL frame, shortened to what a receiver accepts."""
    return reason.encode("ascii", "replace")[:MAX_FAREWELL_BYTES]


def unpack_farewell(payload: bytes | bytearray) -> str:
    """Return the reason; what is no text becomes question marks."""
    return payload.decode("ascii", "replace").replace("\ufffd", "?")


def bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array as bytes, without a copy, whatever its dtype (bfloat16 too)."""
    return array.view(np.uint8).data


class Cursor:
    """A position in several pieces of memory that are sent or received one after another.

    `limit` is how many bytes may move by now; it grows while results are still being computed. `of_tokens` tells that
    they are a header and tokens, between which a farewell may be said.
    """

    __slots__ = ("_index", "_offset", "_pieces", "done", "limit", "of_tokens", "total")

    def __init__(
        self, pieces: Sequence[memoryview | bytes], limit: int | None = None, *, of_tokens: bool = False
    ) -> None:
        self.of_tokens = of_tokens
        self._pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self._index = self._offset = 0
        self.done = 0
        self.total = sum(len(piece) for piece in self._pieces)
        self.limit = self.total if limit is None else limit

    def window(self, max_bytes: int) -> list[memoryview]:
        """Return the next memory to move, at most `max_bytes` and not beyond the limit."""
        left = min(max_bytes, self.limit - self.done)
        index, offset = self._index, self._offset
        views: list[memoryview] = []
        while left > 0 and len(views) < 64:
            piece = self._pieces[index][offset : offset + left]
            views.append(piece)
            left -= len(piece)
            index, offset = index + 1, 0
        return views

    def advance(self, num_bytes: int) -> None:
        """Note that `num_bytes` have moved."""
        self.done += num_bytes
        self._offset += num_bytes
        while self._index < len(self._pieces) and self._offset >= len(self._pieces[self._index]):
            self._offset -= len(self._pieces[self._index])
            self._index += 1
