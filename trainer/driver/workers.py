"""The trainer's worker group: made when first needed, kept between tasks, given up after a failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec, WorkerInfo

from .. import environment
from ..config import TrainerConfig
from ..engine.times import StartTimes
from .factory import WorkerFactory


class Workers:
    """Starts, uses and stops the group of one trainer."""

    def __init__(self, config: TrainerConfig) -> None:
        self._config = config
        self._group: WorkerGroup | None = None
        self._uses_ray = self._started = False
        self.replicas = 1

    @property
    def group(self) -> WorkerGroup:
        """The group; raises RuntimeError before `start`."""
        if self._group is None:
            raise RuntimeError("the workers were not started")
        return self._group

    @property
    def infos(self) -> dict[int, WorkerInfo]:
        """Where the workers run, by number."""
        return {} if self._group is None else self._group.infos

    @property
    def seen(self) -> dict[int, WorkerInfo]:
        """Where workers run or ran, by number."""
        return {} if self._group is None else self._group.seen

    def launch(self, say: Callable[[str], None], times: StartTimes | None = None) -> None:
        """Begin to start the workers unless they run already; says so, and adds to `times` what it took.

        Raises:
            RuntimeSetupError, PlacementError: there is no cluster for them.
        """
        if self._group is not None:
            return
        try:
            with (times or StartTimes()).part("devices" if self._config.local else "ray"):
                self._group = self._local_group() if self._config.local else self._ray_group(say)
                self._group.launch()
        except BaseException:
            self.close()
            raise

    def start(self, say: Callable[[str], None], times: StartTimes | None = None) -> None:
        """Start the workers unless they run already; says what is waited for, and adds to `times` what that took.

        Raises:
            RuntimeSetupError, PlacementError: they cannot be set up or placed.
        """
        if self._started:
            return
        self.launch(say, times)
        try:
            with (times or StartTimes()).part("workers"):
                for waiting in self.group.start():
                    say(waiting)
            self._started = True
        except BaseException:
            self.close()
            raise

    def resize(self, num_workers: int) -> None:
        """Change how many workers there shall be."""
        self.group.resize(num_workers)

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        if self._group is not None:
            self._group.close()
        self._group, self._started = None, False
        if self._uses_ray:
            from heliostat.cluster.pools.ray_session import leave_ray

            self._uses_ray = False
            leave_ray()

    def plan(self, num_microbatches: int, global_batch_size: int) -> dict[str, Any]:
        """How a step is computed, for the record and the screen."""
        return {
            "workers": self._config.workers,
            "min_workers": self._config.min_workers,
            "max_workers": self._config.max_workers,
            "replicas_per_worker": self.replicas,
            "num_microbatches": num_microbatches,
            "threads_per_worker": self._config.threads,
            "rows_per_microbatch": -(-global_batch_size // num_microbatches),
            "global_batch_size": global_batch_size,
        }

    def describe(self, plan: dict[str, Any], num_rows: int, steps_per_epoch: int | None) -> str:
        """The plan in one line."""
        steps = steps_per_epoch or -(-num_rows // plan["global_batch_size"])
        where = "this process" if self._config.workers == 0 else f"{plan['workers']} worker(s)"
        threads = plan["threads_per_worker"]
        cores = os.cpu_count() or 1
        hint = (
            ""
            if self._config.threads_per_worker
            else f" (of {cores} cores here; threads_per_worker= changes it, and bits)"
        )
        return (
            f"plan: {where} × {plan['replicas_per_worker']} replica(s), {threads} thread(s) each{hint}; {steps} steps "
            f"of {plan['global_batch_size']} rows in {plan['num_microbatches']} microbatches of up to "
            f"{plan['rows_per_microbatch']}"
        )

    def versions(self) -> dict[str, str]:
        """Versions of what the results depend on."""
        names = ("heliostat", "tensorflow", "keras", "numpy", "ray", "pyarrow")
        return {name: _version(name) for name in names}

    def _local_group(self) -> WorkerGroup:
        config = self._config
        replicas = None if config.replicas_per_worker == "auto" else config.replicas_per_worker
        self.replicas = replicas or _local_replicas()
        config.microbatches(self.replicas)
        factory, spec = WorkerFactory(replace(config, replicas_per_worker=self.replicas)), self._spec(None)
        return WorkerGroup(LocalPool(factory, spec), spec)

    def _ray_group(self, say: Callable[[str], None]) -> WorkerGroup:
        from heliostat.cluster.pools.ray_pool import RayPool, gpus_per_worker  # Ray takes a second to load
        from heliostat.cluster.pools.ray_session import join_ray, one_machine, warning_without_tokens

        config = self._config
        replicas = None if config.replicas_per_worker == "auto" else config.replicas_per_worker
        if replicas is not None:
            config.microbatches(replicas)
        say(f"starting {config.workers} worker(s)")
        self._uses_ray = join_ray(config.address, num_cpus=config.max_size * config.threads)
        if warning := warning_without_tokens():
            say(warning)
        gpus = gpus_per_worker(self._spec(replicas))
        self.replicas = replicas or max(1, gpus)
        config.microbatches(self.replicas)
        spec = self._spec(gpus)
        factory = WorkerFactory(replace(config, replicas_per_worker=self.replicas))
        return WorkerGroup(RayPool(factory, spec, loopback=one_machine()), spec)

    def _spec(self, gpus_per_worker: int | None) -> GroupSpec:
        config = self._config
        return GroupSpec(
            num_workers=config.group_size,
            min_workers=config.min_workers,
            max_workers=config.max_workers,
            cpus_per_worker=config.threads,
            gpus_per_worker=gpus_per_worker,
            start_timeout_s=config.start_timeout_s,
            deadline_s=config.deadline_s,
            env=dict(environment.TENSORFLOW),
        )


def _local_replicas() -> int:
    import tensorflow as tf  # workers=0 computes in this process

    return max(1, len(tf.config.list_physical_devices("GPU")))


def _version(name: str) -> str:
    for package in (name, f"{name}-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"
