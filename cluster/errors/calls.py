"""Errors of a task, and of a call that all workers make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .base import ClusterError


class TaskFailed(ClusterError):
    """A task of the group was given up because of one worker.

    The trainer makes a `TrainingFailedError` of it, or raises the worker's own error.

    Attributes:
        cause: the `Failure` of that worker; Any, because it is defined in `group/`, a floor above.
        others: failures that came with it.
    """

    def __init__(self, cause: Any, others: tuple[Any, ...] = ()) -> None:
        super().__init__(f"worker {cause.worker} {cause.kind.replace('_', ' ')}: {cause.reason}")
        self.cause, self.others = cause, others


class Dismissed(ClusterError):
    """The task is over for this worker: another delivers its result, or it has delivered `result` itself."""

    def __init__(self, reason: str, result: object = None) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True, slots=True)
class Call:
    """Which call it is, as one of the workers sees it.

    Attributes:
        rank: this worker.
        generation: of the group.
        sequence: number of the call in its generation; None while the workers are still connecting.
    """

    rank: int
    generation: int
    sequence: int | None

    def __str__(self) -> str:
        where = "while connecting" if self.sequence is None else f"call {self.sequence}"
        return f"rank {self.rank} (generation {self.generation}, {where})"


class CollectiveError(ClusterError):
    """A call that all workers make together failed on this one; after it the connections are closed.

    The group mends most of them by itself: see the classes below it.

    Attributes:
        call: which.
        peer: the rank of the other worker whose fault was noticed first; None if it was this worker's.
        unresponsive: the ranks that this worker has not heard of for too long. A closed connection does not make its
            peer unresponsive: a process that ends tells so in other ways.
        what: what happened, without the call.
    """

    def __init__(self, call: Call, what: str, *, peer: int | None = None, unresponsive: tuple[int, ...] = ()) -> None:
        super().__init__(f"{call}: {what}")
        self.call, self.peer, self.unresponsive, self.what = call, peer, unresponsive, what


class PeerError(CollectiveError):
    """Another worker cannot take part in the call; who is left makes it again in a new generation."""

    @classmethod
    def lost(
        cls, call: Call, peer: int, reason: str, *, also: tuple[int, ...] = (), unresponsive: tuple[int, ...] = ()
    ) -> PeerError:
        """A peer's connection is closed while this worker still needs it.

        Args:
            call: which call failed.
            peer: whose connection.
            reason: what the peer said when it left, or what the socket said.
            also: other peers whose connections are closed by now.
            unresponsive: see `CollectiveError`.
        """
        others = f" Also closed by now: ranks {_listed(also)}." if also else ""
        what = (
            f"lost rank {peer}: {reason}.{others} It was killed, its host went away, or it stopped because of an "
            "error of its own: see that worker's log."
        )
        return cls(call, what, peer=peer, unresponsive=unresponsive)

    @classmethod
    def silent(cls, call: Call, peers: tuple[int, ...], limit_s: float, doing: str) -> PeerError:
        """Peers are connected, and have neither sent nor taken a byte for too long.

        Args:
            call: which call failed.
            peers: their ranks, the longest silent first.
            limit_s: how long that is, in seconds.
            doing: what this worker was doing meanwhile.
        """
        first, *others = peers
        also = f" Also silent: ranks {_listed(others)}." if others else ""
        what = (
            f"rank {first} was silent for {limit_s:g} s, {doing}.{also} It hangs, its host is overloaded or the "
            "network between the two is cut; if its steps are just slow, raise the deadline."
        )
        return cls(call, what, peer=first, unresponsive=peers)

    @classmethod
    def unreachable(cls, call: Call, peers: tuple[int, ...], limit_s: float, detail: str) -> PeerError:
        """There is no connection with these peers, although there was time to make one.

        Args:
            call: of this worker, while it connects.
            peers: their ranks.
            limit_s: how long that time was, in seconds.
            detail: what was tried with the first of them, with hosts and ports.
        """
        first, *others = peers
        also = f" Also missing: ranks {_listed(others)}." if others else ""
        what = (
            f"no connection with rank {first} within {limit_s:g} s: {detail}.{also} A firewall is between the two "
            "hosts, one of them gave the address of a network that the other is not in, or that worker hangs."
        )
        return cls(call, what, peer=first, unresponsive=peers)

    @classmethod
    def stranger(cls, call: Call, peer: int, detail: str) -> PeerError:
        """Whoever answers for a peer could not prove that it knows the run's secret, or does not speak the protocol."""
        what = (
            f"no trusted connection with rank {peer}: {detail}. Another run uses the same address, or the workers "
            "were not given the same secret."
        )
        return cls(call, what, peer=peer, unresponsive=(peer,))

    @classmethod
    def of_generation(cls, call: Call, peer: int, theirs: int) -> PeerError:
        """A peer that knows the secret is in another generation of the group, `theirs`."""
        older, advice = (
            ("this worker", "It must ask the driver for its place in the group.")
            if theirs > call.generation
            else (f"rank {peer}", "It did not follow the group's last change in time.")
        )
        what = f"rank {peer} is in generation {theirs}: {older} is left over from an older group. {advice}"
        return cls(call, what, peer=peer, unresponsive=(peer,))


class Aborted(CollectiveError):
    """Somebody on this worker called `abort`, usually because the driver ended the generation."""

    def __init__(self, call: Call, reason: str, unresponsive: tuple[int, ...] = ()) -> None:
        super().__init__(call, f"aborted: {reason}", unresponsive=unresponsive)


class ProtocolError(CollectiveError):
    """A peer sent what this worker does not expect in this call: they run different programs, or different data."""

    @classmethod
    def frame(cls, call: Call, peer: int, detail: str) -> ProtocolError:
        """A frame is malformed, too large, or not of the length or layout that is due."""
        what = (
            f"rank {peer} sent a frame that is refused: {detail}. The workers run different versions or different "
            "models, or something else writes to this connection."
        )
        return cls(call, what, peer=peer)

    @classmethod
    def out_of_step(cls, call: Call, peer: int, own: str, theirs: str) -> ProtocolError:
        """A peer makes another call than this worker; `own` and `theirs` are the two in words."""
        what = (
            f"this worker is at {own}, rank {peer} is at {theirs}. All workers must make the same calls in the same "
            "order: look for code that runs on some workers only."
        )
        return cls(call, what, peer=peer)


MENDABLE = (PeerError, Aborted)
"""Failures after which a new generation makes the call again; the others would only happen once more."""


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
