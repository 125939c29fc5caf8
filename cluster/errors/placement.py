"""Errors before workers work: no cluster, no room, machines that lack something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .base import ClusterError

SUBMIT = "heliostat submit SCRIPT --address http://HEAD:8265"  # what leads to a cluster from everywhere


class DiskError(ClusterError):
    """The driver's disk cannot be served to other machines.

    Raised when workers on other machines need files of this one. The message says whether its process is slow, gone, or
    another user's.
    """

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
    """The workers could not be placed or started.

    There is no cluster at the address, no room in it, or it did not answer in time. The message says which, and how to
    reach it.
    """

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
    """Nobody answers at the address of a job server, or the answer did not come to its end; it may come yet.

    See whether the head runs, and whether a firewall is between.
    """

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

    The message lists all that was found, by machine, with what mends it.

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
            super().__init__(f"Before training, on {lines[0]}")
        else:
            heading = f"Before training, {len(lines)} things are not right on {machines} machine(s):"
            super().__init__("\n  ".join([heading, *lines]))
        self.complaints = tuple(dict.fromkeys(complaints))

    @classmethod
    def of_all(cls, errors: Sequence[PreflightError]) -> PreflightError:
        """What several workers have found, in one message."""
        return cls([each for error in errors for each in error.complaints])


class UnreachableError(PlacementError):
    """Workers that are up cannot reach each other.

    Tried before training. Open the ports between the hosts that the message names.

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
