"""The run folder: plain files that say what a run was and what came out. Only the driver writes its top level.

::

    run.json        configuration, plan, versions, data fingerprints, state of the run and, at its end, its hashes
    metrics.jsonl   one line per epoch: global metrics, rows, seconds by worker and part of a step
    logs/           worker-0.log ...: what each worker's process printed
    model.keras     the trained model, for plain Keras
    data/           arrays that were passed to fit, as datasets
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from .coordinator import EpochRecord
from .errors import ConfigurationError

FORMAT_VERSION = 1


class RunFolder:
    """One run's folder.

    Args:
        path: where; must not hold a run already.

    Raises:
        ConfigurationError: it does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if (self.path / "run.json").exists():
            raise ConfigurationError(
                f"{str(self.path)!r} holds a run already. Give another run_dir, or leave it out to get a new one."
            )
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        self._record: dict[str, Any] = {"format_version": FORMAT_VERSION, "state": "starting"}

    def log_path(self, rank: int) -> str:
        """The log file of a worker."""
        return str(self.path / "logs" / f"worker-{rank}.log")

    def update(self, **fields: Any) -> None:
        """Set fields of ``run.json``."""
        self._record |= fields
        self._replace("run.json", (json.dumps(self._record, indent=2, default=str) + "\n").encode())

    def add_epoch(self, record: EpochRecord) -> None:
        """Append an epoch to ``metrics.jsonl``."""
        line = {
            "epoch": record.epoch,
            "time": time.time(),
            **record.logs,
            "rows": record.rows,
            "rows_by_worker": record.rows_by_worker,
            "seconds_by_worker": record.times_by_worker,
        }
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def save_model(self, content: bytes) -> None:
        """Write ``model.keras``."""
        self._replace("model.keras", content)

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the old content or the new, never a part."""
        temporary = self.path / f".{name}.writing"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


def new_run_path(name: str, root: Path = Path("runs")) -> Path:
    """``runs/<name>-<time>``, with a number behind it if that exists."""
    stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-') or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 2
    while path.exists():
        path, number = root / f"{stem}-{number}", number + 1
    return path


def next_run_path(path: Path) -> Path:
    """For a second fit of a trainer with a given folder: ``path-2``, ``path-3`` ..."""
    number, candidate = 2, path
    while (candidate / "run.json").exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate
