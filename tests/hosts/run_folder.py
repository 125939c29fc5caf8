"""What lies in a run folder, read as a test compares it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np


def is_at_the_gate(folder: Path) -> bool:
    """Whether callbacks of a run wait at the gate (`work/train.py`), as a worker's log tells."""
    return any("at the gate" in log.read_text() for log in (folder / "logs").glob("worker-*.log"))


def files_of(folder: Path) -> set[str]:
    """What callbacks have written into a run folder: names below it, those of TensorBoard as their folders."""
    ours = {"run.json", "metrics.jsonl", "events.jsonl", "model.keras", "logs", "checkpoints", "final", "data"}
    ours.add("submitted.json")
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.parent if ".tfevents." in path.name else path)
        for path in found
        if path.parts[0] not in ours and not any(part.startswith(".") for part in path.parts)
    }


def assert_whole(folder: Path, other: Path, num_workers: int) -> None:
    """A run folder holds all that a run leaves, and its model has the weights of another's."""
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished", record["state"]
    num_epochs = len((folder / "metrics.jsonl").read_text().splitlines())
    assert num_epochs == len((other / "metrics.jsonl").read_text().splitlines())
    assert (folder / "events.jsonl").stat().st_size
    for worker in range(num_workers):
        assert "a word of the user's model" in (folder / "logs" / f"worker-{worker}.log").read_text()
    assert list((folder / "checkpoints").glob("*/manifest.json"))
    assert list(folder.glob("**/final/**/manifest.json"))
    _assert_same_weights(folder / "model.keras", other / "model.keras")


def assert_same_files(folder: Path, other: Path) -> None:
    """Callbacks' files in two run folders are the same: bytes of text, numbers of weights and of TensorBoard."""
    names = files_of(other)
    assert files_of(folder) == names, sorted(files_of(folder) ^ names)
    for name in sorted(names):
        if name.startswith("board"):
            assert _scalars(folder / name) == _scalars(other / name), name
        elif name.endswith((".keras", ".h5")):
            _assert_same_weights(folder / name, other / name)
        else:
            assert (folder / name).read_text() == (other / name).read_text(), name


def _assert_same_weights(path: Path, other: Path) -> None:
    ours, theirs = _weights(path), _weights(other)
    assert ours.keys() == theirs.keys(), path
    assert ours, path
    for name, values in ours.items():
        assert np.array_equal(values, theirs[name]), (path, name)


def _weights(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file of weights, or of the one in a ``.keras`` file."""
    file = io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5")) if path.suffix == ".keras" else path
    found: dict[str, np.ndarray] = {}
    with h5py.File(file) as weights:
        weights.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _scalars(folder: Path) -> set[tuple[str, int, float]]:
    """(tag, step, value) of every number that TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found = set()
    for path in folder.glob("*.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(("epoch_", "evaluation_")):
                    found.add((value.tag, event.step, float(tensor_util.make_ndarray(value.tensor))))
    return found
