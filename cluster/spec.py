"""What a worker group is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """Size and limits of a worker group.

    Attributes:
        num_workers: workers to begin with.
        min_workers: fewer than these do not go on without help; None means that a task begins with all `num_workers`
            and goes on with one.
        max_workers: the most there can be.
        cpus_per_worker: cores that Ray sets aside for each.
        gpus_per_worker: GPUs that Ray sets aside for each; None means that the group shares what the cluster has.
        start_timeout_s: how long to wait for all workers to be placed and ready.
        first_deadline_s: how long a worker waits for a silent peer, before steps have been timed.
        deadline_s: the same afterwards; None means ten times the median step, at least five seconds.
        settle_s: after an error of a worker's own, how long to wait for the others' reports before the run is stopped.
        env: environment variables of the workers' processes.
    """

    num_workers: int
    min_workers: int | None = None
    max_workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: int | None = None
    start_timeout_s: float = 300.0
    first_deadline_s: float = 300.0
    deadline_s: float | None = None
    settle_s: float = 5.0
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.cpus_per_worker < 1:
            raise SpecError(
                f"A group needs at least one worker with one core, got num_workers={self.num_workers} and "
                f"cpus_per_worker={self.cpus_per_worker}."
            )
        least, most = self.min_workers or 1, self.max_workers or self.num_workers
        if not 1 <= least <= self.num_workers <= most:
            raise SpecError(
                f"A group needs 1 <= min_workers <= num_workers <= max_workers, got min_workers={self.min_workers}, "
                f"num_workers={self.num_workers} and max_workers={self.max_workers}."
            )
        if min(self.start_timeout_s, self.first_deadline_s, self.deadline_s or 1.0, self.settle_s) <= 0:
            raise SpecError(
                f"Timeouts must be positive, got start_timeout_s={self.start_timeout_s}, "
                f"first_deadline_s={self.first_deadline_s}, deadline_s={self.deadline_s}, settle_s={self.settle_s}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where a worker runs: its number, machine and process, and the id of its Ray node (empty without Ray)."""

    worker: int
    host: str
    pid: int
    node: str = ""
