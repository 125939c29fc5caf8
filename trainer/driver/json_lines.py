"""What a program reads of a run: a JSON object on each line, in the form that the run folder has it in.

``{"time": ..., "event": ..., ...}``: the events are those of ``events.jsonl``. Others are of the screen alone:
``begin`` and ``end`` with what ``run.json`` says then, ``epoch`` as in ``metrics.jsonl``, ``sample`` as in
``samples.jsonl``, ``doing`` for what is done or waited for, and ``line`` for what a person is told in words. Of a run
elsewhere, whose samples stay there, ``progress`` and ``workers`` say how far it is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from io import TextIOBase
from pathlib import Path
from typing import Any

from ..checkpoints.values import to_line
from ..events import EpochRecord, Event, Lines
from ..jobs import Progress
from ..samples import Sample
from .display import Display
from .doing import Doing
from .worker_table import WorkerTable

_DOING_EVERY_S, _PROGRESS_EVERY_S = 5.0, 1.0


class JsonDisplay(Display):
    """Lines for programs.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIOBase) -> None:
        self._stream, self._is_sampled = stream, False
        self._doing: Doing | None = None
        self._doing_told_s = self._progress_told_s = -math.inf

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Tell the run folder, and what ``run.json`` says."""
        self._write("begin", {"run_dir": os.fspath(path), "record": record})

    def end(self, record: Mapping[str, Any]) -> None:
        """Tell what ``run.json`` says at the end."""
        self._write("end", {"record": record})

    def say(self, text: str) -> None:
        """Tell a line that a person would read."""
        self._write("line", {"text": text})

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Tell the epoch."""
        fields = _fields(replace(record, row_ids=()))
        del fields["row_ids"]
        self._write("epoch", {**fields, "epochs": epochs, "seconds": round(seconds, 3)})

    def event(self, event: Event) -> None:
        """Tell the event."""
        self._stream.write(f"{to_line(event.to_json())}\n")

    def progress(self, progress: Progress, epochs: int) -> None:
        """Tell how far the epoch is, where no sample does: those of a run elsewhere stay there."""
        if not self._is_sampled and time.monotonic() - self._progress_told_s >= _PROGRESS_EVERY_S:
            self._progress_told_s = time.monotonic()
            self._write("progress", {**_fields(progress), "epochs": epochs})

    def workers(self, table: WorkerTable) -> None:
        """Tell how the workers of a run elsewhere do."""
        self._write("workers", _fields(table))

    def sample(self, sample: Sample) -> None:
        """Tell how far the workers are."""
        self._is_sampled = True
        self._write("sample", _fields(sample))

    def doing(self, doing: Doing | None) -> None:
        """Tell what is done, when that is something else, and now and then how far it is."""
        now_s, before = time.monotonic(), self._doing
        self._doing = doing
        is_new = (doing and doing.what) != (before and before.what)
        if doing is not None and (is_new or (doing != before and now_s - self._doing_told_s >= _DOING_EVERY_S)):
            self._doing_told_s = now_s
            self._write("doing", _fields(doing))

    def _write(self, name: str, fields: Mapping[str, Any]) -> None:
        line = {"time": fields.get("time", time.time()), "event": name}
        self._stream.write(f"{to_line({**line, **fields})}\n")


def _fields(told: Lines) -> dict[str, Any]:
    return told.to_json()
