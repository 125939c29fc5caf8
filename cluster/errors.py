"""What can go wrong between workers.

    ClusterError                    anything this package raises
    ├── SpecError                   a group is asked for that cannot be
    ├── PlacementError              the cluster has no room for the workers, or they did not start in time
    ├── TaskFailed                  a worker died or raised; knows who, why and at which step
    ├── Dismissed                   the task is over for this worker, which has done nothing wrong
    └── CollectiveError             a call between workers failed; knows rank, generation and sequence
        ├── PeerLost                a peer's connection is closed: it died, or it stopped
        ├── PeerSilent              a peer did not move within the deadline
        ├── Aborted                 this worker was told to stop
        ├── OutOfStep               a peer is at another call than this worker
        ├── ProtocolError           a peer sent what this protocol does not allow
        ├── HandshakeError          a peer could not prove that it belongs to the run
        └── GenerationMismatch      a peer belongs to another membership of the group

All of them keep their fields when pickled, so they may cross process borders.
"""

from __future__ import annotations

from typing import Any


def _restore(cls: type[ClusterError], args: tuple[Any, ...], fields: dict[str, Any]) -> ClusterError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


class ClusterError(Exception):
    """Anything that `heliostat.cluster` raises about workers, hosts or the connections between them."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


class SpecError(ClusterError):
    """A worker group is asked for that cannot be."""


class PlacementError(ClusterError):
    """The workers could not be placed or started."""


class TaskFailed(ClusterError):
    """A task of the group was given up because of one worker; it has the `cause` and the `others` (`Failure`)."""

    def __init__(self, cause: Any, others: tuple[Any, ...] = ()) -> None:
        super().__init__(f"worker {cause.worker} {cause.kind.replace('_', ' ')}: {cause.reason}")
        self.cause = cause
        self.others = others


class Dismissed(ClusterError):
    """The task is over for this worker: another delivers its result, or it has delivered `result` itself."""

    def __init__(self, reason: str, result: Any = None) -> None:
        super().__init__(reason)
        self.result = result


class CollectiveError(ClusterError):
    """A call that all workers make together failed on this one; after it the connections are closed.

    Fields: `rank` (this worker), `generation`, `sequence` (the number of the call; None while connecting), `silent`
    (peers of which nothing had come for half the deadline).
    """

    silent: tuple[int, ...] = ()

    def __init__(self, what: str, *, rank: int, generation: int, sequence: int | None) -> None:
        where = "while connecting" if sequence is None else f"call {sequence}"
        super().__init__(f"worker {rank} (generation {generation}, {where}): {what}")
        self.rank = rank
        self.generation = generation
        self.sequence = sequence


class PeerLost(CollectiveError):
    """A peer's connection is closed while this worker still needs it.

    Fields: `peer`; `reason` (what the peer said when it left, or what the socket said); `blames` (the worker that the
    peer gave as its own reason, if it could still say so); `also` (other peers whose connections were closed by then).
    """

    def __init__(
        self,
        *,
        rank: int,
        peer: int,
        generation: int,
        sequence: int | None,
        reason: str,
        blames: int | None = None,
        also: tuple[int, ...] = (),
    ) -> None:
        others = f" Also closed by now: workers {', '.join(map(str, also))}." if also else ""
        super().__init__(
            f"lost worker {peer}: {reason}.{others} It was killed, its host went away, or it stopped because of an "
            "error of its own: see that worker's log.",
            rank=rank,
            generation=generation,
            sequence=sequence,
        )
        self.peer = peer
        self.reason = reason
        self.blames = blames
        self.also = also


class PeerSilent(CollectiveError):
    """A peer is connected but neither sent nor took a byte for the whole deadline.

    Fields: `peer`, `deadline_s`, `phase` (what was waited for), `also` (other peers silent for as long).
    """

    def __init__(
        self,
        *,
        rank: int,
        peer: int,
        generation: int,
        sequence: int | None,
        deadline_s: float,
        phase: str,
        also: tuple[int, ...] = (),
    ) -> None:
        others = f" Also silent: workers {', '.join(map(str, also))}." if also else ""
        super().__init__(
            f"worker {peer} was silent for {deadline_s:g} s in phase '{phase}'.{others} It hangs, its host is "
            "overloaded or the network between the two is cut; if its steps are just slow, raise the deadline.",
            rank=rank,
            generation=generation,
            sequence=sequence,
        )
        self.peer = peer
        self.deadline_s = deadline_s
        self.phase = phase
        self.also = also


class Aborted(CollectiveError):
    """Somebody on this worker called `abort`, usually because the driver ended the generation."""

    def __init__(self, *, rank: int, generation: int, sequence: int | None, reason: str) -> None:
        super().__init__(f"aborted: {reason}", rank=rank, generation=generation, sequence=sequence)
        self.reason = reason


class OutOfStep(CollectiveError):
    """A peer makes another call than this worker: the workers did not run the same program.

    Fields: `peer`, `own` and `theirs` (the two calls in words).
    """

    def __init__(self, *, rank: int, peer: int, generation: int, sequence: int | None, own: str, theirs: str) -> None:
        super().__init__(
            f"this worker is at {own}, worker {peer} is at {theirs}. All workers must make the same calls in the same "
            "order: look for code that runs on some workers only.",
            rank=rank,
            generation=generation,
            sequence=sequence,
        )
        self.peer = peer
        self.own = own
        self.theirs = theirs


class ProtocolError(CollectiveError):
    """A peer sent a frame that is malformed, too large, or not of the length this worker expects."""

    def __init__(self, *, rank: int, peer: int, generation: int, sequence: int | None, detail: str) -> None:
        super().__init__(
            f"worker {peer} sent a frame that is refused: {detail}. The workers run different versions or different "
            "models, or something else writes to this connection.",
            rank=rank,
            generation=generation,
            sequence=sequence,
        )
        self.peer = peer
        self.detail = detail


class HandshakeError(CollectiveError):
    """A peer could not prove that it knows the secret of the run, or did not speak the protocol at all.

    Fields: `peer` (whom this worker wanted to reach), `detail`.
    """

    def __init__(self, *, rank: int, peer: int, generation: int, detail: str) -> None:
        super().__init__(
            f"no trusted connection with worker {peer}: {detail}. Another run uses the same address, or the workers "
            "were not given the same secret.",
            rank=rank,
            generation=generation,
            sequence=None,
        )
        self.peer = peer
        self.detail = detail


class GenerationMismatch(CollectiveError):
    """A peer that knows the secret belongs to another generation of the group.

    Fields: `peer`, `theirs` (the peer's generation; ours is `generation`).
    """

    def __init__(self, *, rank: int, peer: int, generation: int, theirs: int) -> None:
        older, advice = (
            ("this worker", "It must ask the driver for its place in the group.")
            if theirs > generation
            else (f"worker {peer}", "It did not follow the group's last change in time.")
        )
        super().__init__(
            f"worker {peer} is in generation {theirs}: {older} is left over from an older group. {advice}",
            rank=rank,
            generation=generation,
            sequence=None,
        )
        self.peer = peer
        self.theirs = theirs
