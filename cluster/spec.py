"""What a worker group is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import SpecError

FIRST_DEADLINE_S = 300.0  # how long a worker waits for a silent peer before steps have been timed
CONNECT_LIMIT_S = 10.0  # how long a worker tries to connect with its peers, all of which do so at that time
MIN_DEADLINE_S, DEADLINE_STEPS = 5.0, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """Size and limits of a worker group.

    Attributes:
        num_workers: workers to begin with.
        min_workers: fewer than these do not go on without help; None means that a task begins with all `num_workers`
            and goes on with one.
        max_workers: the most there can be; None means `num_workers`.
        cpus_per_worker: cores that Ray sets aside for each.
        gpus_per_worker: GPUs that Ray sets aside for each; None means that the group shares what the cluster has.
        start_timeout_s: how long to wait for all workers to be placed and ready, and for replacements.
        deadline_s: how long a worker may be silent; None means ten times the median step, at least five seconds.
        env: environment variables of the workers' processes.
    """

    num_workers: int
    min_workers: int | None = None
    max_workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: int | None = None
    start_timeout_s: float = 300.0
    deadline_s: float | None = None
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.cpus_per_worker < 1:
            raise SpecError(
                f"A group needs at least one worker with one core, got num_workers={self.num_workers} and "
                f"cpus_per_worker={self.cpus_per_worker}."
            )
        if not 1 <= self.num_to_go_on <= self.num_workers <= self.most_workers:
            raise SpecError(
                f"A group needs 1 <= min_workers <= num_workers <= max_workers, got min_workers={self.min_workers}, "
                f"num_workers={self.num_workers} and max_workers={self.max_workers}."
            )
        if min(self.start_timeout_s, 1.0 if self.deadline_s is None else self.deadline_s) <= 0:
            raise SpecError(
                f"Timeouts must be positive, got start_timeout_s={self.start_timeout_s}, deadline_s={self.deadline_s}."
            )

    @property
    def num_to_begin(self) -> int:
        """So many workers can begin a task."""
        return self.num_workers if self.min_workers is None else self.min_workers

    @property
    def num_to_go_on(self) -> int:
        """So many workers can go on with a task."""
        return 1 if self.min_workers is None else self.min_workers

    @property
    def most_workers(self) -> int:
        """The most workers there can be."""
        return self.num_workers if self.max_workers is None else self.max_workers

    def deadline_of(self, step_s: float) -> float:
        """How long a worker may be silent, in seconds, when steps take `step_s` (0.0 while that is unknown)."""
        return max(MIN_DEADLINE_S, DEADLINE_STEPS * step_s) if self.deadline_s is None else self.deadline_s


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where a worker runs.

    Attributes:
        worker: its number.
        host: name of its machine, for people: two may have the same.
        pid: number of its process there.
        node: id of its Ray node, empty without Ray.
        started: when its process did, in clock ticks since its machine did; 0 where unknown.
    """

    worker: int
    host: str
    pid: int
    node: str = ""
    started: int = 0
