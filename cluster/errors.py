"""What can go wrong between workers.

    ClusterError                    anything this package raises
    ├── SpecError                   a group is asked for that cannot be
    ├── DiskError                   the driver's disk cannot be served to other machines
    ├── PlacementError              the cluster has no room for the workers, or they did not start in time
    │   ├── NoAnswerError           nobody answers at the address of a job server, or not to the end
    │   ├── PreflightError          machines of workers lack something; knows all of it
    │   └── UnreachableError        two workers that are up cannot reach each other; knows all such pairs
    ├── JobServerError              a cluster's job server refuses; knows the status of its answer
    │   └── NoSuchJobError          it does not know the job
    ├── TaskFailed                  the end of a task: a worker died or raised; knows who, why and at which step
    ├── Dismissed                   the task is over for this worker, which has done nothing wrong
    └── CollectiveError             a call between workers failed; knows which, and who is unresponsive
        ├── PeerError               mendable: a peer is gone, silent, a stranger, or of another generation
        ├── Aborted                 mendable: this worker was told to stop
        └── ProtocolError           a program error: the workers do not make the same calls with the same data

Whoever catches one asks a single question: does a new generation of the group mend it (`MENDABLE`), or would the same
happen again? All of them keep their fields when pickled, so they may cross process borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SUBMIT = "heliostat submit SCRIPT --address http://HEAD:8265"  # what leads to a cluster from everywhere


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


class DiskError(ClusterError):
    """The driver's disk cannot be served to other machines."""

    @classmethod
    def not_seen(cls, path: str, why: str) -> DiskError:
        """A folder of the driver's is another one for Ray.

        Args:
            path: of the folder.
            why: what its processes find there.
        """
        return cls(
            f"Ray's processes on the driver's machine do not see the driver's folder {path}: {why}. They run as "
            "another user, or in another container than this script. Give a folder that both see (run_dir=), or start "
            f"the script where Ray runs: {SUBMIT}."
        )

    @classmethod
    def silent(cls, limit_s: float) -> DiskError:
        """The process that serves it does not answer within so many seconds."""
        return cls(
            "Workers on other machines cannot reach this one's files: the process of Ray that serves them has not "
            f"answered for {limit_s:g} s. The disk of the run folder, of checkpoints or data stands still, or Ray "
            "could not start that process ('ray list actors' shows a ServedDisk). Then run the same command again."
        )

    @classmethod
    def gone(cls, why: str) -> DiskError:
        """The process that serves it has ended; `why` is a sentence."""
        return cls(
            f"Workers on other machines cannot reach this one's files: {why}. The process of Ray that serves them was "
            "ended, perhaps for want of memory on this machine, or with its Ray ('ray status' shows that). The next "
            "call of the trainer starts another."
        )


