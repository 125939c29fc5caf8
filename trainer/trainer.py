"""The public `Trainer`: checks what it is asked, starts workers, runs their tasks, keeps the run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from heliostat.data.order.window import Shuffle

from .arguments import check_build_model
from .code_digests import code_digests
from .columns import ColumnChoice
from .config import CheckpointEvery, LoopName, OnNonfinite, Resume
from .driver.arrays import Arrays
from .driver.inputs import Data
from .driver.result import Result
from .driver.run_paths import run_dir_of
from .driver.screen import Verbose
from .driver.uncaught import shows_errors_shortly
from .environment import wanted_workers
from .given_rows import one_of
from .held_runs import runs_of
from .keras_arguments import refuses_unknown
from .run_making import BuildModel, RunMaking
from .shipping import ship
from .trackers.tracker import Tracker
from .trackers.wanted import wanted_of
from .trainer_config import Device, GradientDtype, MixedHardware, TrainerConfig

if TYPE_CHECKING:
    import keras


class Trainer(RunMaking):
    """Trains a Keras model on several workers, exactly as one device would.

    Args:
        build_model: a function without arguments that returns a compiled `keras.Model`; for the custom loop also
            ``(model, {"name": optimizer, ...})``.
        workers: worker processes (Ray actors); 0 computes in this process, without Ray. The variable
            `HELIOSTAT_WORKERS`, which ``heliostat run --workers`` sets, wins over it.
        replicas_per_worker: devices per worker; "auto" shares the GPUs of a machine equally among the workers there,
            and takes one CPU device where there are none. A number on a machine without GPUs makes that many logical
            CPU devices.
        num_microbatches: parts into which every global batch is cut; the unit of computation, fixed for a run. Results
            depend on it, and not on workers or replicas. None: the smallest power of two that gives each replica one,
            those of `max_workers` included.
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
        tensorboard: write event files for TensorBoard: True into each run folder, so that ``tensorboard --logdir runs``
            compares runs; a path writes below it, in a folder with the run folder's name.
        mlflow: send each fit to an MLflow server: to this URI, or True for the one in `MLFLOW_TRACKING_URI`.
        wandb: send each fit to Weights & Biases: into this project ("project" or "team/project"), or True for the one
            in `WANDB_PROJECT`; without a key, or with ``WANDB_MODE=offline``, it is written into the run folder.
        metrics_port: offer metrics to Prometheus on this port of all interfaces of the machine that calls `fit`; 0
            takes a free one, which a line names; "127.0.0.1:9100" listens on one interface.
        trackers: your own, objects of subclasses of `Tracker`. All of these get what is recorded of every fit, on
            threads of their own in this process: nothing about them reaches workers, and what fails there fails no run.

    Raises:
        ConfigurationError: an argument is wrong.

    Ray is loaded and started, or joined, from when the trainer is made, beside whatever the program does before the
    first call; what goes wrong there is raised by that call. A program that has loaded Ray itself may connect it, too.

    The trainer can be used for several `fit`, `evaluate` and `predict`; workers stay alive between them. Close it, or
    use it as a context manager, to free them; a trainer that nobody refers to any more frees them, too.

    Example:
        >>> def build_model():
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse", metrics=["mae"])
        ...     return model
        >>> with Trainer(build_model, workers=0) as trainer:  # workers=2: two processes, by Ray
        ...     result = trainer.fit(x, y, batch_size=4, epochs=3, verbose=0)
        >>> [(name, len(values)) for name, values in result.history.items()]
        [('loss', 3), ('mae', 3)]
    """

    @shows_errors_shortly
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
        tensorboard: bool | str | Path = False,
        mlflow: bool | str = False,
        wandb: bool | str = False,
        metrics_port: int | str | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        check_build_model(build_model)
        workers = workers if (wanted := wanted_workers()) is None else wanted
        settings = TrainerConfig(
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
        self._build_model, self._code = build_model, code_digests(build_model)
        name = getattr(build_model, "__name__", "run").strip("<>")
        place = None if run_dir is None else run_dir_of(run_dir)
        watching = wanted_of(tensorboard, mlflow, wandb, metrics_port, trackers)
        runs = runs_of(settings, name, place, runtime_env, watching)
        super().__init__(settings, runs)

    @refuses_unknown("fit")
    def fit(
        self,
        x: Data | Arrays | None = None,
        y: Arrays | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Data | Arrays | None = None,
        shuffle: Shuffle | bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ColumnChoice | Arrays | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] | tuple[int, ...] = 1,
        *,
        data: Data | Arrays | None = None,
        global_batch_size: int | None = None,
        inputs: ColumnChoice | None = None,
        targets: ColumnChoice | None = None,
        loop: LoopName = "fit",
        train_step: Callable[..., Any] | None = None,
        valid_step: Callable[..., Any] | None = None,
        initial_weights: Sequence[np.ndarray] | Literal["new"] | None = None,
        prepare: Callable[[keras.Model], object] | None = None,
        checkpoint_every: CheckpointEvery = "epoch",
        checkpoint_dir: str | Path | None = None,
        keep: int = 3,
        resume: Resume = "auto",
        take_over: bool = False,
        max_time_s: float | None = None,
        on_nonfinite: OnNonfinite = "raise",
        probe: bool = True,
        record_rows: bool = False,
    ) -> Result:
        """Train a run, or go on with the unfinished one in `run_dir`.

        The first `fit` begins with a new model. Each that follows goes on where the one before has ended, weights and
        optimizer state, as in Keras; row order and random seeds count on, so that ten fits of one epoch compute what
        one fit of ten does. `initial_weights`, or a new trainer, begins anew. Every fit is a run with a folder of its
        own. After one that was paused or failed, `fit` tries the same run again, from its last checkpoint, unless other
        `initial_weights` than that one's are given: then it begins anew, in the next folder.

        Args:
            x: arrays, as in Keras; or a dataset path or URI, a `Dataset`, a tuple ``(x, y)`` or ``(x, y,
                sample_weight)`` of arrays, a `tf.data.Dataset` or `PyDataset` of batches, or a function that returns
                one or yields batches. Arrays and streams are written into the run folder once.
            y, batch_size, epochs, verbose, callbacks, shuffle, class_weight, sample_weight: as in Keras; what is to be
                known of each is in ``docs/reference/arguments.md``.
            validation_data, validation_split, validation_steps, validation_batch_size, validation_freq: likewise.
            initial_epoch, steps_per_epoch: likewise.
            data: another name for x; likewise `global_batch_size` for batch_size.
            inputs: the input column of a dataset; a list of columns; or a dict from input names to columns. None takes
                what the conversion noted in the dataset, such as the column of images, else "x".
            targets: likewise the targets, else "y".
            loop: the way to train: Keras's ``"fit"``, ``"train_on_batch"``, or ``"custom"`` steps.
            train_step: for the custom loop: ``train_step(model, optimizer, x, y[, sample_weight])``, written for one
                device; returns a scalar loss or a dict of scalars. It gets sample_weight if rows have weights.
            valid_step: for the custom loop: ``valid_step(model, x, y[, sample_weight])``.
            initial_weights: begin anew, with a new optimizer: with arrays for ``model.set_weights``, such as
                ``result.model().get_weights()``, or with "new", those of `build_model`.
            prepare: ``prepare(model)`` is called on every worker before this run, to unfreeze layers or to compile with
                a lower rate, say; later fits have the model so. Weights stay, and so does the optimizer's state unless
                it compiles with a new optimizer.
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
            probe: run the step on a few rows before the run begins, to refuse what microbatches would compute wrongly
                (a loss that sums over the rows of a batch, say) and to name what differs; False leaves that out.
            record_rows: keep in the result which rows every worker computed in every step.

        Raises:
            ConfigurationError, DataError, ModelError, UnsupportedStepError: a mistake in arguments, data, model, step.
            DatasetError: a dataset is not there, or cannot be read.
            RuntimeSetupError, MemoryExhaustedError: TensorFlow runs here otherwise than is needed; a step does not fit.
            StorageError, CheckpointError: the run folder cannot be written, or a checkpoint cannot be read.
            TrainingFailedError: user code raised, or workers were lost in a way that cannot be made good.
            NonfiniteGradientError: a gradient is not finite.
            RunPausedError: a signal (Ctrl-C, SIGTERM) or `max_time_s` paused the run; the same command goes on.
            CallError: with the address of a job server, any of these that was raised there, with stage and frames.
            CallDetachedError: Ctrl-C has left such a run alone; the same command attaches to it.

        Example:
            >>> result = trainer.fit(x, y, epochs=2, validation_split=0.25, verbose=0)
            >>> sorted(result.history)
            ['loss', 'mae', 'val_loss', 'val_mae']
            >>> def slower(model):
            ...     model.optimizer.learning_rate = 1e-4
            >>> result = trainer.fit(x, y, epochs=1, prepare=slower, verbose=0)  # goes on from the weights of the first
            >>> float(trainer.model.optimizer.learning_rate) < 0.001
            True
        """
        call = self._call(
            one_of("data", data, "x", x),
            y,
            sample_weight,
            validation_data,
            validation_split=validation_split,
            inputs=inputs,
            targets=targets,
            class_weight=class_weight,
            batch_size=one_of("global_batch_size", global_batch_size, "batch_size", batch_size),
            code=self._user_code(callbacks, train_step, valid_step),
            prepare=prepare,
            initial_weights=initial_weights,
            checkpoint_dir=checkpoint_dir,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            loop=loop,
            epochs=epochs,
            initial_epoch=initial_epoch,
            validation_freq=validation_freq,
            checkpoint_every=checkpoint_every,
            keep=keep,
            resume=resume,
            take_over=take_over,
            max_time_s=max_time_s,
            on_nonfinite=on_nonfinite,
            probe=probe,
            record_rows=record_rows,
        )
        result = self._made(call, verbose)
        if result is None:
            sys.exit(0)  # a plan, a replay or a trace is done: see `environment`
        return result
