"""The public `Trainer`: checks what it is asked, starts workers, runs their tasks, keeps the run folder."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from heliostat.cluster.links import PairBandwidth
from heliostat.data import Dataset
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
from .driver.coordinator import Coordinator, joined_outputs
from .driver.display import Display
from .driver.inputs import Data, checked_callbacks, noted_columns
from .driver.passes import replay, run_pass
from .driver.plan import Run
from .driver.result import Result
from .driver.run import fit
from .driver.run_paths import checkpoint_dir_of, job_line, new_run_path, numbered_run_path, run_dir_of
from .driver.screen import Verbose, make_display
from .driver.trained import TrainedModel
from .driver.workers import Workers
from .engine.private_names import CALLBACK_FIELDS
from .engine.times import StartTimes
from .environment import Command, begin_fit
from .errors import ConfigurationError
from .jobs import Beginning, PassReport
from .shipping import UserCode, ship

if TYPE_CHECKING:
    import keras

BuildModel = Callable[[], "keras.Model"]


class Trainer:
    """Trains a Keras model on several workers, exactly as one device would.

    Args:
        build_model: a function without arguments that returns a compiled `keras.Model`.
        workers: worker processes (Ray actors); 0 computes in this process, without Ray.
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
            machine is a node of; "local" for a Ray of this process's own. Within a Ray job its cluster is used,
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
        self._name = getattr(build_model, "__name__", "run").strip("<>")
        self._run_dir = None if run_dir is None else run_dir_of(run_dir)
        self._workers = Workers(self._settings, runtime_env)
        self._code = code_digests(build_model)
        self._num_fits, self._num_calls = 0, 0  # those that are over, finished or left for another; and all
        self._id, self._model = uuid.uuid4().hex, TrainedModel()
        self._began_with: object = None  # the initial weights given for the last fit that began

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
        """
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
        datasets = (each for each in (data, validation_data) if isinstance(each, Dataset))
        self._workers.expect(wanted.code, wanted.prepare, *datasets)
        screen = make_display(verbose)
        number, command = begin_fit()
        end = self._model.end
        begins_with = None if initial_weights is None else wanted.initial_weights_digest or "new"
        unfinished, new_folder = end is not None and not end.finished, self._run_dir is None and command is None
        again = unfinished and begins_with in (None, self._began_with) and (resume == "auto" or not new_folder)
        left = unfinished and not again
        self._num_calls += 1
        run = Run(
            settings=self._settings,
            wanted=wanted,
            data=data,
            validation_data=validation_data,
            path=end.path if end is not None and again else self._next_run_path(number, command, left),
            path_is_new=new_folder and not again,
            begins=Beginning() if end is None or initial_weights is not None else end.begins,
            number=number,
            key=f"{self._id}.{self._num_calls}",
            model=self._model,
            code=self._code if prepare is None else {**self._code, **code_digests(prepare)},
            command=command,
        )
        result = None
        try:
            with contextlib.closing(screen):
                if line := job_line(run.path):
                    screen.say(line)
                if command is not None and command.replay is not None:
                    replay(run, screen)
                else:
                    result = fit(run, self._workers, screen)
        finally:
            if self._model.end is not end:  # it has begun
                self._num_fits += left
                self._began_with = self._began_with if again else begins_with
        if result is None:
            sys.exit(0)  # a replay or a trace is done: see `environment`
        self._num_fits += 1
        return result

    def resize(self, workers: int) -> None:
        """Change how many workers there shall be: before the first task, between two, or from another thread in one.

        Workers join or leave between two steps; results do not change. On a cluster of several machines the cores of
        the first `min_workers` stay reserved until the trainer is closed.

        Raises:
            ConfigurationError: less than one, or more than `max_workers`.
        """
        if not 1 <= workers <= self._settings.max_size or self._settings.workers == 0:
            raise ConfigurationError(
                f"resize({workers}): this trainer can have 1 to {self._settings.max_size} workers. Give max_workers= "
                "when you make it, so that there are enough microbatches for more."
            )
        self._workers.resize(workers)

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
        data, inputs, targets = noted_columns(data, inputs, targets)
        columns = Columns(inputs=inputs, targets=targets, sample_weight=sample_weight)
        wanted = PassConfig(columns=columns, global_batch_size=global_batch_size)
        report, _ = self._run_pass("evaluate", data, wanted, verbose)
        return dict(report.logs)

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
        data, inputs, _ = noted_columns(data, inputs, None)
        wanted = PassConfig(columns=Columns(inputs=inputs, targets=None), global_batch_size=global_batch_size)
        _, coordinator = self._run_pass("predict", data, wanted, verbose)
        return joined_outputs(coordinator.outputs)

    def measure_links(self) -> tuple[PairBandwidth, ...]:
        """Bandwidth and latency between every two workers, as a step's all-reduce gets them; takes some seconds."""
        self._workers.start(Display(), StartTimes())
        if len(self._workers.infos) < 2:
            return ()
        try:
            return self._workers.group.measure_links()
        except BaseException:
            self.close()  # some may still wait for each other
            raise

    @property
    def hosts(self) -> dict[int, str]:
        """The machine of every worker that is up, by the worker's number."""
        return {worker: info.host for worker, info in self._workers.infos.items()}

    def close(self) -> None:
        """Stop the workers, and the Ray that was started for them."""
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run_pass(
        self, method: Literal["evaluate", "predict"], data: Data, wanted: PassConfig, verbose: Verbose
    ) -> tuple[PassReport, Coordinator]:
        with contextlib.closing(make_display(verbose)) as screen:
            return run_pass(method, self._settings, wanted, data, self._workers, screen, self._model)

    def _next_run_path(self, number: int, command: Command | None, left: bool) -> Path:
        """The folder of a fit that is not tried again; `left` says whether it leaves an unfinished one behind."""
        given = self._run_dir
        if command is not None:
            return numbered_run_path(command.run_dir, 1 if command.fit is not None else number)
        return new_run_path(self._name) if given is None else numbered_run_path(given, self._num_fits + 1 + left)
