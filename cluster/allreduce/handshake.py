"""How two workers convince each other that they belong to the same run, without input or output of its own.

    dialer   -> listener   hello (magic, version, generation, from, to, number of workers, nonce)
    listener -> dialer     hello, HMAC-SHA256(secret, "listener" + both hellos)
    dialer   -> listener   HMAC-SHA256(secret, "dialer" + both hellos)
    listener -> dialer     verdict, one byte

Each side proves that it knows the secret for a nonce that the other has just drawn, and for all the other fields; the
roles in the proofs keep one side's proof from being sent back to it. Every message has a fixed length. The connection
is not encrypted afterwards: this keeps strangers and mistakes out, not somebody who can change the network's traffic.

Why an HMAC of our own and not TLS: certificates would have to be made and distributed for processes that live for an
hour; the driver can hand out a secret, over Ray's own channel.

The two functions are generators: they yield (bytes to send, number of bytes then wanted) and are sent those bytes, or
are thrown Refused if the connection ends.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .frames import MAGIC, VERSION
from .listener import Address

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
    """Who speaks, and to whom.

    Attributes:
        generation: in which the sender is; its group has `num_workers`.
        sender: a rank, as `receiver`.
        nonce: 32 bytes that nobody has drawn before.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The workers of a generation, and which of them this one is.

    Attributes:
        rank: of this worker.
        addresses: by rank, where each worker listens.
        generation: its number.
        secret: known to the run's workers only; 16 bytes or more.
    """

    rank: int
    addresses: Sequence[Address]
    generation: int
    secret: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.rank < len(self.addresses):
            raise ValueError(f"rank must be below the number of addresses {len(self.addresses)}, got {self.rank}")
        if len(self.secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret must have at least {MIN_SECRET_BYTES} bytes, it has {len(self.secret)}")
        if self.generation < 0:
            raise ValueError(f"generation must not be negative, got {self.generation}")

    def hello(self, peer: int) -> Hello:
        """What this worker says first to a peer."""
        return Hello(
            generation=self.generation,
            sender=self.rank,
            receiver=peer,
            num_workers=len(self.addresses),
            nonce=os.urandom(NONCE_BYTES),
        )

    def judge(self, theirs: Hello) -> Verdict:
        """Decide about a dialer, once its proof is right."""
        if theirs.generation != self.generation:
            return Verdict.OTHER_GENERATION
        if theirs.receiver != self.rank or theirs.num_workers != len(self.addresses):
            return Verdict.OTHER_GROUP
        return Verdict.WELCOME if self.rank < theirs.sender < theirs.num_workers else Verdict.OTHER_GROUP

    def may_be_here(self, peer: int) -> bool:
        """Whether a peer may be on this host; if it is elsewhere in truth, dialling it locally fails."""
        return self.addresses[peer][0] == self.addresses[self.rank][0]


def dial(peers: Peers, peer: int) -> Steps:
    """The dialer's side.

    Args:
        peers: the workers of the generation.
        peer: whom this worker has dialled.

    Returns:
        the listener's hello, whose generation may be another than ours.

    Raises:
        Refused: whoever answers is not the peer, or does not want this worker.
    """
    own = peers.hello(peer)
    first = own.pack()
    answer = yield first, _HELLO.size + _PROOF_BYTES
    second, proof = answer[: _HELLO.size], answer[_HELLO.size :]
    theirs = Hello.unpack(second)
    if not hmac.compare_digest(proof, _prove(peers, b"listener", first, second)):
        raise Refused("it does not know this run's secret", claimed=peer)
    if (theirs.sender, theirs.receiver) != (peer, own.sender):
        raise Refused(f"it is worker {theirs.sender} and not {peer}")
    verdict = (yield _prove(peers, b"dialer", first, second), 1)[0]
    if verdict == Verdict.OTHER_GROUP:
        raise Refused(f"it expects {theirs.num_workers} workers, this worker {own.num_workers}", claimed=peer)
    return theirs


def answer(peers: Peers) -> Steps:
    """The listener's side.

    Args:
        peers: the workers of the generation.

    Returns:
        the dialer's hello, once its proof is right and it has been told the verdict.

    Raises:
        Refused: the dialer could not prove that it knows the secret.
    """
    first = yield b"", _HELLO.size
    theirs = Hello.unpack(first)
    second = peers.hello(theirs.sender).pack()
    try:
        proof = yield second + _prove(peers, b"listener", first, second), _PROOF_BYTES
    except Refused as left:
        raise Refused(f"{left}, without proof that it knows this run's secret", claimed=theirs.sender) from None
    if not hmac.compare_digest(proof, _prove(peers, b"dialer", first, second)):
        raise Refused("it does not know this run's secret", claimed=theirs.sender)
    yield bytes([peers.judge(theirs)]), 0
    return theirs


def _prove(peers: Peers, role: bytes, first: bytes, second: bytes) -> bytes:
    return hmac.digest(peers.secret, role + b"\0" + first + second, "sha256")