class PlacementError(ClusterError):
    """The workers could not be placed or started."""

    @classmethod
    def no_answer(cls, address: str, origin: str, why: str) -> PlacementError:
        """There is no Ray cluster at an address.

        Args:
            address: as host and port.
            origin: where this process has it from.
            why: what became of a connection.
        """
        return cls(
            f"There is no Ray cluster at {address} (from {origin}): {why}. If a firewall is between, submit the "
            f"script: {SUBMIT}. Else start a Ray there with 'ray start --head'; or use this machine alone: leave "
            "address out, after ray.shutdown() if this process is connected to a Ray."
        )

    @classmethod
    def no_node_here(cls, address: str, origin: str, why: str) -> PlacementError:
        """A Ray cluster answers, but this machine is none of it, and a driver must run on one.

        Args:
            address: as host and port.
            origin: where this process has it from.
            why: what Ray says.
        """
        return cls(
            f"The Ray cluster at {address} (from {origin}) answers, but runs no node on this machine ({why}), and a "
            f"script that joins a cluster must run on one. Submit the script: {SUBMIT}; or call from here: "
            "Trainer(address='http://HEAD:8265'); or make this machine a node: 'ray start --address=...'."
        )

    @classmethod
    def no_cluster_here(cls, origin: str) -> PlacementError:
        """This machine is no node of a Ray cluster; `origin` is who asks for the cluster of this machine."""
        return cls(
            f"'auto' (from {origin}) joins the Ray cluster of this machine, but none runs here. Start one with 'ray "
            f"start --head'; from outside of a cluster submit the script: {SUBMIT}; or leave the address out to use "
            "this machine alone."
        )

    @classmethod
    def no_address_of_jobs(cls, address: str) -> PlacementError:
        """A text is not the address of a job server."""
        return cls(
            f"{address!r} is not the address of a cluster's job server, such as 'http://10.0.0.1:8265': the host of "
            "the head, and the port of Ray's dashboard there."
        )

    @classmethod
    def no_job_server(cls, address: str, why: str) -> PlacementError:
        """Something answers at an address, but no job server.

        Args:
            address: with http://.
            why: what tells that, without a full stop.
        """
        return cls(
            f"What listens at {address} is not the job server of a Ray cluster: {why}. That has port 8265 of the head, "
            "unless Ray was started there with another --dashboard-port (port 6379 is for the cluster's own machines)."
        )

    @classmethod
    def token(cls, address: str, fault: str) -> PlacementError:
        """A cluster takes commands only from who has its token.

        Args:
            address: of its head, as host and port.
            fault: what is the matter with this machine's.
        """
        return cls(
            f"The Ray cluster at {address} takes commands only with its token, and {fault}. The right one is in "
            "~/.ray/auth_token on the cluster's head (ray get-auth-token prints it there): copy that file to the same "
            "place here, readable by you alone (chmod 600), and set RAY_AUTH_MODE=token."
        )

    @classmethod
    def other_versions(cls, address: str, theirs: tuple[str, str], ours: tuple[str, str]) -> PlacementError:
        """A cluster runs other versions than this process.

        Args:
            address: of its head, as host and port.
            theirs: versions of Ray and of Python on the cluster.
            ours: likewise, of this process.
        """
        return cls(
            f"The Ray cluster at {address} runs Ray {theirs[0]} with Python {theirs[1]}, this process Ray {ours[0]} "
            f"with Python {ours[1]}: they must be the same. Start the script with the Python of the cluster's machines "
            f"('which ray' there is beside it), or submit it, which does so: {SUBMIT}."
        )

    @classmethod
    def bad_runtime_env(cls, keys: Sequence[str], error: Exception) -> PlacementError:
        """Ray does not take a runtime_env with these keys (its values may hold secrets), or cannot send what it names.

        Args:
            keys: of it.
            error: what Ray says.
        """
        said = type(error).__name__
        if "env_vars" not in keys and "Failed to merge" not in str(error):  # which shows the values, and the job's
            said = f"{said}: {(str(error).splitlines() or [''])[0]}".rstrip(".: ")
        return cls(
            f"Ray does not take runtime_env={{{', '.join(map(repr, keys))}: ...}}: {said}. Within a job, what the "
            "job's runtime_env names already cannot be named again: give all to 'ray job submit --runtime-env-json'."
        )

    @classmethod
    def connected_without(cls, keys: Sequence[str]) -> PlacementError:
        """This process is connected to Ray already, so a runtime_env with these keys comes too late."""
        return cls(
            f"runtime_env={{{', '.join(map(repr, keys))}: ...}} comes too late: this process is connected to Ray "
            "already, with another one or none. Give it to the ray.init() that connects, or leave that call out."
        )

    @classmethod
    def ray_is_gone(cls, process: str) -> PlacementError:
        """The Ray that this process started has died; `process` is which of its processes ended, and how."""
        return cls(
            f"The Ray that was started on this machine for this program is gone: its {process} ended. The kernel ends "
            "it when memory runs out, as may whoever tidies up processes. It can start no worker any more; the same "
            "command starts another."
        )


