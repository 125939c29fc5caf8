"""The public `Trainer`: checks what it is asked, starts workers, runs their tasks, keeps the run folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from heliostat.cluster.links import PairBandwidth
from heliostat.data.order.window import Shuffle

from .arguments import (
    check_build_model,
    check_prepare,
    check_steps,
    checked_weights,
    digests_of,
    refuses_unknown,
)
from .code_digests import code_digests
from .columns import ColumnChoice, Columns
from .config import (
    CheckpointEvery,
    Device,
    FitConfig,
    GradientDtype,
    LoopName,
    MixedHardware,
    OnNonfinite,
    PassConfig,
    Resume,
    TrainerConfig,
)
from .driver.inputs import Data, checked_callbacks, noted_columns, undecided
from .driver.result import Result
from .driver.run_paths import checkpoint_dir_of, run_dir_of
from .driver.runs import FitCall, PassCall, Runs
from .driver.screen import Verbose
from .driver.workers import job_server
from .engine.private_names import CALLBACK_FIELDS
from .environment import wanted_workers
from .remote.wire import display_for
from .shipping import UserCode, ship

if TYPE_CHECKING:
    import keras

    from .remote.call import RemoteRuns

BuildModel = Callable[[], "keras.Model"]


class Trainer:
    """Trains a Keras model on several workers, exactly as one device would.

    Args:
        build_model: a function without arguments that returns a compiled `keras.Model`.
        workers: worker processes (Ray actors); 0 computes in this process, without Ray. The variable
            `HELIOSTAT_WORKERS`, which ``heliostat run --workers`` sets, wins over it.
        replicas_per_worker: devices per worker; "auto" takes all its GPUs, or one CPU device. A number on a machine
            without GPUs makes that many logical CPU devices.
        num_microbatches: parts into which every global batch is cut; the unit of computation, fixed for a run. Results
            depend on it, and not on workers or replicas. None: the smallest power of two that gives each replica one.
            "auto": twice as many, again and again, if memory is exhausted before the first step is done.
        threads_per_worker: TensorFlow's threads per worker; results depend on it. None shares the cores of the smallest
            machine among the workers there can be on it when a run begins (1 with `in_process`, and with `workers=0`
            what TensorFlow has already, if it runs); the run then keeps that number, wherever it goes on.
        device: "auto" computes on GPUs where machines have some, "gpu" refuses to do without, "cpu" leaves them alone.
        address: the Ray cluster to join: "host:port" of its head; "auto" for the one in `RAY_ADDRESS`, or that this
            machine is a node of; "local" for a Ray of this process's own. "http://HEAD:8265" of any cluster that takes
            jobs: calls are made there, and what comes out is brought here. Within a Ray job its cluster is used,
            whatever is given here. None uses the connection that this process has, else the address in
            `HELIOSTAT_ADDRESS`, else "local".
        run_dir: folder of the run, on a disk of this machine (``~`` is your home); None makes ``runs/<name>-<time>``.
            Within a Ray job, whose current directory changes with every edit, relative ones are below
            ``HELIOSTAT_HOME/<script>`` (``~/heliostat/<script>``).
        seed: seed of initial weights, row order and random layers.
        deterministic: ask TensorFlow for deterministic kernels.
        in_process: run the workers as threads of this process instead of Ray actors, joined by real sockets: a quick
            way to try and test training code with several workers.
        min_workers: begin with so many, and grow as machines come; with fewer left, wait for replacements. None begins
            with all and goes on with one.
        max_workers: the most there can be, now and after `resize`; workers beyond `workers` join when the cluster has
            room for them. None means `workers`.
        deadline_s: seconds after which a worker that does not answer is replaced, from 3 to 604800 (seven days); None
            for ten times the median step, at least five seconds.
        start_timeout_s: seconds to wait for workers to start, and for replacements when too few are left.
        mixed_hardware: "refuse" stops at a worker, at the start or later, whose hardware selects other kernels than the
            run began with (instructions of the processor, GPU, cuDNN); "allow" goes on: bits depend on who computes.
        gradient_dtype: "bfloat16" rounds gradients to bfloat16 wherever they are summed, so that they travel between
            machines in half the bytes. Results depend on it, and still not on workers or replicas.
        balance: let a worker that has been slower than the others for a while compute fewer microbatches, where there
            are more of them than replicas (`num_microbatches`). Results do not depend on it.
        runtime_env: packages, variables and files that Ray is to bring to the workers' processes, as `ray.init` takes
            them (``{"pip": ["scipy"]}``). The modules beside the script need none: they travel by themselves.

    Raises:
        ConfigurationError: an argument is wrong.

    The trainer can be used for several `fit`, `evaluate` and `predict`; workers stay alive between them. Close it, or
    use it as a context manager, to free them; a trainer that nobody refers to any more frees them, too.
    """

    @refuses_unknown("Trainer")
    def __init__(
        self,
        build_model: BuildModel,
        *,
        workers: int = 1,
        replicas_per_worker: int | Literal["auto"] = "auto",
        num_microbatches: int | Literal["auto"] | None = None,
        threads_per_worker: int | None = None,
        device: Device = "auto",
        address: str | None = None,
        run_dir: str | Path | None = None,
        seed: int = 0,
        deterministic: bool = True,
        in_process: bool = False,
        min_workers: int | None = None,
        max_workers: int | None = None,
        deadline_s: float | None = None,
        start_timeout_s: float = 300.0,
        gradient_dtype: GradientDtype | None = None,
        mixed_hardware: MixedHardware = "refuse",
        balance: bool = True,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        check_build_model(build_model)
        workers = workers if (wanted := wanted_workers()) is None else wanted
        self._settings = TrainerConfig(
            build_model=ship(build_model, "build_model", stays=workers == 0 or in_process),
            workers=workers,
            replicas_per_worker=replicas_per_worker,
            num_microbatches=num_microbatches,
            threads_per_worker=threads_per_worker,
            device=device,
            address=address,
            seed=seed,
            deterministic=deterministic,
            in_process=in_process,
            min_workers=min_workers,
            max_workers=max_workers,
            deadline_s=deadline_s,
            start_timeout_s=start_timeout_s,
            gradient_dtype=gradient_dtype,
            mixed_hardware=mixed_hardware,
            balance=balance,
        )
        name = getattr(build_model, "__name__", "run").strip("<>")
        self._runs = _runs_of(self._settings, name, None if run_dir is None else run_dir_of(run_dir), runtime_env)
        self._code = code_digests(build_model)

    @refuses_unknown("fit")
    def fit(
        self,
        data: Data,
        *,
        validation_data: Data | None = None,
        epochs: int = 1,
        global_batch_size: int = 32,
        loop: LoopName = "fit",
        train_step: Callable[..., Any] | None = None,
        valid_step: Callable[..., Any] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        initial_epoch: int = 0,
        initial_weights: Sequence[np.ndarray] | Literal["new"] | None = None,
        prepare: Callable[[keras.Model], object] | None = None,
        steps_per_epoch: int | None = None,
        shuffle: Shuffle = "full",
        inputs: ColumnChoice | None = None,
        targets: ColumnChoice | None = None,
        sample_weight: str | None = None,
        checkpoint_every: CheckpointEvery = "epoch",
        checkpoint_dir: str | Path | None = None,
        keep: int = 3,
        resume: Resume = "auto",
        take_over: bool = False,
        max_time_s: float | None = None,
        on_nonfinite: OnNonfinite = "raise",
        verbose: Verbose = "auto",
        record_rows: bool = False,
    ) -> Result:
        """Train a run, or go on with the unfinished one in `run_dir`.

        The first `fit` begins with a new model. Each that follows goes on where the one before has ended, weights and
        optimizer state, as in Keras; row order and random seeds count on, so that ten fits of one epoch compute what
        one fit of ten does. `initial_weights`, or a new trainer, begins anew. Every fit is a run with a folder of its
        own. After one that was paused or failed, `fit` tries the same run again, from its last checkpoint, unless other
        `initial_weights` than that one's are given: then it begins anew, in the next folder.

        Args:
            data: a dataset path or URI, a `Dataset`; or ``(x, y)`` numpy arrays, a `tf.data.Dataset` or `PyDataset` of
                batches, or a function that returns one or yields batches: these are written into the run folder once.
            validation_data: likewise; validated on after every epoch.
            epochs: number of the last epoch; the run has `epochs - initial_epoch` of them.
            global_batch_size: rows of one step, over all workers.
            loop: the way to train: Keras's ``"fit"``, ``"train_on_batch"``, or ``"custom"`` steps.
            train_step: for the custom loop: ``train_step(model, optimizer, x, y[, sample_weight])``, written for one
                device; returns a scalar loss or a dict of scalars. It gets sample_weight if a column is named.
            valid_step: for the custom loop: ``valid_step(model, x, y[, sample_weight])``.
            callbacks: Keras callbacks; they run on the chief with global logs.
            initial_epoch: the number that callbacks and history have for this run's first epoch.
            initial_weights: begin anew, with a new optimizer: with arrays for ``model.set_weights``, such as
                ``result.model().get_weights()``, or with "new", those of `build_model`.
            prepare: ``prepare(model)`` is called on every worker before this run, to unfreeze layers or to compile with
                a lower rate, say; later fits have the model so. Weights stay, and so does the optimizer's state unless
                it compiles with a new optimizer.
            steps_per_epoch: end an epoch after so many steps.
            shuffle: ``"full"`` or False.
            inputs: the input column; a list of columns; or a dict from input names to columns. None takes what the
                conversion noted in the dataset, such as the column of images, else "x".
            targets: likewise the targets, else "y".
            sample_weight: the column of row weights.
            checkpoint_every: "epoch", `EverySteps` or `EverySeconds`; None makes no checkpoints.
            checkpoint_dir: where they go, a path or a URI such as ``s3://bucket/folder``: every run makes a folder of
                its own there, named after its run folder. By default they are in the run folder.
            keep: how many checkpoints to keep.
            resume: "auto" goes on with the run in `run_dir` if there is one, and returns its result if it is finished;
                False refuses a `run_dir` that holds a run, and without one makes a new folder.
            take_over: take a `run_dir` from another driver that has given no sign of life for five minutes; where a
                driver is surely dead (its process is gone from this machine) that needs no word.
            max_time_s: pause the run after so many seconds, with a checkpoint.
            on_nonfinite: "raise" stops the run at a gradient that is not finite; "skip" leaves the step out.
            verbose: "auto", 0 (nothing), 1 (a live line) or 2 (lines).
            record_rows: keep in the result which rows every worker computed in every step.

        Raises:
            ConfigurationError, DataError, ModelError: a mistake in arguments, data or model.
            TrainingFailedError: user code raised, or workers were lost in a way that cannot be made good.
            NonfiniteGradientError: a gradient is not finite.
            RunPausedError: a signal (Ctrl-C, SIGTERM) or `max_time_s` paused the run; the same command goes on.
            CallError: with the address of a job server, any of these that was raised there, with stage and frames.
            CallDetachedError: Ctrl-C has left such a run alone; the same command attaches to it.
        """
        given = {"inputs": inputs, "targets": targets}
        data, inputs, targets = noted_columns(data, inputs, targets)
        columns = Columns(inputs=inputs, targets=targets, sample_weight=sample_weight)
        code = UserCode(train_step=train_step, valid_step=valid_step, callbacks=checked_callbacks(callbacks))
        check_steps(loop, code, columns)
        check_prepare(prepare)
        wanted = FitConfig(
            loop=loop,
            epochs=epochs,
            initial_epoch=initial_epoch,
            global_batch_size=global_batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle,
            columns=columns,
            code=ship(code, "callbacks and steps", stays=self._settings.local),
            code_digests=digests_of(code, CALLBACK_FIELDS),
            prepare=None if prepare is None else ship(prepare, "prepare", stays=self._settings.local),
            initial_weights=checked_weights(initial_weights),
            checkpoint_every=checkpoint_every,
            checkpoint_dir=checkpoint_dir_of(checkpoint_dir),
            keep=keep,
            resume=resume,
            take_over=take_over,
            max_time_s=max_time_s,
            on_nonfinite=on_nonfinite,
            record_rows=record_rows,
        )
        call = FitCall(
            wanted=wanted,
            data=data,
            validation_data=validation_data,
            anew=initial_weights is not None,
            code=self._code if prepare is None else {**self._code, **code_digests(prepare)},
            undecided=undecided(data, given),
            has_callbacks=bool(code.callbacks),
        )
        with contextlib.closing(display_for(verbose)) as screen:
            result = self._runs.fit(call, screen)
        if result is None:
            sys.exit(0)  # a plan, a replay or a trace is done: see `environment`
        return result

    def resize(self, workers: int) -> None:
        """Change how many workers there shall be: before the first task, between two, or from another thread in one.

        Workers join or leave between two steps; results do not change. On a cluster of several machines the cores of
        the first `min_workers` stay reserved until the trainer is closed.

        Raises:
            ConfigurationError: less than one, or more than `max_workers`.
        """
        self._runs.resize(workers)

    @refuses_unknown("evaluate")
    def evaluate(
        self,
        data: Data,
        *,
        global_batch_size: int = 32,
        inputs: ColumnChoice | None = None,
        targets: ColumnChoice | None = None,
        sample_weight: str | None = None,
        verbose: Verbose = 0,
    ) -> dict[str, Any]:
        """Global, exact metrics of the trained model (of a new one before any `fit`) over all rows of `data`.

        Args:
            data: as for `fit`.
            global_batch_size: rows that are computed at a time, over all workers; results do not depend on it.
            inputs: the input column; a list of columns; or a dict from input names to columns. None takes what the
                conversion noted in the dataset, such as the column of images, else "x".
            targets: likewise the targets, else "y".
            sample_weight: the column of row weights.
            verbose: "auto", 0 (nothing), 1 or 2.

        Returns:
            The metrics by name, as `keras.Model.evaluate(return_dict=True)` names them.

        Raises:
            ConfigurationError, DataError, ModelError: a mistake in arguments, data or model.
            TrainingFailedError: user code raised, or workers were lost in a way that cannot be made good.
        """
        given = {"inputs": inputs, "targets": targets}
        data, inputs, targets = noted_columns(data, inputs, targets)
        columns = Columns(inputs=inputs, targets=targets, sample_weight=sample_weight)
        wanted = PassConfig(columns=columns, global_batch_size=global_batch_size)
        with contextlib.closing(display_for(verbose)) as screen:
            return self._runs.evaluate(PassCall(wanted=wanted, data=data, undecided=undecided(data, given)), screen)

    @refuses_unknown("predict")
    def predict(
        self,
        data: Data,
        *,
        global_batch_size: int = 32,
        inputs: ColumnChoice | None = None,
        verbose: Verbose = 0,
    ) -> Any:
        """Predictions for all rows of `data`, in dataset order.

        Args:
            data: as for `fit`.
            global_batch_size: rows that are computed at a time, over all workers.
            inputs: as for `fit`.
            verbose: see `evaluate`.

        Returns:
            An array ``[rows, ...]``, or the model's structure of such arrays.

        Raises:
            what `evaluate` raises.
        """
        given = {"inputs": inputs}
        data, inputs, _ = noted_columns(data, inputs, None)
        wanted = PassConfig(columns=Columns(inputs=inputs, targets=None), global_batch_size=global_batch_size)
        with contextlib.closing(display_for(verbose)) as screen:
            return self._runs.predict(PassCall(wanted=wanted, data=data, undecided=undecided(data, given)), screen)

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Bandwidth and latency between every two workers, as a step's all-reduce gets them; takes some seconds."""
        return self._runs.measure_links()

    @property
    def hosts(self) -> dict[int, str]:
        """The machine of every worker that is up, by the worker's number."""
        return self._runs.hosts

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        self._runs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _runs_of(
    settings: TrainerConfig, name: str, run_dir: Path | None, runtime_env: Mapping[str, Any] | None
) -> Runs | RemoteRuns:
    """Who makes the runs of a trainer: this process, or a cluster that takes jobs. Arguments: those of `Runs`."""
    if (address := job_server(settings)) is None:
        return Runs(settings, name, run_dir, runtime_env)
    from .remote.call import RemoteRuns  # and what speaks HTTP, which others have no use for

    return RemoteRuns(settings, address, name, run_dir, runtime_env)
