"""What travels between two workers after the handshake: frames of a fixed header and a payload.

A receiver always knows which frame comes next and how long it is (or how long it may be), so what is on the wire is
only ever compared, never trusted. Payloads are raw memory in the host's byte order; nothing is pickled.

In the place of any frame a worker that stops may send a GOODBYE, which says why.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..errors import Call, ProtocolError
from ..vectors import Array

MAGIC = b"HELI"
VERSION = 2
_HEADER = struct.Struct("!4sBBxxIQQQ")
HEADER_BYTES = _HEADER.size
MAX_GOODBYE_BYTES = 2048


class Kind(IntEnum):
    """What a frame carries."""

    NODES = 1  # of the sender's nodes the slice that the receiver sums
    SUM = 2  # the finished slice of the sender
    WHOLE_NODES = 3  # the sender's nodes: every worker sums everything
    BROADCAST = 4  # bytes of the root
    GOODBYE = 5  # the sender stops; why, as text
    NOTICES = 6  # one `Notice` for each block that lies ready in memory shared with the receiver

    @property
    def call(self) -> str:
        """The call that a frame of this kind belongs to, in words."""
        return {Kind.BROADCAST: "broadcast", Kind.GOODBYE: "its end"}.get(self, "all-reduce")


class Notice(IntEnum):
    """What one byte of a NOTICES frame says."""

    NODES = 1  # the next block of the sender's nodes for the receiver's slice is there
    SUM = 2  # the next block of the sender's finished slice is there
    LEFT = 3  # no block comes any more; so are all bytes after it, then a GOODBYE follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fixed part of a frame.

    Attributes:
        kind: what the payload is.
        generation: of the group.
        sequence: number of the call.
        layout_checksum: of what all workers must have in common in this call: who brings which nodes, the layout of
            the vector, the operations; in a broadcast the root.
        length: bytes of the payload.
    """

    kind: Kind
    generation: int
    sequence: int
    layout_checksum: int
    length: int

    @classmethod
    def of(cls, call: Call, kind: Kind, layout_checksum: int, length: int) -> Header:
        """Return the header of a frame of this call."""
        return cls(
            kind=kind,
            generation=call.generation,
            sequence=call.sequence or 0,
            layout_checksum=layout_checksum,
            length=length,
        )

    def pack(self) -> bytes:
        """Return the header's bytes, in network order."""
        return _HEADER.pack(
            MAGIC, VERSION, self.kind, self.layout_checksum, self.generation, self.sequence, self.length
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Header:
        """Read a header; ValueError (in words for a message) if it is not one of this protocol."""
        magic, version, kind, layout_checksum, generation, sequence, length = _HEADER.unpack(data)
        if magic != MAGIC:
            raise ValueError(f"it begins with {magic!r} instead of {MAGIC!r}")
        if version != VERSION:
            raise ValueError(f"protocol version {version}, this worker speaks {VERSION}")
        if kind not in Kind.__members__.values():
            raise ValueError(f"unknown kind of frame {kind}")
        return cls(
            kind=Kind(kind),
            generation=generation,
            sequence=sequence,
            layout_checksum=layout_checksum,
            length=length,
        )


def pack_goodbye(reason: str) -> bytes:
    """Return the payload of a GOODBYE frame, shortened to what a receiver accepts."""
    return reason.encode("ascii", "replace")[:MAX_GOODBYE_BYTES]


def unpack_goodbye(payload: bytes | bytearray | memoryview) -> str:
    """Return the reason; what is no text becomes question marks."""
    return bytes(payload).decode("ascii", "replace").replace("\ufffd", "?")


def bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array as bytes, without a copy, whatever its dtype (bfloat16 too)."""
    return array.view(np.uint8).data


class Cursor:
    """A position in several pieces of memory that are sent or received one after another.

    Args:
        pieces: the memory.
        limit: how many bytes may move by now; grows while results are still being computed. None: all of them.

    Attributes:
        done: how many bytes have moved; of `total`.
    """

    __slots__ = ("_index", "_offset", "_pieces", "done", "limit", "total")

    def __init__(self, pieces: Sequence[memoryview | bytes | bytearray], limit: int | None = None) -> None:
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


class Outgoing(Cursor):
    """A frame to send, header first.

    Args:
        header: of the frame; its length is that of the payload.
        payload: the memory to send.
        limit: how many bytes, header included, may be sent by now. None: all of them.
    """

    __slots__ = ("header",)

    def __init__(self, header: Header, payload: Sequence[memoryview | bytes], limit: int | None = None) -> None:
        super().__init__([header.pack(), *payload], limit)
        self.header = header


class Incoming:
    """A frame to come: its header must be the one expected, then its payload goes where there is room for it.

    Args:
        header: expected.
        memory: where the payload goes, of just that length; None for new memory, and then it may also be shorter.
        independent: the peer can send it whatever the others do, so that it alone is to blame for its absence.

    Attributes:
        payload: new memory with the payload, if it was given any.
        is_goodbye: a GOODBYE has come instead.
    """

    def __init__(self, header: Header, memory: Sequence[memoryview] | None, *, independent: bool = True) -> None:
        self.header, self._memory, self.independent = header, memory, independent
        self._expected, self._start = header.pack(), bytearray(HEADER_BYTES)
        self._head, self._body = Cursor([self._start]), Cursor([])
        self.payload = memoryview(b"")
        self.is_goodbye = self._is_open = False

    @property
    def body_bytes(self) -> int:
        """Return how many bytes of the payload are here."""
        return self._body.done

    @property
    def is_complete(self) -> bool:
        """Whether the whole frame is here."""
        return self._is_open and self._body.done == self._body.total

    @property
    def last_byte(self) -> int | None:
        """Return the last byte of the payload, None if it has none; once the frame is complete."""
        pieces = [self.payload] if self._memory is None or self.is_goodbye else self._memory
        return pieces[-1][-1] if pieces and len(pieces[-1]) else None

    @property
    def cursor(self) -> Cursor:
        """Where the next bytes go."""
        return self._body if self._is_open else self._head

    def open(self, call: Call, peer: int) -> None:
        """Make room for the payload as soon as the header is here.

        Args:
            call: which call waits for the frame.
            peer: the rank of the sender.

        Raises:
            ProtocolError: it is another frame than the one expected.
        """
        if self._is_open or self._head.done < HEADER_BYTES:
            return
        header = self.header if self._start == self._expected else self._checked(call, peer)
        self._is_open, self.is_goodbye = True, header.kind is Kind.GOODBYE
        if self._memory is None or self.is_goodbye:
            self.payload = np.empty(header.length, np.uint8).data  # not written to yet: that would take its time
            self._body = Cursor([self.payload])
        else:
            self._body = Cursor(self._memory)

    def _checked(self, call: Call, peer: int) -> Header:
        """The header that has come instead of the usual one, if it is allowed."""
        expected = self.header
        try:
            header = Header.unpack(self._start)
        except ValueError as error:
            raise ProtocolError.frame(call, peer, str(error)) from None
        if header.kind is Kind.GOODBYE and header.length <= MAX_GOODBYE_BYTES:
            return header
        if header.kind is Kind.GOODBYE:
            raise ProtocolError.frame(call, peer, f"a goodbye of {header.length} bytes")
        if header.generation != expected.generation:
            raise ProtocolError.frame(call, peer, f"it is of generation {header.generation}")
        if (header.sequence, header.kind.call) != (expected.sequence, expected.kind.call):
            own, theirs = (f"{each.kind.call} {each.sequence}" for each in (expected, header))
            raise ProtocolError.out_of_step(call, peer, own, theirs)
        if header.kind is not expected.kind or header.layout_checksum != expected.layout_checksum:
            detail = "the two do not agree on the microbatches present, their assignment or the layout of the vector"
            raise ProtocolError.frame(call, peer, detail)
        if header.length > expected.length or (header.length < expected.length and self._memory is not None):
            bound = "at most " if self._memory is None else ""
            detail = f"{header.length} bytes announced where {bound}{expected.length} are expected"
            raise ProtocolError.frame(call, peer, detail)
        return header
