"""What a trainer does with the model that its fits leave: evaluate it, predict with it, hand it out, save it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import ColumnChoice
from .config import PassConfig
from .driver.arrays import Arrays
from .driver.inputs import Data, checked_callbacks
from .driver.result import Result
from .driver.run_paths import output_place
from .driver.runs import PassCall
from .driver.screen import Verbose
from .given_rows import given_rows, one_of, rows_to_predict
from .held_runs import HeldRuns
from .keras_arguments import refuses_unknown
from .pass_hooks import PassHooks
from .remote.wire import display_for
from .saved_model import SUFFIX, checked_model_file, checked_save_path, copy_model, new_model

if TYPE_CHECKING:
    import keras


class ModelUse(HeldRuns):
    """The part of a trainer that uses its model."""

    _result: Result | None = None  # of the last fit that has finished
    _model: keras.Model | None = None  # what `model` has made of it

    @refuses_unknown("evaluate")
    def evaluate(
        self,
        x: Data | Arrays | None = None,
        y: Arrays | None = None,
        batch_size: int | None = None,
        verbose: Verbose = 0,
        sample_weight: ColumnChoice | Arrays | None = None,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        return_dict: bool = True,
        *,
        data: Data | Arrays | None = None,
        global_batch_size: int | None = None,
        inputs: ColumnChoice | None = None,
        targets: ColumnChoice | None = None,
    ) -> dict[str, Any] | Any:  # Any: metrics are numbers, or whatever they return
        """Global, exact metrics of the trained model (of a new one before any `fit`) over all rows.

        Args:
            x, y, sample_weight: as for `fit`.
            batch_size: rows that are computed at a time, over all workers; results depend on it by rounding alone.
            verbose: "auto", 0 (nothing), 1, 2 or "json".
            steps: take so many batches, the first ones; None takes all rows.
            callbacks: their hooks ``on_test_begin`` and ``on_test_end`` are called in this process; see `pass_hooks`.
            return_dict: False returns a list, or one number, as Keras does by default.
            data: another name for x; likewise `global_batch_size` for batch_size.
            inputs, targets: as for `fit`.

        Returns:
            The metrics by name, as `keras.Model.evaluate(return_dict=True)` names them; see `return_dict`.

        Raises:
            ConfigurationError, DataError, ModelError: a mistake in arguments, data or model.
            DatasetError, RuntimeSetupError: as for `fit`.
            TrainingFailedError: user code raised, or workers were lost in a way that cannot be made good.
            StateNotKeptError: what the last fit has left is nowhere any more.

        Example:
            >>> sorted(trainer.evaluate(x, y))
            ['loss', 'mae']
            >>> len(trainer.evaluate(x, y, return_dict=False))
            2
        """
        rows = given_rows(one_of("data", data, "x", x), y, sample_weight, inputs=inputs, targets=targets)
        given = one_of("global_batch_size", global_batch_size, "batch_size", batch_size)
        wanted = PassConfig(columns=rows.columns, global_batch_size=rows.batch_size(given, steps), steps=steps)
        call = PassCall(wanted=wanted, data=rows.data, undecided=rows.undecided)
        hooks = PassHooks(checked_callbacks(callbacks), "test", lambda: self.model, rows.num_steps(wanted))
        with contextlib.closing(display_for(verbose)) as screen:
            hooks.begin()
            found = self._runs.evaluate(call, screen)
            hooks.end(found)
        if return_dict:
            return found
        return list(found.values()) if len(found) > 1 else next(iter(found.values()), [])

    @refuses_unknown("predict")
    def predict(
        self,
        x: Data | Arrays | None = None,
        batch_size: int | None = None,
        verbose: Verbose = 0,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        *,
        data: Data | Arrays | None = None,
        global_batch_size: int | None = None,
        inputs: ColumnChoice | None = None,
        output: str | Path | None = None,
    ) -> Any:  # Any: the model's structure of arrays, or a dataset: the caller knows what was asked for
        """Predictions for all rows, in their order.

        Args:
            x: as for `fit`; a list or dict of arrays are several inputs.
            batch_size: rows that are computed at a time, over all workers.
            verbose: see `evaluate`.
            steps: see `evaluate`.
            callbacks: as for `evaluate`; batches come, in the order of the rows, when all are there.
            data: another name for x; likewise `global_batch_size` for batch_size.
            inputs: as for `fit`.
            output: a path or URI: write the predictions there as a dataset, in the order of the rows, instead of
                holding all of them in memory. Its columns are named as the model's outputs, one alone "prediction".

        Returns:
            An array ``[rows, ...]``, or the model's structure of such arrays; with `output` the `Dataset`.

        Raises:
            what `evaluate` raises; with `output`, DatasetError also where it cannot be written.

        Example:
            >>> trainer.predict(x).shape
            (8, 1)
            >>> trainer.predict(x, output="predicted").schema["prediction"].shape
            (1,)
        """
        rows = rows_to_predict(one_of("data", data, "x", x), inputs)
        given = one_of("global_batch_size", global_batch_size, "batch_size", batch_size)
        wanted = PassConfig(columns=rows.columns, global_batch_size=rows.batch_size(given, steps), steps=steps)
        place = "" if output is None else output_place(output)
        call = PassCall(wanted=wanted, data=rows.data, undecided=rows.undecided, output=place)
        hooks = PassHooks(checked_callbacks(callbacks), "predict", lambda: self.model, rows.num_steps(wanted))
        with contextlib.closing(display_for(verbose)) as screen:
            hooks.begin()
            found = self._runs.predict(call, screen)
            hooks.batches(found, wanted.global_batch_size)
            hooks.end()
        return found

    @property
    def model(self) -> keras.Model:
        """The model in this process, as the last fit that has finished has left it; before any, one of `build_model`.

        It is the caller's: what is changed in it does not reach the workers (``fit(initial_weights=...)`` does).

        Example:
            >>> trainer.model.count_params()
            4
        """
        if self._model is None:
            self._model = new_model(self._settings) if self._result is None else self._result.model()
        return self._model

    def save(self, path: str | Path) -> None:
        """Write `model`, for plain Keras, which needs no Heliostat.

        Args:
            path: ends with ".keras"; a path or URI.

        Raises:
            ConfigurationError: it ends otherwise, or Keras cannot write this model.
            OSError, RemoteError: it cannot be written.

        Example:
            >>> trainer.save("line.keras")
            >>> keras.models.load_model("line.keras").predict(x, verbose=0).shape
            (8, 1)
        """
        place = checked_save_path(path)
        if self._result is not None:
            copy_model(checked_model_file(self._result.model_path), place)
            return
        with tempfile.TemporaryDirectory(prefix="heliostat-") as scratch:
            file = Path(scratch) / f"model{SUFFIX}"
            self.model.save(file)
            copy_model(file, place)
