"""The model of a trainer in this process, and its file: as the last fit has left it, or new."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from heliostat.data.remote.filesystem import RemoteFolder, is_uri
from heliostat.data.views.view import appearing_whole

from .errors import ConfigurationError
from .hardware import leave_gpus
from .shipping import unship
from .trainer_config import TrainerConfig

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
_BLOCK_BYTES = 1 << 22


def new_model(settings: TrainerConfig) -> keras.Model:
    """The model that `build_model` makes, with the weights that the first fit of a trainer begins with.

    Without rows it is built as far as its layers tell their shapes; Keras builds the rest when it is used.
    """
    if not settings.local:
        leave_gpus()  # unless TensorFlow runs already: it is the user's to say what it uses
    from .engine.build_model import called, seeded  # the driver has no use for Keras until someone wants the model
    from .engine.runtime import BUILD_LOCK

    with BUILD_LOCK, seeded(settings.seed):
        model, _ = called(unship(settings.build_model, "build_model"))
    return model


def checked_save_path(path: object) -> str:
    """A path or URI of a model's file; raises ConfigurationError for anything else."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text.partition("?")[0].endswith(SUFFIX):
        raise ConfigurationError(
            f"save({path!r}): it takes a path or URI that ends with {SUFFIX!r}, such as 'model{SUFFIX}'. For weights "
            "alone, or another format: trainer.model.save_weights(path), trainer.model.export(path)."
        )
    return text


def checked_model_file(path: Path) -> Path:
    """The file of a run's model; raises ConfigurationError where it holds weights alone."""
    if path.suffix != SUFFIX:
        raise ConfigurationError(
            f"Keras cannot write this model (it has no get_config() that makes another one), so the run has kept its "
            f"weights, {str(path)!r}. Copy that file, or call trainer.model.save_weights(path); load_weights(path) of "
            "a model that build_model has made reads it."
        )
    return path


def copy_model(source: Path, path: str) -> None:
    """Copy a model's file to a path or URI, where it appears complete or not at all.

    Raises:
        OSError, RemoteError: it cannot be written.
    """
    if is_uri(path):
        bare, mark, query = path.partition("?")
        folder, _, name = bare.rpartition("/")
        RemoteFolder(f"{folder}{mark}{query}").upload(name, lambda: _blocks(source), at_once=True)
        return
    with appearing_whole(Path(path).expanduser()) as unfinished:
        shutil.copyfile(source, unfinished)


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
