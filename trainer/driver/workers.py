"""The trainer's workers: started when first needed, kept between tasks, given up after a failure."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from dataclasses import replace

from heliostat.cluster.errors import PlacementError
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.spec import GroupSpec, WorkerInfo

from .. import environment
from ..config import TrainerConfig
from ..engine.times import StartTimes
from .display import Display
from .factory import WorkerFactory


class Workers:
    """Starts, uses and stops the group of one trainer; stops it, too, when nobody refers to the trainer any more.

    Attributes:
        replicas: of each worker; known once they are launched.

    Args:
        settings: the trainer's.
    """

    def __init__(self, settings: TrainerConfig) -> None:
        self._settings = settings
        self.replicas = 1
        self._group: WorkerGroup | None = None
        self._forsaken: weakref.finalize | None = None
        self._uses_ray = self._started = False
        self._size: int | None = None  # what `resize` has said

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
                self._forsaken = weakref.finalize(self, _free_aside, self._group, self._uses_ray)
                self._forsaken.atexit = False  # workers end with the program by themselves
                if self._size is not None:
                    self._group.resize(self._size)
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
            self._check()
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

    def _check(self) -> None:
        """Stop the workers if the Ray that they ran on is gone, so that the next call starts another, and say so."""
        try:
            self.group.hear()
        except PlacementError:
            self.close()
            raise

    def resize(self, num_workers: int) -> None:
        """Change how many there shall be, now or once they are started; from any thread."""
        self._size = num_workers
        if self._group is not None:
            self._group.resize(num_workers)

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        if self._forsaken is not None:
            self._forsaken.detach()
        group, uses_ray = self._group, self._uses_ray
        self._group = self._forsaken = None
        self._uses_ray = self._started = False
        _free(group, uses_ray)

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
        from heliostat.cluster.pools.ray_address import overlooked  # Ray takes a second to load
        from heliostat.cluster.pools.ray_pool import RayPool
        from heliostat.cluster.pools.ray_room import gpus_by_machine, gpus_per_worker, grant_line
        from heliostat.cluster.pools.ray_session import join_ray, one_machine, warning_without_tokens

        settings = self._settings
        replicas = None if settings.replicas_per_worker == "auto" else settings.replicas
        if replicas is not None:
            settings.microbatches(replicas)
        screen.say(f"starting {settings.workers} worker(s)")
        self._uses_ray = join_ray(settings.address, num_cpus=settings.max_size * settings.threads)
        by_machine = gpus_by_machine()
        gpus = gpus_per_worker(self._spec(replicas), by_machine)
        self.replicas = replicas or max(1, gpus)
        settings.microbatches(self.replicas)
        spec = self._spec(gpus)
        factory = WorkerFactory(replace(settings, replicas_per_worker=self.replicas))
        pool = RayPool(factory, spec, loopback=one_machine())
        room = pool.check_room()
        shared = _shared_cores_line(settings) if one_machine() else ""
        grant = grant_line(gpus, settings.workers, by_machine)
        for line in (overlooked(settings.address, os.environ), warning_without_tokens(), grant, shared, room):
            if line:
                screen.say(line)
        return WorkerGroup(pool, spec)

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


def _free(group: WorkerGroup | None, uses_ray: bool) -> None:
    if group is not None:
        group.close()
    if uses_ray:
        from heliostat.cluster.pools.ray_session import leave_ray

        leave_ray()


def _free_aside(group: WorkerGroup, uses_ray: bool) -> None:
    """Free the workers of a trainer that is gone, on a thread: whoever collects garbage may hold any lock."""
    threading.Thread(target=_free, args=(group, uses_ray), name="heliostat-free", daemon=True).start()


def _shared_cores_line(settings: TrainerConfig) -> str:
    """What to say if workers of this machine have more threads than it has cores; else nothing."""
    cores, workers, threads = len(os.sched_getaffinity(0)), settings.group_size, settings.threads
    if workers * threads <= cores:
        return ""
    return f"{workers} worker(s) with {threads} thread(s) each share the {cores} core(s) of this machine"


def _local_replicas() -> int:
    import tensorflow as tf  # workers=0 computes in this process

    return max(1, len(tf.config.list_physical_devices("GPU")))
