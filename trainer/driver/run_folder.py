"""The run folder: plain files that say what a run was and what came out. Only the driver writes its top level.

::

    run.json        configuration, plan, versions, data fingerprints, state of the run and, at its end, its hashes
    model.json      the settings of the model: what it is compiled with, its layers, names and shapes of its state
    metrics.jsonl   one line per epoch: global metrics, rows, seconds by worker and part of a step
    events.jsonl    one line per event: workers lost and joined, checkpoints, pauses, gradients that were not finite
    logs/           worker-0.log ...: what each worker's process printed
    checkpoints/    the last checkpoints
    model.keras     the trained model, for plain Keras
    data/           arrays that were passed to fit, as datasets
    replay.json     the step that ``heliostat replay`` computed again last
    trace.json      what ``heliostat trace`` recorded

The lines are those of `events`. JSON has no NaN and no infinity: such numbers are written as the strings "NaN",
"Infinity" and "-Infinity" (`values.to_line`). Version 3 of the format is written; version 2 is read, too, and a run of
then goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoints.manifest import identity_of_today
from ..checkpoints.model_record import ModelRecord
from ..checkpoints.values import from_line, to_line
from ..config import FitConfig
from ..errors import ConfigurationError, StorageError, TrainerError
from ..events import EpochRecord, Event, event_of

FORMAT_VERSION, READ_VERSIONS = 3, (2, 3)
Line = TypeVar("Line")
RUN_FILE, METRICS_FILE, EVENTS_FILE, MODEL_FILE = "run.json", "metrics.jsonl", "events.jsonl", "model.keras"
SETTINGS_FILE = "model.json"
REPLAY_FILE, TRACE_FILE = "replay.json", "trace.json"


class RunFolder:
    """One run's folder. What cannot be written waits in memory, and is written with the next line of the same file.

    Args:
        path: where.
        resume: whether it may hold a run already, which then goes on.

    Raises:
        ConfigurationError: it holds a run and may not, or its record cannot be read.
        StorageError: it cannot be made.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path.absolute()
        self._record: dict[str, Any] = {"format_version": FORMAT_VERSION, "state": "starting"}
        self._waiting: dict[str, tuple[bool, bytes]] = {}  # by file: whether it is to be written anew, and what
        self.resumes = (self.path / RUN_FILE).exists()
        if self.resumes and not resume:
            raise ConfigurationError(
                f"{str(self.path)!r} holds a run already. Give another run_dir, leave it out to get a new one, or "
                "leave out resume=False to go on with that run."
            )
        if self.resumes:
            self._record = read_record(self.path)
        self._record.setdefault("id", f"{self.path.name}-{uuid.uuid4().hex[:8]}")
        try:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(self.path, error) from error

    @property
    def record(self) -> Mapping[str, Any]:
        """What ``run.json`` says."""
        return self._record

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def run_id(self) -> str:
        """What the run is called where it is kept together with others; it stays when the folder is moved."""
        return str(self._record["id"])

    @property
    def has_epochs(self) -> bool:
        """Whether an epoch of the run was written down."""
        path = self.path / METRICS_FILE
        return path.is_file() and path.stat().st_size > 0

    def model_record(self) -> ModelRecord:
        """What the folder says of the model of the run; raises TrainerError if it cannot be read."""
        path = self.path / SETTINGS_FILE
        return ModelRecord(hashes=self._record.get("model", {}), settings=read_json(path) if path.exists() else {})

    @property
    def log_dir(self) -> str:
        """Where the workers' log files are."""
        return str(self.path / "logs")

    def is_finished(self, wanted: FitConfig) -> bool:
        """Whether it holds a run that has done all that is wanted."""
        first = self._record.get("identity", {}).get("initial_epoch", 0)
        enough = first + self._record.get("epochs_done", 0) >= wanted.epochs or self._record.get("stopped_early", False)
        return self.resumes and self._record["state"] == "finished" and enough

    def update(self, **fields: object) -> None:
        """Set fields of ``run.json``; raises StorageError."""
        self._record |= fields
        self.save(RUN_FILE, self._record, indent=2)

    def set_epochs(self, epochs: Sequence[EpochRecord]) -> None:
        """Write ``metrics.jsonl`` anew, when a run goes on from an earlier epoch; raises StorageError."""
        self._write(METRICS_FILE, "".join(_epoch_line(epoch) for epoch in epochs).encode(), anew=True)

    def add_epoch(self, epoch: EpochRecord) -> None:
        """Append an epoch to ``metrics.jsonl``; raises StorageError."""
        self._write(METRICS_FILE, _epoch_line(epoch).encode(), anew=False)

    def add_event(self, event: Event) -> None:
        """Append an event to ``events.jsonl``; raises StorageError."""
        self._write(EVENTS_FILE, (to_line(event.to_json()) + "\n").encode(), anew=False)

    def save(self, name: str, value: object, *, indent: int | None = None) -> None:
        """Write a file of JSON.

        Args:
            name: of the file.
            value: its content, as `values.to_line` takes it.
            indent: spaces per level; None for one line.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(name, (to_line(value, indent) + "\n").encode(), anew=True)

    def save_model(self, content: bytes) -> None:
        """Write ``model.keras``; raises StorageError."""
        self._write(MODEL_FILE, content, anew=True)

    def flush(self) -> None:
        """Write what waits; raises StorageError if something still cannot be written."""
        for name in list(self._waiting):
            self._write(name, b"", anew=False)

    def _write(self, name: str, content: bytes, *, anew: bool) -> None:
        if not anew:
            anew, before = self._waiting.pop(name, (False, b""))
            content = before + content
        try:
            if anew:
                _replace(self.path / name, content)
            else:
                _append(self.path / name, content)
        except OSError as error:
            self._waiting[name] = anew, content
            raise StorageError(self.path / name, error) from error
        self._waiting.pop(name, None)


def _append(path: Path, content: bytes) -> None:
    """Append all of it, or nothing."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                file.truncate(size)
            raise


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """What ``run.json`` in a folder says.

    Raises:
        ConfigurationError: there is none, or it is no record of a run.
    """
    try:
        record = from_line((path / RUN_FILE).read_text())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{str(path)!r} is no run folder: it holds no {RUN_FILE}.") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(path / RUN_FILE)!r} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format_version") not in READ_VERSIONS:
        raise ConfigurationError(
            f"{str(path / RUN_FILE)!r} was written by another version of Heliostat (format "
            f"{record.get('format_version') if isinstance(record, dict) else None}, this one reads "
            f"{' and '.join(map(str, READ_VERSIONS))})."
        )
    if "identity" in record:
        record["identity"] = identity_of_today(record["identity"])
    return record | {"format_version": FORMAT_VERSION}


