"""What a finished run hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.data import Dataset

from ..columns import Columns
from ..events import EpochRecord, history_of
from ..hardware import leave_gpus
from ..jobs import MODEL_FILE, WEIGHTS_FILE, FitJob

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run.

    Attributes:
        history: metric name -> one value per epoch; global and exact.
        run_dir: the run folder.
        sha256: hashes of the final weights and optimizer state.
        epochs: what the driver recorded of each epoch (rows and time split by worker).
        seconds: duration of the run, starting workers included.
        in_process: whether this process was the worker.
        build_model: the function that made the model; None where it is not known, as of a run that was fetched.
        data: what it was trained on, as a dataset; `columns` says what is what in it. None likewise.
        columns: see `data`.

    Example:
        >>> result = trainer.fit(x, y, epochs=3, verbose=0)
        >>> len(result.history["loss"]), [epoch.rows for epoch in result.epochs]
        (3, [8, 8, 8])
        >>> result.model_path.name, sorted(result.sha256)
        ('model.keras', ['optimizer', 'weights'])
    """

    history: dict[str, list[Any]]
    run_dir: Path
    sha256: dict[str, str]
    seconds: float
    epochs: list[EpochRecord] = field(repr=False)
    in_process: bool = field(default=False, repr=False)
    build_model: Callable[[], Any] | None = field(
        default=None, repr=False, compare=False
    )  # Any: (model, optimizers) too
    data: Dataset | None = field(default=None, repr=False, compare=False)
    columns: Columns | None = field(default=None, repr=False, compare=False)

    @property
    def model_path(self) -> Path:
        """The trained model, a plain Keras file that needs no Heliostat; its weights where Keras cannot write it.

        Example:
            >>> keras.models.load_model(result.model_path).count_params()
            4
        """
        weights = self.run_dir / WEIGHTS_FILE
        return weights if weights.exists() and not (self.run_dir / MODEL_FILE).exists() else self.run_dir / MODEL_FILE

    def model(self, custom_objects: dict[str, Any] | None = None) -> keras.Model:
        """Load the trained `keras.Model` into this process.

        Classes and functions of your own that the model uses are found where the code of `build_model` names them: in
        the script, a notebook's cells, your modules. Where the file is not enough, as for a class that is defined
        inside of `build_model`, the model is built by that function, and the trained weights are loaded into it;
        optimizers that only its step applies then have no state.

        Args:
            custom_objects: such classes and functions by name, as in `keras.models.load_model`; for a model that other
                code has made, or one that a module makes by itself.

        Raises:
            ModelError: neither is possible.

        Example:
            >>> result.model().predict(x, verbose=0).shape
            (8, 1)
        """
        if not self.in_process:
            leave_gpus()  # unless TensorFlow runs already: it is the user's to say what it uses
        from .trained_model import Origin, load_trained  # the driver has no use for Keras until someone wants the model

        build_model, data, columns = self.build_model, self.data, self.columns
        origin = None if build_model is None else Origin(build_model=build_model, data=data, columns=columns)
        return load_trained(self.model_path, origin, custom_objects)


def stored_result(
    path: Path, record: Mapping[str, Any], epochs: list[EpochRecord], job: FitJob | None = None
) -> Result:
    """The result of a run that finished before.

    Args:
        path: its folder.
        record: what ``run.json`` says.
        epochs: those in ``metrics.jsonl``.
        job: the run, where it is known here.
    """
    return Result(
        history=history_of(epochs),
        run_dir=path,
        sha256=dict(record["sha256"]),
        seconds=float(record["seconds"]),
        epochs=epochs,
        data=None if job is None else job.data,
        columns=None if job is None else job.wanted.columns,
    )
