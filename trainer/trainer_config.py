"""The settings of a trainer, checked when they are made: where it computes, and what its results depend on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from .checked import check_choice, check_count, check_seconds
from .errors import ConfigurationError
from .shipping import InProcess, Shipped

GradientDtype = Literal["bfloat16"]
Device = Literal["auto", "gpu", "cpu"]
MixedHardware = Literal["refuse", "allow"]
MIN_DEADLINE_S, MAX_DEADLINE_S = 3.0, 7 * 24 * 3600.0
NO_CODE = InProcess(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What each worker has of its machine.

    Attributes:
        replicas: its devices.
        threads: TensorFlow's intra-op threads.
        device: what its devices are.
    """

    replicas: int = 1
    threads: int = 1
    device: Literal["gpu", "cpu"] = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Where a trainer computes, and what its results depend on.

    Attributes:
        build_model: the user's function that makes the model.
        workers: number of workers; 0 computes in this process, without Ray.
        replicas_per_worker: devices of each worker; "auto" means all its GPUs, or one CPU device.
        num_microbatches: V; None means the smallest power of two that gives every replica one, "auto" the same or twice
            as many, again and again, until the first step finds the memory it needs.
        threads_per_worker: TensorFlow's intra-op threads per worker; None means an equal share of the cores at the
            first start of a run, 1 with `in_process`.
        device: what to compute on; "auto" means GPUs where there are some.
        mixed_hardware: what to do about a worker whose hardware selects other kernels.
        address: the Ray cluster; None for the job's, the connection's or that of `HELIOSTAT_ADDRESS`, else this machine
            alone; "auto" for the cluster this machine belongs to, "local" for this machine.
        seed: of initial weights, row order and random layers.
        deterministic: ask TensorFlow for deterministic kernels.
        min_workers: a run begins with so many and goes on with so many; None begins with all and goes on with one.
        max_workers: the most there can be; None for `workers`.
        gradient_dtype: how gradients are rounded before they are summed, "bfloat16" or None.
        balance: whether a slow worker gets fewer microbatches.
        in_process: run the workers as threads of this process, joined by real sockets.
        deadline_s: how long a worker may not answer; None for ten times the median step, at least five seconds.
        start_timeout_s: how long to wait for workers to start.
    """

    build_model: Shipped = NO_CODE
    workers: int = 1
    replicas_per_worker: int | Literal["auto"] = "auto"
    num_microbatches: int | Literal["auto"] | None = None
    threads_per_worker: int | None = None
    device: Device = "auto"
    mixed_hardware: MixedHardware = "refuse"
    address: str | None = None
    seed: int = 0
    deterministic: bool = True
    in_process: bool = False
    deadline_s: float | None = None
    start_timeout_s: float = 300.0
    min_workers: int | None = None
    max_workers: int | None = None
    gradient_dtype: GradientDtype | None = None
    balance: bool = True

    def __post_init__(self) -> None:
        check_count("workers", self.workers, least=0)
        if self.replicas_per_worker != "auto":
            check_count("replicas_per_worker", self.replicas_per_worker)
        if self.num_microbatches not in (None, "auto"):
            check_count("num_microbatches", self.num_microbatches)
        if self.threads_per_worker is not None:
            check_count("threads_per_worker", self.threads_per_worker)
        self._check_sizes()
        self._check_times()
        check_choice("device", self.device, get_args(Device))
        check_choice("mixed_hardware", self.mixed_hardware, get_args(MixedHardware))
        if self.gradient_dtype not in (None, "bfloat16"):
            raise ConfigurationError(f"gradient_dtype={self.gradient_dtype!r}; it takes 'bfloat16' or None.")
        if not isinstance(self.balance, bool):
            raise ConfigurationError(f"balance={self.balance!r}; it takes True or False.")
        check_count("seed", self.seed, least=0)
        if self.seed >= 2**32:
            raise ConfigurationError(f"seed={self.seed} is too large: Keras and numpy take 32 bits.")
        if self.address is not None and not (isinstance(self.address, str) and self.address):
            raise ConfigurationError(
                f"address={self.address!r}; it takes 'auto', 'local', or host and port of a Ray cluster's head, "
                "such as '10.0.0.1:6379'."
            )
        if self.local and self.address is not None:
            raise ConfigurationError(
                f"workers=0 and in_process=True compute in this process, so address={self.address!r} has no use. Leave "
                "it out, or give workers=1 or more."
            )

    def _check_sizes(self) -> None:
        for name in ("min_workers", "max_workers"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        least, most = self.min_workers or 1, self.max_workers or self.group_size
        if self.workers == 0 and (self.min_workers or self.max_workers):
            raise ConfigurationError(
                "workers=0 computes in this process, so min_workers and max_workers have no use. Leave them out, or "
                "give workers=1 or more."
            )
        if not least <= self.group_size <= most:
            raise ConfigurationError(
                f"min_workers={self.min_workers}, workers={self.workers}, max_workers={self.max_workers}: it takes "
                "min_workers <= workers <= max_workers."
            )

    def _check_times(self) -> None:
        check_seconds("start_timeout_s", self.start_timeout_s)
        if self.deadline_s is None:
            return
        check_seconds("deadline_s", self.deadline_s)
        if not MIN_DEADLINE_S <= self.deadline_s <= MAX_DEADLINE_S:
            raise ConfigurationError(
                f"deadline_s={self.deadline_s!r}; it takes {MIN_DEADLINE_S:g} (healthy workers say every second that "
                f"they live) to {MAX_DEADLINE_S:g} seconds (seven days), or None for ten times the median step."
            )

    @property
    def local(self) -> bool:
        """Whether everything happens in this process, without Ray."""
        return self.workers == 0 or self.in_process

    @property
    def group_size(self) -> int:
        """Workers that train together, counting this process as one."""
        return max(1, self.workers)

    @property
    def threads(self) -> int:
        """TensorFlow's intra-op threads of each worker, once `threads_per_worker` is a number."""
        if self.threads_per_worker is None:
            raise RuntimeError("how many threads workers have is known when there are workers")
        return self.threads_per_worker

    @property
    def max_size(self) -> int:
        """The most workers there can be, counting this process as one."""
        return self.max_workers or self.group_size

    def rows_per_microbatch(self, global_batch_size: int) -> int:
        """The most rows of a microbatch, once `num_microbatches` is a number."""
        return -(-global_batch_size // self.total_microbatches)

    @property
    def replicas(self) -> int:
        """Replicas of each worker, once `replicas_per_worker` is a number."""
        if self.replicas_per_worker == "auto":
            raise RuntimeError("how many replicas there are is known when there are workers")
        return self.replicas_per_worker

    @property
    def total_microbatches(self) -> int:
        """V, once `for_run` has made it a number."""
        if not isinstance(self.num_microbatches, int):
            raise RuntimeError("how many microbatches there are is known when there are workers")
        return self.num_microbatches

    @property
    def for_equal_bits(self) -> dict[str, int]:
        """The arguments that a run of another size, or elsewhere, must be given for the bits of this one."""
        fixed = {"num_microbatches": self.total_microbatches}
        return fixed if self.device == "gpu" else fixed | {"threads_per_worker": self.threads}

    def with_share(self, share: WorkerShare) -> TrainerConfig:
        """These settings with the device as it turned out, and replicas and threads as numbers."""
        return replace(self, replicas_per_worker=share.replicas, threads_per_worker=share.threads, device=share.device)

    def for_run(self, share: WorkerShare, stored: int | None = None) -> TrainerConfig:
        """As `with_share`, and `num_microbatches` as a number; `stored` is that of the run that goes on, None without.

        Raises:
            ConfigurationError: fewer microbatches than replicas.
        """
        return replace(self.with_share(share), num_microbatches=self.microbatches(share.replicas, stored))

    def microbatches(self, replicas: int, stored: int | None = None) -> int:
        """V for `replicas` replicas per worker; `stored` is that of the run that goes on.

        Raises:
            ConfigurationError: fewer microbatches than replicas.
        """
        total = self.max_size * replicas
        if not isinstance(self.num_microbatches, int):
            if stored is not None:
                return stored
            return 1 << (total - 1).bit_length()
        if self.num_microbatches < total:
            raise ConfigurationError(
                f"num_microbatches={self.num_microbatches} is less than the {total} replicas ({self.max_size} "
                f"workers × {replicas}): some would have nothing to compute. Give at least {total}, or fewer workers."
            )
        return self.num_microbatches