def read_epochs(path: Path) -> list[EpochRecord]:
    """The epochs in the ``metrics.jsonl`` of a run folder; raises TrainerError for a line that is none."""
    return _read(path / METRICS_FILE, EpochRecord.from_json)


def read_events(path: Path) -> list[Event]:
    """The events in the ``events.jsonl`` of a run folder; raises TrainerError for a line that is none."""
    return _read(path / EVENTS_FILE, event_of)


def _read(path: Path, make: Callable[[Mapping[str, Any]], Line]) -> list[Line]:
    """The lines of a file, none if there is no such file. A last line that is cut short is left out."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    found: list[Line] = []
    for number, line in enumerate(lines):
        try:
            values = from_line(line)
        except ValueError as error:
            if number < len(lines) - 1:
                raise TrainerError(f"{path}, line {number + 1} is no JSON: {error}") from error
            break
        try:
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
            found.append(make(values))
        except (ValueError, TypeError) as error:
            raise TrainerError(f"{path}, line {number + 1} is not what Heliostat writes: {error}") from error
    return found


def read_json(path: Path) -> dict[str, Any]:
    """What `RunFolder.save` wrote.

    Raises:
        TrainerError: it cannot be read, or is no JSON object.
    """
    try:
        found = from_line(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise TrainerError(f"{str(path)!r} cannot be read: {error}") from error
    return found


def _epoch_line(epoch: EpochRecord) -> str:
    """Row ids are proofs, which checkpoints keep; they would be most of the file."""
    line = epoch.to_json()
    del line["row_ids"]
    return to_line(line) + "\n"


def new_run_path(name: str, root: Path = Path("runs")) -> Path:
    """``runs/<name>-<time>``, with a number behind it if that exists."""
    stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-') or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 2
    while path.exists():
        path, number = root / f"{stem}-{number}", number + 1
    return path


def numbered_run_path(path: Path, number: int) -> Path:
    """The folder of a trainer's `number`-th fit with a given folder: ``path``, ``path-2``, ``path-3`` ..."""
    return path if number <= 1 else path.with_name(f"{path.name}-{number}")


def run_folders(path: Path) -> list[Path]:
    """The folders of all fits that a trainer, or a script, made with a given folder, in their order."""
    found: list[Path] = []
    while ((folder := numbered_run_path(path, len(found) + 1)) / RUN_FILE).exists():
        found.append(folder)
    return found
