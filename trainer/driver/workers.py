"""The trainer's workers: started when first needed, kept between tasks, given up after a failure."""

from __future__ import annotations

import sys
from dataclasses import replace

from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec, WorkerInfo

from .. import environment
from ..config import TrainerConfig
from ..engine.times import StartTimes
from .display import Display
from .factory import WorkerFactory


class Workers:
    """Starts, uses and stops the group of one trainer.

    Attributes:
        replicas: of each worker; known once they are launched.

    Args:
        settings: the trainer's.
    """

    def __init__(self, settings: TrainerConfig) -> None:
        self._settings = settings
        self.replicas = 1
        self._holder: TrainerConfig | None = None
        self._group: WorkerGroup | None = None
        self._uses_ray = self._started = False

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

    def launch(self, screen: Display, times: StartTimes) -> None:
        """Begin to start the workers unless they run already; says so, and adds to `times` what it took.

        Raises:
            RuntimeSetupError, PlacementError: there is no cluster for them.
        """
        if self._group is not None:
            return
        try:
            with times.part("devices" if self._settings.local else "ray"):
                self._group = self._local_group() if self._settings.local else self._ray_group(screen)
                self._group.launch()
        except BaseException:
            self.close()
            raise

    def start(self, screen: Display, times: StartTimes) -> None:
        """Start the workers unless they run already; says what is waited for, and adds to `times` what that took.

        Raises:
            RuntimeSetupError, PlacementError: they cannot be set up or placed.
        """
        if self._started:
            return
        self.launch(screen, times)
        try:
            with times.part("workers"):
                for waiting in self.group.start():
                    screen.say(waiting)
            self._started = True
        except BaseException:
            self.close()
            raise

    def hold_model_of(self, settings: TrainerConfig) -> None:
        """They hold the trained model of the trainer with these settings."""
        self._holder = settings

    def holds_model_of(self, settings: TrainerConfig) -> bool:
        """Whether they hold the trained model of that trainer."""
        return self._holder is settings

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        if self._group is not None:
            self._group.close()
        self._group = self._holder = None
        self._started = False
        if self._uses_ray:
            from heliostat.cluster.pools.ray_session import leave_ray

            self._uses_ray = False
            leave_ray()

    def _local_group(self) -> WorkerGroup:
        settings = self._settings
        self.replicas = _local_replicas() if settings.replicas_per_worker == "auto" else settings.replicas
        settings.microbatches(self.replicas)
        spec = self._spec(None)
        keras = sys.modules.get("keras")  # who has set a policy has loaded it
        policy = None if keras is None else keras.config.dtype_policy()
        factory = WorkerFactory(replace(settings, replicas_per_worker=self.replicas), policy)
        return WorkerGroup(LocalPool(factory, spec), spec)

    def _ray_group(self, screen: Display) -> WorkerGroup:
        from heliostat.cluster.pools.ray_pool import RayPool, gpus_per_worker  # Ray takes a second to load
        from heliostat.cluster.pools.ray_session import join_ray, one_machine, warning_without_tokens

        settings = self._settings
        replicas = None if settings.replicas_per_worker == "auto" else settings.replicas
        if replicas is not None:
            settings.microbatches(replicas)
        screen.say(f"starting {settings.workers} worker(s)")
        self._uses_ray = join_ray(settings.address, num_cpus=settings.max_size * settings.threads)
        if warning := warning_without_tokens():
            screen.say(warning)
        gpus = gpus_per_worker(self._spec(replicas))
        self.replicas = replicas or max(1, gpus)
        settings.microbatches(self.replicas)
        spec = self._spec(gpus)
        factory = WorkerFactory(replace(settings, replicas_per_worker=self.replicas))
        return WorkerGroup(RayPool(factory, spec, loopback=one_machine()), spec)

    def _spec(self, gpus_per_worker: int | None) -> GroupSpec:
        settings = self._settings
        return GroupSpec(
            num_workers=settings.group_size,
            min_workers=settings.min_workers,
            max_workers=settings.max_workers,
            cpus_per_worker=settings.threads,
            gpus_per_worker=gpus_per_worker,
            start_timeout_s=settings.start_timeout_s,
            deadline_s=settings.deadline_s,
            env=dict(environment.TENSORFLOW),
        )


def _local_replicas() -> int:
    import tensorflow as tf  # workers=0 computes in this process

    return max(1, len(tf.config.list_physical_devices("GPU")))
