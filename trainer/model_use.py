"""What a trainer does with the model that its fits leave: evaluate it, predict with it, hand it out, save it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from .columns import ColumnChoice
from .config import PassConfig
from .driver.inputs import Data
from .driver.result import Result
from .driver.runs import PassCall
from .driver.screen import Verbose
from .given_rows import Arrays, given_rows, one_of, rows_to_predict
from .held_runs import HeldRuns
from .keras_arguments import refuses_unknown
from .remote.wire import display_for

if TYPE_CHECKING:
    pass


class ModelUse(HeldRuns):
    """The part of a trainer that uses its model."""

    _result: Result | None = None  # of the last fit that has finished

    @refuses_unknown("evaluate")
    def evaluate(
        self,
        x: Data | Arrays | None = None,
        y: Arrays | None = None,
        batch_size: int | None = None,
        verbose: Verbose = 0,
        sample_weight: ColumnChoice | Arrays | None = None,
        steps: int | None = None,
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
            batch_size: rows that are computed at a time, over all workers; results do not depend on it.
            verbose: "auto", 0 (nothing), 1 or 2.
            steps: take so many batches, the first ones; None takes all rows.
            return_dict: False returns a list, or one number, as Keras does by default.
            data: another name for x; likewise `global_batch_size` for batch_size.
            inputs, targets: as for `fit`.

        Returns:
            The metrics by name, as `keras.Model.evaluate(return_dict=True)` names them; see `return_dict`.

        Raises:
            ConfigurationError, DataError, ModelError: a mistake in arguments, data or model.
            TrainingFailedError: user code raised, or workers were lost in a way that cannot be made good.
        """
        rows = given_rows(one_of("data", data, "x", x), y, sample_weight, inputs=inputs, targets=targets)
        given = one_of("global_batch_size", global_batch_size, "batch_size", batch_size)
        wanted = PassConfig(columns=rows.columns, global_batch_size=rows.batch_size(given, steps), steps=steps)
        call = PassCall(wanted=wanted, data=rows.data, undecided=rows.undecided)
        with contextlib.closing(display_for(verbose)) as screen:
            found = self._runs.evaluate(call, screen)
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
        *,
        data: Data | Arrays | None = None,
        global_batch_size: int | None = None,
        inputs: ColumnChoice | None = None,
    ) -> Any:
        """Predictions for all rows, in their order.

        Args:
            x: as for `fit`; a list or dict of arrays are several inputs.
            batch_size: rows that are computed at a time, over all workers.
            verbose: see `evaluate`.
            steps: see `evaluate`.
            data: another name for x; likewise `global_batch_size` for batch_size.
            inputs: as for `fit`.

        Returns:
            An array ``[rows, ...]``, or the model's structure of such arrays.

        Raises:
            what `evaluate` raises.
        """
        rows = rows_to_predict(one_of("data", data, "x", x), inputs)
        given = one_of("global_batch_size", global_batch_size, "batch_size", batch_size)
        wanted = PassConfig(columns=rows.columns, global_batch_size=rows.batch_size(given, steps), steps=steps)
        with contextlib.closing(display_for(verbose)) as screen:
            return self._runs.predict(PassCall(wanted=wanted, data=rows.data, undecided=rows.undecided), screen)
