"""What a trainer makes runs from: the arguments of a call, checked; and sessions, in which the caller's loop trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from heliostat.data.order.window import Shuffle

from .arguments import check_prepare, check_steps, checked_weights, digests_of
from .code_digests import code_digests
from .columns import ColumnChoice
from .config import OPEN_END, CheckpointEvery, FitConfig, OnNonfinite, Resume
from .driver.arrays import Arrays
from .driver.asked import job_server
from .driver.dialogue import Dialogue
from .driver.inputs import Data, checked_callbacks
from .driver.linked_files import link_files, working_directory
from .driver.result import Result
from .driver.run_paths import checkpoint_dir_of
from .driver.runs import FitCall, Runs
from .driver.screen import Verbose
from .engine.private_names import CALLBACK_FIELDS
from .environment import quick_command
from .errors import RunPausedError, SessionError
from .given_rows import given_rows, validation_of
from .keras_arguments import refuses_unknown
from .model_use import ModelUse
from .remote.wire import display_for
from .shipping import UserCode, ship
from .training_session import TrainingSession

if TYPE_CHECKING:
    import keras

BuildModel = Callable[[], "keras.Model"]


class RunMaking(ModelUse):
    """The part of a trainer that asks for runs."""

    _build_model: BuildModel
    _code: Mapping[str, str]  # hashes of the code that makes the model

    @refuses_unknown("session")
    def session(
        self,
        x: Data | Arrays,
        validation_data: Data | Arrays | None = None,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: Verbose = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        shuffle: Shuffle | bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ColumnChoice | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        inputs: ColumnChoice | None = None,
        targets: ColumnChoice | None = None,
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
    ) -> TrainingSession:
        """Train step by step, by a loop of your own, with the results of ``fit(loop="train_on_batch")``.

        The run begins with the block, and is one like any other: it outlives workers, and the same command goes on with
        it (see `TrainingSession.steps`). The loop may take its time between two steps. What it sets, the learning rate,
        holds on all workers from the same step on.

        Args:
            x: what to train on: a dataset, its path or URI, a tuple of arrays, or a stream, as for `fit`.
            validation_data: likewise what to validate on, where the loop asks for that.
            epochs: number of the last epoch; None leaves it to the loop: the run has as many as it trains.
            batch_size, verbose, callbacks, shuffle, class_weight, sample_weight, initial_epoch: as for `fit`.
            steps_per_epoch, validation_steps, validation_batch_size, inputs, targets, initial_weights: likewise.
            prepare, checkpoint_every, checkpoint_dir, keep, resume, take_over, max_time_s, on_nonfinite: likewise.
            probe, record_rows: likewise.

        Raises:
            what `fit` raises for its arguments; in the block, what it raises later.
            SessionError: the trainer's calls go to a job server.

        Example:
            >>> with trainer.session((x, y), (x, y), batch_size=4, verbose=0, initial_weights="new") as s:
            ...     for epoch in range(2):
            ...         if epoch == 1:
            ...             s.learning_rate = s.learning_rate / 2
            ...         for step in s.steps(epoch):
            ...             logs = s.train_on_batch(step)
            ...         for step in s.validation_steps(epoch):
            ...             valid_logs = s.test_on_batch(step)
            >>> sorted(s.result.history), s.result.history["val_loss"][-1] == valid_logs["loss"]
            (['loss', 'mae', 'val_loss', 'val_mae'], True)
        """
        runs = self._runs
        if not isinstance(runs, Runs):
            raise SessionError.elsewhere(job_server(self._settings) or "a job server")
        call = self._call(
            x,
            None,
            sample_weight,
            validation_data,
            inputs=inputs,
            targets=targets,
            class_weight=class_weight,
            batch_size=batch_size,
            code=self._user_code(callbacks),
            prepare=prepare,
            initial_weights=initial_weights,
            checkpoint_dir=checkpoint_dir,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            loop="train_on_batch",
            is_stepwise=True,
            epochs=OPEN_END if epochs is None else epochs,
            initial_epoch=initial_epoch,
            checkpoint_every=checkpoint_every,
            keep=keep,
            resume=resume,
            take_over=take_over,
            max_time_s=max_time_s,
            on_nonfinite=on_nonfinite,
            probe=probe,
            record_rows=record_rows,
        )
        return TrainingSession(
            lambda dialogue: self._made(call, verbose, dialogue), call.wanted.epochs, call.wanted.initial_epoch
        )

    def _user_code(
        self,
        callbacks: Sequence[keras.callbacks.Callback] | None,
        train_step: Callable[..., Any] | None = None,
        valid_step: Callable[..., Any] | None = None,
    ) -> UserCode:
        return UserCode(
            train_step=train_step,
            valid_step=valid_step,
            callbacks=checked_callbacks(callbacks),
            build_model=self._build_model if callbacks else None,
        )

    def _call(
        self,
        x: Data | Arrays | None,
        y: Arrays | None,
        sample_weight: ColumnChoice | Arrays | None,
        validation_data: Data | Arrays | None,
        *,
        code: UserCode,
        inputs: ColumnChoice | None,
        targets: ColumnChoice | None,
        class_weight: Mapping[int, float] | None,
        batch_size: int | None,
        shuffle: Shuffle | bool,
        steps_per_epoch: int | None,
        validation_steps: int | None,
        validation_batch_size: int | None,
        prepare: Callable[[keras.Model], object] | None,
        initial_weights: Sequence[np.ndarray] | Literal["new"] | None,
        checkpoint_dir: str | Path | None,
        validation_split: float = 0.0,
        **others: Any,  # of FitConfig, which has their types
    ) -> FitCall:
        """What is asked for, checked. Arguments: those of `fit`; `others` are fields of `FitConfig` as they are."""
        rows = given_rows(x, y, sample_weight, inputs=inputs, targets=targets, class_weight=class_weight)
        rows, valid = validation_of(rows, validation_data, validation_split)
        if valid is not None:
            validation_batch_size = valid.batch_size(validation_batch_size or batch_size, validation_steps)
        check_prepare(prepare)
        wanted = FitConfig(
            global_batch_size=rows.batch_size(batch_size, steps_per_epoch),
            steps_per_epoch=steps_per_epoch,
            shuffle="full" if shuffle is True else shuffle,
            columns=rows.columns,
            validation_sample_weight=None if valid is None else valid.columns.sample_weight,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            code=ship(code, "callbacks and steps", stays=self._settings.local),
            code_digests=digests_of(code, CALLBACK_FIELDS),
            prepare=None if prepare is None else ship(prepare, "prepare", stays=self._settings.local),
            initial_weights=checked_weights(initial_weights),
            checkpoint_dir=checkpoint_dir_of(checkpoint_dir),
            **others,
        )
        check_steps(wanted, code)
        return FitCall(
            wanted=wanted,
            data=rows.data,
            validation_data=None if valid is None else valid.data,
            anew=initial_weights is not None,
            code=self._code if prepare is None else {**self._code, **code_digests(prepare)},
            undecided=rows.undecided,
            has_callbacks=bool(code.callbacks),
        )

    def _made(self, call: FitCall, verbose: Verbose, dialogue: Dialogue | None = None) -> Result | None:
        """Make the run, which the trainer's model then comes from; None where only a command of `heliostat` is done."""
        here, runs = working_directory(), self._runs
        with contextlib.closing(display_for(verbose)) as screen:
            try:
                made = runs.fit(call, screen, dialogue=dialogue) if isinstance(runs, Runs) else runs.fit(call, screen)
            except RunPausedError as paused:
                if dialogue is not None:  # nobody else may say it
                    screen.say(str(paused))
                raise
            links = made is not None and call.has_callbacks and quick_command() is None  # whose folder goes again
            if made is not None and links and (line := link_files(made.run_dir, here)):
                screen.say(line)
        if made is None:
            return None
        self._result, self._model = replace(made, build_model=self._build_model), None
        return self._result
