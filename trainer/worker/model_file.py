"""The trained model as a file for plain Keras: a worker writes it into the run folder, the driver gives it its name.

It may have any size, so it is in no message. Where the worker's machine does not see the run folder, Keras writes among
temporary files, and from there the bytes go to the driver's disk in pieces.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import keras
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import PIECE_BYTES


def write_model(model: keras.Model, path: Path, reach: Reach) -> None:
    """Write a model to a path of the driver's disk.

    Args:
        model: what to write.
        path: where to; nobody else writes there.
        reach: how this machine reaches that disk.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    if reach.sees(str(path)):
        try:
            model.save(path)
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk needs the room
                path.unlink()
            raise
        return
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        copy = Path(folder) / "model.keras"
        model.save(copy)
        files = reach.filesystem()
        try:
            with copy.open("rb") as source, files.open_output_stream(str(path), compression=None) as target:
                shutil.copyfileobj(source, target, PIECE_BYTES)
        except BaseException:
            with contextlib.suppress(OSError):
                files.delete_file(str(path))
            raise
