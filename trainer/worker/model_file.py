"""The trained model as a file for plain Keras: a worker writes it into the run folder, the driver gives it its name.

It may have any size, so it is in no message. Where the worker's machine does not see the run folder, Keras writes among
temporary files, and from there the bytes go to the driver's disk in pieces.

Keras writes a model as a file only if all of its parts say how they are made (`get_config`). Published models often do
not: they get models in their constructor, or have a schedule of their own. That is no reason not to train them, so what
Keras can write is written: the whole model, else the model without what it was compiled with, else its weights.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import PIECE_BYTES

from ..engine.private_models import has_call
from ..jobs import MODEL_FILE, WEIGHTS_FILE


@dataclass(frozen=True, slots=True)
class FileKind:
    """What of a model Keras can write.

    Attributes:
        name: of the file in the run folder.
        compiled: with what the model was compiled with.
        note: what the user should know of it; empty if all is written.
    """

    name: str = MODEL_FILE
    compiled: bool = True
    note: str = ""


def kind_of(model: keras.Model) -> FileKind:
    """What of a model Keras can write, tried with its configuration alone."""
    whole = _reason(model)
    if whole is None and has_call(model):
        return FileKind()
    with _uncompiled(model):
        bare = _reason(model) if has_call(model) else "it has no call(), so Keras could not build it from a file"
    if bare is None:
        return FileKind(
            compiled=False,
            note=f"{MODEL_FILE} will hold the model without its optimizer, loss and metrics, since Keras cannot write "
            f"these ({whole}): compile it after result.model(), or give them a get_config()",
        )
    return FileKind(
        name=WEIGHTS_FILE,
        note=f"Keras cannot write this model as a file ({bare}), so its weights will be in {WEIGHTS_FILE}: "
        "result.model() builds the model with build_model and loads them; a get_config() of the model would allow "
        f"{MODEL_FILE}",
    )


def _reason(model: keras.Model) -> str | None:
    """Why a model has no configuration; None if it has one."""
    try:
        keras.saving.serialize_keras_object(model)
    except Exception as error:  # get_config is the user's code, which may raise anything
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0].strip()}"
    return None


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _write(model: keras.Model, kind: FileKind, path: Path) -> None:
    if kind.name == WEIGHTS_FILE:
        model.save_weights(path)
        return
    with contextlib.nullcontext() if kind.compiled else _uncompiled(model):
        model.save(path)


def write_model(model: keras.Model, path: Path, reach: Reach) -> None:
    """Write a model, as far as Keras can, to a path of the driver's disk.

    Args:
        model: what to write.
        path: where to, `model_name` with what `kind_of` says; nobody else writes there.
        reach: how this machine reaches that disk.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    kind = kind_of(model)
    if reach.sees(str(path)):
        try:
            _write(model, kind, path)
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk needs the room
                path.unlink()
            raise
        return
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        copy = Path(folder) / kind.name
        _write(model, kind, copy)
        files = reach.filesystem()
        try:
            with copy.open("rb") as source, files.open_output_stream(str(path), compression=None) as target:
                shutil.copyfileobj(source, target, PIECE_BYTES)
        except BaseException:
            with contextlib.suppress(OSError):
                files.delete_file(str(path))
            raise
