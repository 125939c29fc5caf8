"""What a worker group is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """Size and limits of a worker group.

    Attributes:
        num_workers: workers that train together.
        cpus_per_worker: cores that Ray sets aside for each.
        gpus_per_worker: GPUs that Ray sets aside for each; None means that the group shares what the cluster has.
        start_timeout_s: how long to wait for all workers to be placed and ready.
        deadline_s: how long a worker waits for a silent peer before it gives up.
        settle_s: after a first failure, how long to wait for the others' reports before the run is stopped.
        env: environment variables of the workers' processes.
    """

    num_workers: int
    cpus_per_worker: int = 1
    gpus_per_worker: int | None = None
    start_timeout_s: float = 300.0
    deadline_s: float = 300.0
    settle_s: float = 5.0
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.cpus_per_worker < 1:
            raise SpecError(
                f"A group needs at least one worker with one core, got num_workers={self.num_workers} and "
                f"cpus_per_worker={self.cpus_per_worker}."
            )
        if min(self.start_timeout_s, self.deadline_s, self.settle_s) <= 0:
            raise SpecError(
                f"Timeouts must be positive, got start_timeout_s={self.start_timeout_s}, deadline_s={self.deadline_s}, "
                f"settle_s={self.settle_s}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Where a worker runs."""

    rank: int
    host: str
    pid: int
