"""How two workers convince each other that they belong to the same run, without input or output of its own.

    dialer   -> listener   hello (magic, version, generation, from, to, number of workers, nonce)
    listener -> dialer     hello, HMAC-SHA256(secret, "listener" + both hellos)
    dialer   -> listener   HMAC-SHA256(secret, "dialer" + both hellos)
    listener -> dialer     verdict, one byte

Each side proves that it knows the secret for a nonce that the other has just drawn, and for all the other fields; the
roles in the proofs keep one side's proof from being sent back to it. Every message has a fixed length. The connection
is not encrypted afterwards: this keeps strangers and mistakes out, not somebody who can change the network's traffic.

The two functions are generators: they yield (bytes to send, number of bytes then wanted) and are sent those bytes, or
are thrown Refused if the connection ends.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import IntEnum

from .frames import MAGIC, VERSION

_HELLO = struct.Struct("!4sHxxQIII32s")
_PROOF_BYTES = 32
NONCE_BYTES = 32
MIN_SECRET_BYTES = 16

Steps = Generator[tuple[bytes, int], bytes, "Hello"]


class Verdict(IntEnum):
    """The listener's answer to a dialer whose proof is right."""

    WELCOME = 1
    OTHER_GENERATION = 2
    OTHER_GROUP = 3


class Refused(Exception):
    """The other side is not let in; the text says why. `claimed` is the rank it claims, without proof."""

    def __init__(self, why: str, claimed: int | None = None) -> None:
        super().__init__(why)
        self.claimed = claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who speaks, and to whom."""

    generation: int
    sender: int
    receiver: int
    num_workers: int
    nonce: bytes

    def pack(self) -> bytes:
        """Return the bytes of the message."""
        return _HELLO.pack(MAGIC, VERSION, self.generation, self.sender, self.receiver, self.num_workers, self.nonce)

    @classmethod
    def unpack(cls, data: bytes) -> Hello:
        """Read a message; raises Refused if it is not one of this protocol and version."""
        magic, version, generation, sender, receiver, num_workers, nonce = _HELLO.unpack(data)
        if magic != MAGIC:
            raise Refused("it does not speak this protocol")
        if version != VERSION:
            raise Refused(f"it speaks protocol version {version}, this worker {VERSION}", claimed=sender)
        return cls(generation=generation, sender=sender, receiver=receiver, num_workers=num_workers, nonce=nonce)


def dial(own: Hello, secret: bytes) -> Steps:
    """The dialer's side; returns the listener's hello, whose generation may be another than ours. Raises Refused."""
    first = own.pack()
    answer = yield first, _HELLO.size + _PROOF_BYTES
    second, proof = answer[: _HELLO.size], answer[_HELLO.size :]
    theirs = Hello.unpack(second)
    if not hmac.compare_digest(proof, _prove(secret, b"listener", first, second)):
        raise Refused("it does not know this run's secret", claimed=own.receiver)
    if (theirs.sender, theirs.receiver) != (own.receiver, own.sender):
        raise Refused(f"it is worker {theirs.sender} and not {own.receiver}")
    verdict = (yield _prove(secret, b"dialer", first, second), 1)[0]
    if verdict == Verdict.OTHER_GROUP:
        raise Refused(f"it expects {theirs.num_workers} workers, this worker {own.num_workers}", claimed=own.receiver)
    return theirs


def answer(own: Callable[[Hello], Hello], judge: Callable[[Hello], Verdict], secret: bytes) -> Steps:
    """The listener's side; returns the dialer's hello once its proof is right and the verdict is given.

    `own` makes this worker's hello for a dialer, `judge` the verdict on it. Raises Refused.
    """
    first = yield b"", _HELLO.size
    theirs = Hello.unpack(first)
    second = own(theirs).pack()
    try:
        proof = yield second + _prove(secret, b"listener", first, second), _PROOF_BYTES
    except Refused as left:
        raise Refused(f"{left}, without proof that it knows this run's secret", claimed=theirs.sender) from None
    if not hmac.compare_digest(proof, _prove(secret, b"dialer", first, second)):
        raise Refused("it does not know this run's secret", claimed=theirs.sender)
    yield bytes([judge(theirs)]), 0
    return theirs


def _prove(secret: bytes, role: bytes, first: bytes, second: bytes) -> bytes:
    return hmac.digest(secret, role + b"\0" + first + second, "sha256")
