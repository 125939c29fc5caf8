"""The run folder: plain files that say what a run was and what came out. Only the driver writes its top level.

::

    run.json        configuration, plan, versions, data fingerprints, state of the run and, at its end, its hashes
    metrics.jsonl   one line per epoch: global metrics, rows, seconds by worker and part of a step
    events.jsonl    one line per event: workers lost and joined, checkpoints, pauses, gradients that were not finite
    logs/           worker-0.log ...: what each worker's process printed
    checkpoints/    the last checkpoints
    model.keras     the trained model, for plain Keras
    data/           arrays that were passed to fit, as datasets
    replay.json     the step that ``heliostat replay`` computed again last
    trace.json      what ``heliostat trace`` recorded

JSON has no NaN and no infinity: such numbers are written as the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, TrainerError

FORMAT_VERSION = 2
RUN_FILE, METRICS_FILE, EVENTS_FILE, MODEL_FILE = "run.json", "metrics.jsonl", "events.jsonl", "model.keras"
REPLAY_FILE, TRACE_FILE = "replay.json", "trace.json"


class RunFolder:
    """One run's folder.

    Args:
        path: where.
        resume: whether it may hold a run already, which then goes on.

    Raises:
        ConfigurationError: it holds a run and may not, or its record cannot be read.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path.absolute()
        self._record: dict[str, Any] = {"format_version": FORMAT_VERSION, "state": "starting"}
        self.resumes = (self.path / RUN_FILE).exists()
        if self.resumes and not resume:
            raise ConfigurationError(
                f"{str(self.path)!r} holds a run already. Give another run_dir, leave it out to get a new one, or "
                "leave out resume=False to go on with that run."
            )
        if self.resumes:
            self._record = read_record(self.path)
        (self.path / "logs").mkdir(parents=True, exist_ok=True)

    @property
    def record(self) -> Mapping[str, Any]:
        """What ``run.json`` says."""
        return self._record

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    def log_path(self, worker: int) -> str:
        """The log file of a worker."""
        return str(self.path / "logs" / f"worker-{worker}.log")

    def update(self, **fields: Any) -> None:
        """Set fields of ``run.json``."""
        self._record |= fields
        self.save(RUN_FILE, self._record, indent=2)

    def set_epochs(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write ``metrics.jsonl`` anew, when a run goes on from an earlier epoch."""
        text = "".join(json.dumps(finite(line), default=str) + "\n" for line in lines)
        self._replace(METRICS_FILE, text.encode())

    def add_epoch(self, line: Mapping[str, Any]) -> None:
        """Append an epoch to ``metrics.jsonl``."""
        self._append(METRICS_FILE, {**line, "time": time.time()})

    def add_event(self, event: str, **fields: Any) -> None:
        """Append an event to ``events.jsonl``."""
        self._append(EVENTS_FILE, {"time": time.time(), "event": event, **fields})

    def save(self, name: str, value: object, *, indent: int | None = None) -> None:
        """Write a file of JSON."""
        self._replace(name, (json.dumps(finite(value), indent=indent, default=str) + "\n").encode())

    def save_model(self, content: bytes) -> None:
        """Write ``model.keras``."""
        self._replace(MODEL_FILE, content)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(finite(line), default=str) + "\n")

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part."""
        temporary = self.path / f".{name}.writing"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


def read_record(path: Path) -> dict[str, Any]:
    """What ``run.json`` in a folder says.

    Raises:
        ConfigurationError: there is none, or it is no record of a run.
    """
    try:
        record = json.loads((path / RUN_FILE).read_text())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{str(path)!r} is no run folder: it holds no {RUN_FILE}.") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(path / RUN_FILE)!r} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        raise ConfigurationError(
            f"{str(path / RUN_FILE)!r} was written by another version of Heliostat (format "
            f"{record.get('format_version') if isinstance(record, dict) else None}, this one reads {FORMAT_VERSION})."
        )
    return record


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``.jsonl`` file; none if there is no such file. A last line that is cut short is left out.

    Raises:
        TrainerError: a line is not JSON.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines):
        try:
            found.append(dict(_number(json.loads(line))))
        except ValueError as error:
            if number < len(lines) - 1:
                raise TrainerError(f"{path}, line {number + 1} is no JSON: {error}") from error
    return found


def read_json(path: Path) -> Any:
    """What `RunFolder.save` wrote.

    Raises:
        TrainerError: it cannot be read, or is not JSON.
    """
    try:
        return _number(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise TrainerError(f"{str(path)!r} cannot be read: {error}") from error


def finite(value: Any) -> Any:
    """A JSON value with numbers that JSON lacks as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(each) for each in value]
    if isinstance(value, dict):
        return {name: _number(each) for name, each in value.items()}
    return float(value.lower()) if value in ("NaN", "Infinity", "-Infinity") else value


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