class NoAnswerError(PlacementError):
    """Nobody answers at the address of a job server, or the answer did not come to its end; it may come yet."""

    def __init__(self, address: str, why: str) -> None:
        """Make the sentence.

        Args:
            address: with http://.
            why: what became of the connection, without a full stop.
        """
        super().__init__(
            f"The job server of a Ray cluster does not answer at {address}: {why}. It runs on the head, port 8265, and "
            "is open to other machines where Ray was started with 'ray start --head --dashboard-host=0.0.0.0' (with "
            "ray[default] installed). Through a firewall: ssh -L 8265:localhost:8265 HEAD, and the address "
            "http://localhost:8265."
        )


class JobServerError(ClusterError):
    """The job server of a cluster refuses.

    Attributes:
        status: of its answer, as in HTTP; 0 if it was not asked.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def refused(cls, address: str, request: str, status: int, text: str) -> JobServerError:
        """A request is not taken.

        Args:
            address: of the server.
            request: method and path.
            status: of the answer.
            text: of the answer, often a traceback of the server's, whose last line says what is wrong.
        """
        lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
        said = (lines or ["no reason"])[-1].rstrip(".")[:600] + "."
        return cls(f"The job server at {address} answers {request} with status {status}: {said}", status)

    @classmethod
    def too_large(cls, address: str, num_bytes: int, limit_bytes: int) -> JobServerError:
        """A package has more bytes than are sent at once.

        Args:
            address: of the server.
            num_bytes: of the package.
            limit_bytes: that it may have.
        """
        return cls(
            f"A package of {num_bytes / 1e6:,.0f} MB is more than the {limit_bytes / 1e6:,.0f} MB that go to the job "
            f"server at {address} at once."
        )


class NoSuchJobError(JobServerError):
    """A cluster does not know a job: it was never made there, was deleted, or Ray was started anew since."""

    def __init__(self, address: str, submission_id: str) -> None:
        super().__init__(
            f"The cluster at {address} knows no job {submission_id}: it was never made there, somebody has deleted it, "
            "or Ray has been started anew since, which forgets all jobs.",
            404,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Something that the machine of a worker lacks.

    Attributes:
        host: the machine.
        what: is wrong there, without a full stop.
        remedy: what to do about it, without a full stop.
    """

    host: str
    what: str
    remedy: str


class PreflightError(PlacementError):
    """Machines of workers do not have what the run needs; nothing was trained.

    Attributes:
        complaints: all that was found.
    """

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        """Make the sentence: what is wrong on several machines stands there once.

        Args:
            complaints: what was found; the same may be there twice.
        """
        hosts: dict[tuple[str, str], list[str]] = {}
        for each in complaints:
            named = hosts.setdefault((each.what, each.remedy), [])
            named += [] if each.host in named else [each.host]
        lines = [f"{', '.join(named)}: {what}. {remedy}." for (what, remedy), named in hosts.items()]
        machines = len({each.host for each in complaints})
        if len(lines) == 1:
            super().__init__(f"Looked at before training: on {lines[0]}")
        else:
            heading = f"Looked at before training, {len(lines)} things are not right on {machines} machine(s):"
            super().__init__("\n  ".join([heading, *lines]))
        self.complaints = tuple(dict.fromkeys(complaints))

    @classmethod
    def of_all(cls, errors: Sequence[PreflightError]) -> PreflightError:
        """What several workers have found, in one message."""
        return cls([each for error in errors for each in error.complaints])


class UnreachableError(PlacementError):
    """Workers that are up cannot reach each other.

    Attributes:
        pairs: their numbers.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], places: Mapping[int, str], detail: str) -> None:
        """Make the sentence.

        Args:
            pairs: numbers of the workers.
            places: by number, the host, address and port of each.
            detail: what one of the first pair has tried.
        """
        listed = ", ".join(f"{left} ({places[left]}) and {right} ({places[right]})" for left, right in pairs)
        super().__init__(
            f"Workers cannot reach each other: {listed}. Tried before training: {detail} Open all ports above 1023 "
            "between the hosts, or begin Ray on each of them with the --node-ip-address of the network that they share."
        )
        self.pairs = tuple(pairs)


class TaskFailed(ClusterError):
    """A task of the group was given up because of one worker.

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
