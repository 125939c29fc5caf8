"""This process as a task of a TensorFlow cluster, whose members change while it lives.

TensorFlow fixes a cluster when it starts: one list of tasks, and a process that is lost means a new start of all. But
a task may be alone in its cluster at first, and `Context.enable_collective_ops`, called again, gives the running server
another list, in which tasks keep their numbers, and another leader. So every worker draws a number for its life, starts
its server before anything is computed (devices are named after the task), and each generation of the group is a new
list. What of the last one was under way is aborted first: its records are thrown away, and a call that waits in them
would take the process along; so would any other thread that is inside TensorFlow meanwhile.

The server takes commands from whoever can reach its port: TensorFlow knows no secret. It is for private networks.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping

import tensorflow as tf
from tensorflow.core.protobuf.tensorflow_server_pb2 import ServerDef

from ..engine.seams import abort_collective_calls, is_running, join_collective_cluster, session_options
from ..errors import RuntimeSetupError

_JOB = "heliostat"
_NUM_PORTS_TRIED = 5
_MAX_TASKS = 1 << 30  # so many numbers that two workers of a cluster do not draw the same


class TensorFlowCluster:
    """Made by `start`; `abort` may come from any thread, all else from the worker's own.

    Attributes:
        task: this process's number in every cluster that it is in.
        port: where its server listens, on all interfaces.
        device: on which collectives run, the first GPU or the processor.
        members: tasks of the present cluster, and their addresses.
        intact: no collective of the present cluster was aborted or has failed.
        num_failures: collectives that failed since the last one that succeeded between these members.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.task, self.port = secrets.randbelow(_MAX_TASKS), 0
        self.members: dict[int, str] = {}
        self.intact = True
        self.num_failures = 0
        self._generation = -1
        self._limited: object = None
        self._lock = threading.Lock()

    @property
    def uses_nccl(self) -> bool:
        """Whether collectives run on a GPU."""
        return self.device.startswith("GPU")

    @property
    def adds(self) -> bool:
        """Whether sums are made where collectives run, instead of on the host."""
        return self.uses_nccl

    @classmethod
    def start(cls, device: str) -> TensorFlowCluster:
        """Start TensorFlow in this process with a server for collectives; settings must have been made.

        Raises:
            RuntimeSetupError: TensorFlow runs already, or the server cannot be started.
        """
        if is_running():
            raise RuntimeSetupError(
                "all_reduce='tensorflow' needs a server that TensorFlow starts with, and TensorFlow already runs in "
                "this process."
            )
        cluster = cls(device)
        for attempt in range(1, _NUM_PORTS_TRIED + 1):
            cluster.port = _free_port()
            try:
                alone = {cluster.task: f"127.0.0.1:{cluster.port}"}
                join_collective_cluster(cluster._definition(alone, cluster.task))
                break
            except tf.errors.OpError as error:  # somebody else has taken the port meanwhile
                if attempt == _NUM_PORTS_TRIED:
                    raise RuntimeSetupError(
                        f"TensorFlow's server for collectives could not be started on {attempt} ports in turn, the "
                        f"last one was {cluster.port}: {error.message}"
                    ) from error
        return cluster

    def join(self, members: Mapping[int, str], leader: int) -> None:
        """Become a member of a new cluster; `members` are the addresses of all tasks, the leader the same for all.

        Every member must have left the last cluster (`leave`) before any calls this, and joined before any calls a
        collective. No other thread of this process may be inside TensorFlow. Traced functions are optimised again
        when they are next called.
        """
        with self._lock:
            join_collective_cluster(self._definition(members, leader))
            if self.members != dict(members):
                self.num_failures = 0
            self.members, self.intact = dict(members), True

    def serve(self, generation: int) -> None:
        """From now on an abort of this generation means the collectives of the present cluster."""
        with self._lock:
            self._generation = generation

    def leave(self) -> None:
        """End what is under way in the present cluster; its collectives fail from now on."""
        with self._lock:
            if self.members:
                self._abort("this worker leaves the group")

    def abort(self, generation: int, reason: str) -> None:
        """Make collectives of a generation fail, unless another has begun; from any thread."""
        with self._lock:
            if generation == self._generation:
                self._abort(reason)

    @contextlib.contextmanager
    def limited(self, limit_s: float) -> Iterator[None]:
        """Abort collectives if the block takes longer."""
        token = object()
        timer = threading.Timer(limit_s, self._expire, (token, f"not done within {limit_s:g} s"))
        with self._lock:
            self._limited = token
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._limited = None

    def _expire(self, token: object, reason: str) -> None:
        with self._lock:
            if self._limited is token:
                self._abort(reason)

    def _abort(self, reason: str) -> None:
        self.intact = False
        abort_collective_calls(reason)

    def _definition(self, members: Mapping[int, str], leader: int) -> ServerDef:
        definition = ServerDef(protocol="grpc", job_name=_JOB, task_index=self.task)
        job = definition.cluster.job.add(name=_JOB)
        for task, address in members.items():
            job.tasks[task] = address
        options = definition.default_session_config
        options.CopyFrom(session_options())
        options.experimental.collective_group_leader = f"/job:{_JOB}/replica:0/task:{leader}"
        options.experimental.collective_nccl = self.uses_nccl
        return definition


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
