"""This process as a task of a TensorFlow cluster, whose members change while it lives.

TensorFlow fixes a cluster when it starts: one list of tasks, and a process that is lost means a new start of all. But
a task may be alone in its cluster at first, and `Context.enable_collective_ops`, called again, gives the running server
another list, in which tasks keep their numbers, and another leader. So every worker draws a number for its life, starts
its server before anything is computed (devices are named after the task), and each generation of the group is a new
list. What of the last one was under way is aborted first: its records are thrown away, and a call that waits in them
would take the process along.

The server takes commands from whoever can reach its port: TensorFlow knows no secret. It is for private networks.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.protobuf.tensorflow_server_pb2 import ServerDef

from .errors import RuntimeSetupError
from .seams import abort_collective_calls, is_running, join_collective_cluster, session_options

_JOB = "heliostat"
_NUM_PORTS_TRIED = 5
_MAX_TASKS = 1 << 30  # so many numbers that two workers of a cluster do not draw the same


class TensorFlowCluster:
    """Made by `start`; `join` and `abort` may come from different threads.

    Attributes:
        task: this process's number in every cluster that it is in.
        port: where its server listens, on all interfaces.
        device: on which collectives run, the first GPU or the processor.
    """

    def __init__(self, task: int, port: int, device: str) -> None:
        self.task, self.port, self.device = task, port, device
        self.num_failures = 0
        self.members: dict[int, str] = {}
        self._generation = -1
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
        task = secrets.randbelow(_MAX_TASKS)
        cluster = cls(task, 0, device)
        for attempt in range(1, _NUM_PORTS_TRIED + 1):
            cluster.port = _free_port()
            try:
                join_collective_cluster(cluster._definition({task: f"127.0.0.1:{cluster.port}"}, task))
                break
            except tf.errors.OpError as error:  # somebody else has taken the port meanwhile
                if attempt == _NUM_PORTS_TRIED:
                    raise RuntimeSetupError(
                        f"TensorFlow's server for collectives could not be started on {attempt} ports in turn, the "
                        f"last one was {cluster.port}: {error.message}"
                    ) from error
        return cluster

    def join(self, generation: int, members: Mapping[int, str], leader: int) -> None:
        """Become a member of a new cluster; `members` are the addresses of all tasks, the leader the same for all.

        Every member must have left the last cluster (`leave`) before any calls this, and joined before any calls a
        collective.
        """
        with self._lock:
            join_collective_cluster(self._definition(members, leader))
            if self.members != dict(members):
                self.num_failures = 0
            self._generation, self.members = generation, dict(members)

    def leave(self) -> None:
        """End what is under way in the present cluster; collectives fail from now on."""
        self.abort(self._generation, "this worker leaves the group")

    def abort(self, generation: int, reason: str) -> None:
        """Make collectives of a generation fail, unless another has begun; from any thread."""
        with self._lock:
            if generation == self._generation >= 0:
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
