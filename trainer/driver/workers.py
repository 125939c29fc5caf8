"""The trainer's workers: started when first needed, kept between tasks, given up after a failure."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.cluster.cores import cores_per_worker, cores_to_ask, usable_cores
from heliostat.cluster.disk.served import Root
from heliostat.cluster.errors import DiskError, PlacementError
from heliostat.cluster.group.start import start_workers
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import LocalPool
from heliostat.cluster.pools.ray_ahead import RayAhead, begin_ahead
from heliostat.cluster.spec import GroupSpec, WorkerInfo

from .. import environment
from ..engine.times import StartTimes
from ..errors import StorageError
from ..hardware import gpus_of_machine, leave_gpus
from ..preflight import Luggage, luggage_of
from ..quiet_load import load_tensorflow
from ..shipping import InProcess
from ..trainer_config import TrainerConfig, WorkerShare
from .asked import asked_address, checked_runtime_env
from .display import Display
from .doing import Doing
from .factory import WorkerFactory
from .start_lines import idle_cores_line, shared_cores_line
from .words import count

if TYPE_CHECKING:
    import keras
    from heliostat.cluster.disk.disk import Disk


class Workers:
    """Starts, uses and stops the group of one trainer; stops it, too, when nobody refers to the trainer any more.

    Attributes:
        share: what each worker has of its machine; known once they are launched.

    Args:
        settings: the trainer's.
        runtime_env: what Ray is to set up for the workers' processes.

    Raises:
        ConfigurationError: the address of the cluster is none, or `runtime_env` has no use.
    """

    def __init__(self, settings: TrainerConfig, runtime_env: Mapping[str, Any] | None = None) -> None:
        self._settings = settings
        self._runtime_env = checked_runtime_env(runtime_env, settings)
        self._asked = asked_address(settings)
        self.share = WorkerShare()
        self._group: WorkerGroup | None = None
        self._forsaken: weakref.finalize | None = None
        self._uses_ray = self._started = False
        self._ahead: RayAhead | None = None  # Ray, until the workers are launched
        self._disk: Disk | None = None  # where workers may be on other machines
        self._size: int | None = None  # what `resize` has said
        self._code: list[object] = []

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
    def hosts(self) -> dict[int, str]:
        """Names of the machines where the workers run, by worker."""
        return {worker: info.host for worker, info in self.infos.items()}

    @property
    def seen(self) -> dict[int, WorkerInfo]:
        """Where workers run or ran, by number."""
        return {} if self._group is None else self._group.seen

    def expect(self, *code: object) -> None:
        """Tell which code these workers will be sent besides `build_model`, so that they are started where it runs."""
        self._code = [each for each in code if not isinstance(each, InProcess) and each is not None]

    def begin(self) -> None:
        """Let Ray be loaded and connected to from now on, beside whatever the program does until workers are wanted."""
        if self._settings.local or self._ahead is not None:
            return
        self._ahead = begin_ahead(self._asked, num_cpus=self._cores_here(None), runtime_env=self._runtime_env)
        if self._ahead is not None:
            self._forsaken = weakref.finalize(self, _give_up_aside, self._ahead)
            self._forsaken.atexit = False

    def launch(self, screen: Display, times: StartTimes, threads: int | None = None) -> None:
        """Begin to start the workers unless they run already, with as many threads: a run's bits depend on those.

        Args:
            screen: is told so.
            times: what it took is added.
            threads: of a worker of the run that goes on, None for a new one.

        Raises:
            RuntimeSetupError, PlacementError: there is no cluster for them.
        """
        if self._group is not None and self._has_other_threads(threads):
            now = self.share.threads
            screen.say(f"the run has {count(threads or 0, 'thread')} for each worker, not {now}: others are started")
            self.close()
        if self._group is not None:
            return
        if environment.wanted_workers() is not None:
            screen.say(f"workers={self._settings.workers}, as {environment.WORKERS} (--workers) says, not the script")
        try:
            with times.part("devices" if self._settings.local else "ray"):
                make_group = self._local_group if self._settings.local else self._ray_group
                self._group = make_group(screen, self._settings.threads_per_worker or threads)
                if self._forsaken is not None:
                    self._forsaken.detach()
                self._forsaken = weakref.finalize(self, _free_aside, self._group, self._disk, self._uses_ray)
                self._forsaken.atexit = False  # workers end with the program by themselves
                if self._size is not None:
                    self._group.resize(self._size)
                self._group.launch()
                if not self._settings.local:
                    _keep_off_gpus(screen)
        except BaseException:
            self.close()
            raise

    def start(self, screen: Display, times: StartTimes, threads: int | None = None) -> None:
        """Start the workers unless they run already, with as many threads.

        Args:
            screen: is told what is waited for.
            times: what it took is added.
            threads: of a worker of the run that goes on, None for a new one.

        Raises:
            RuntimeSetupError, PlacementError: they cannot be set up or placed.
        """
        if self._started and not self._has_other_threads(threads):
            self._check()
            return
        self.launch(screen, times, threads)
        try:
            screen.doing(Doing(what=f"waiting for {count(self._settings.group_size, 'worker')} to start"))
            with times.part("workers"):
                for waiting in start_workers(self.group):
                    screen.say(waiting)
            self._started = True
        except BaseException:
            self.close()
            raise

    def _has_other_threads(self, threads: int | None) -> bool:
        """Whether these workers' number, which the user has not said, is not that of the run that goes on."""
        settings = self._settings
        return not (settings.local or settings.threads_per_worker or threads in (None, self.share.threads))

    def _check(self) -> None:
        """Stop the workers if the Ray that they ran on is gone, so that the next call starts another, and say so."""
        try:
            self.group.hear()
        except PlacementError:
            self.close()
            raise

    def serve(self, roots: Sequence[Root]) -> Disk | None:
        """Let workers on other machines reach these folders of this one; None where there are no other machines.

        Of what earlier tasks read nothing is served any more; see `Disk.serving`.

        Raises:
            StorageError, DiskError: they cannot be served.
        """
        if self._disk is None:
            return None
        try:
            self._disk = self._disk.serving(*roots)
        except ConnectionError as error:
            self.close()
            raise DiskError.gone(str(error)) from error
        except OSError as error:
            raise StorageError(Path(error.filename or "."), error) from error
        self.group.pool.disk = self._disk  # the pool takes its tokens away, also when the program ends
        return self._disk

    def resize(self, num_workers: int) -> None:
        """Change how many there shall be, now or once they are started; from any thread."""
        self._size = num_workers
        if self._group is not None:
            self._group.resize(num_workers)

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        if self._forsaken is not None:
            self._forsaken.detach()
        group, disk, uses_ray, ahead = self._group, self._disk, self._uses_ray, self._ahead
        self._group = self._forsaken = self._disk = self._ahead = None
        self._uses_ray = self._started = False
        if ahead is not None:
            ahead.give_up()
        _free(group, disk, uses_ray)

    def _local_group(self, screen: Display, threads: int | None) -> WorkerGroup:
        screen.doing(Doing(what="loading TensorFlow"))
        load_tensorflow()  # which computes here
        from ..engine.runtime import fix_threads, no_gpus_seen, usable_gpus

        settings = self._settings
        num_gpus = len(usable_gpus(settings.device))
        if settings.device == "auto" and not num_gpus and gpus_of_machine() and not environment.hides_gpus():
            screen.say(f"warning: this machine has {gpus_of_machine()} GPU(s), and {no_gpus_seen()}")
        auto = settings.replicas_per_worker == "auto"
        replicas = max(1, num_gpus // settings.max_size) if auto else settings.replicas
        settings.microbatches(replicas)
        usual = 1 if settings.in_process else usable_cores()
        found = fix_threads(threads, usual=usual)
        if threads is None and found != usual:
            screen.say(
                f"TensorFlow has {count(found, 'thread')} in this process already, so the run takes those (results "
                "depend on the number). threads_per_worker= asks for another, in a process where TensorFlow has not "
                "started"
            )
        goes_on = threads is not None and not settings.threads_per_worker
        if goes_on and not num_gpus and (idle := idle_cores_line(found, usual)):
            screen.say(idle)
        self.share = WorkerShare(replicas=replicas, threads=found, device="gpu" if num_gpus else "cpu")
        spec = self._spec(gpus=None, cores=1)
        loaded = sys.modules.get("keras")  # who has set a policy has loaded it
        policy = None if loaded is None else loaded.config.dtype_policy()
        return WorkerGroup(LocalPool(self._factory(policy), spec), spec)

    def _ray_group(self, screen: Display, threads: int | None) -> WorkerGroup:
        from heliostat.cluster.disk.disk import start_disk
        from heliostat.cluster.pools.ray_pool import RayPool  # Ray takes a second to load
        from heliostat.cluster.pools.ray_room import (
            check_gpus,
            gpus_by_machine,
            gpus_per_worker,
            grant_line,
            has_autoscaler,
            machines_for_workers,
        )
        from heliostat.cluster.pools.ray_session import join_ray, left_out, one_machine, warning_without_tokens

        settings = self._settings
        replicas = None if settings.replicas_per_worker == "auto" else settings.replicas
        if replicas is not None:
            settings.microbatches(replicas)
        screen.say(f"starting {count(settings.workers, 'worker')}")
        screen.doing(Doing(what="connecting to Ray"))
        if self._ahead is not None:
            self._uses_ray = self._ahead.take()
            self._ahead = None
        else:
            num_cpus = self._cores_here(threads)
            self._uses_ray = join_ray(self._asked, num_cpus=num_cpus, runtime_env=self._runtime_env)
        if not one_machine():
            self._disk = start_disk()
        by_machine = gpus_by_machine()
        gpus = 0 if settings.device == "cpu" else gpus_per_worker(self._spec(gpus=replicas, cores=1), by_machine)
        if line := check_gpus(gpus, device=settings.device, replicas=replicas, may_come=has_autoscaler):
            screen.say(line)
        if settings.device == "gpu":
            gpus = gpus or replicas or 1
        replicas = replicas or max(1, gpus)
        settings.microbatches(replicas)
        machines = machines_for_workers(with_gpus=gpus > 0)
        fitting = cores_per_worker([each.usable for each in machines], settings.max_size)
        threads = threads or fitting
        self.share = WorkerShare(replicas=replicas, threads=threads, device="gpu" if gpus else "cpu")
        cores = cores_to_ask(threads, [each.granted for each in machines], settings.max_size)
        spec = self._spec(gpus=gpus, cores=cores)
        reserved = min(spec.num_to_begin, spec.num_to_begin if self._size is None else self._size)
        luggage = None if one_machine() else luggage_of([settings.build_model, *self._code])
        factory, wanted = self._factory(None, luggage), None if luggage is None else luggage.wanted
        pool = RayPool(factory, spec, loopback=one_machine(), reserved=reserved, wanted=wanted)
        lines = [left_out(self._asked), warning_without_tokens(), grant_line(gpus, settings.workers, by_machine)]
        lines += [pool.check_room(), shared_cores_line(settings.group_size, threads) if one_machine() else ""]
        if not (gpus or settings.threads_per_worker):
            lines.append(idle_cores_line(threads, fitting))
        for line in filter(None, lines):
            screen.say(line)
        return WorkerGroup(pool, spec)

    def _cores_here(self, threads: int | None) -> int:
        """Cores that a Ray on this machine must offer to workers with so many threads; None for a new run's number."""
        settings = self._settings
        known = settings.threads_per_worker or threads
        return settings.max_size * (known or cores_per_worker([usable_cores()], settings.max_size))

    def _factory(self, dtype_policy: keras.DTypePolicy | None, luggage: Luggage | None = None) -> WorkerFactory:
        return WorkerFactory(self._settings.with_share(self.share), dtype_policy, luggage)

    def _spec(self, *, gpus: int | None, cores: int) -> GroupSpec:
        settings = self._settings
        return GroupSpec(
            num_workers=settings.group_size,
            min_workers=settings.min_workers,
            max_workers=settings.max_workers,
            cpus_per_worker=cores,
            gpus_per_worker=gpus,
            start_timeout_s=settings.start_timeout_s,
            deadline_s=settings.deadline_s,
            env=dict(environment.WORKERS_TENSORFLOW),
        )


def _free(group: WorkerGroup | None, disk: Disk | None, uses_ray: bool) -> None:
    if group is not None:
        group.close()
    if disk is not None:
        from heliostat.cluster.disk.disk import stop_disk

        stop_disk(disk)
    if uses_ray:
        from heliostat.cluster.pools.ray_session import leave_ray

        leave_ray()


def _give_up_aside(ahead: RayAhead) -> None:
    """Give up what was begun for a trainer that is gone, on a thread, as `_free_aside` does."""
    threading.Thread(target=ahead.give_up, name="heliostat-free", daemon=True).start()


def _free_aside(group: WorkerGroup, disk: Disk | None, uses_ray: bool) -> None:
    """Free the workers of a trainer that is gone, on a thread: whoever collects garbage may hold any lock."""
    threading.Thread(target=_free, args=(group, disk, uses_ray), name="heliostat-free", daemon=True).start()


def _keep_off_gpus(screen: Display) -> None:
    """Let TensorFlow in this process, the driver's, leave GPUs and their memory to the workers."""
    if "tensorflow" not in sys.modules and not gpus_of_machine():
        return
    if leave_gpus():  # before a stream of the user's starts TensorFlow
        return
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        screen.say(
            "warning: TensorFlow runs in this process, and holds memory of its GPUs that workers lack. Make "
            "tf.data pipelines in a function that you pass to fit, or call tf.config.set_visible_devices([], 'GPU') "
            "before TensorFlow computes anything here"
        )
