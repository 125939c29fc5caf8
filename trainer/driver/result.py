"""What a finished run hands back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import EpochRecord, history_of

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
    """

    history: dict[str, list[Any]]
    run_dir: Path
    sha256: dict[str, str]
    seconds: float
    epochs: list[EpochRecord] = field(repr=False)
    in_process: bool = field(default=False, repr=False)

    @property
    def model_path(self) -> Path:
        """The trained model, a plain Keras file that needs no Heliostat."""
        return self.run_dir / "model.keras"

    def model(self, custom_objects: dict[str, Any] | None = None) -> keras.Model:
        """Load the trained `keras.Model` into this process.

        Args:
            custom_objects: classes and functions of your own that the model uses, by name, as in
                `keras.models.load_model`.
        """
        import keras  # the driver has no use for TensorFlow until someone wants the model
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already: it is the user's to say what it uses
            if not self.in_process:
                tf.config.set_visible_devices([], "GPU")  # they belong to the workers
        return keras.models.load_model(self.model_path, custom_objects=custom_objects)


def stored_result(path: Path, record: Mapping[str, Any], epochs: list[EpochRecord]) -> Result:
    """The result of a run that finished before.

    Args:
        path: its folder.
        record: what ``run.json`` says.
        epochs: those in ``metrics.jsonl``.
    """
    return Result(
        history=history_of(epochs),
        run_dir=path,
        sha256=dict(record["sha256"]),
        seconds=float(record["seconds"]),
        epochs=epochs,
    )
