"""The journal of a dataset that is being written: which shards are finished, so that another process can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from ..errors import DatasetExistsError
from ..format.columns import Column, ColumnStatistics
from ..format.manifest import (
    Shard,
    column_from_json,
    column_to_json,
    shard_from_json,
    shard_to_json,
    statistics_from_json,
    statistics_to_json,
)
from .commit import locked_folder, try_lock, unfinished_folder

JOURNAL_NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is finished: columns (None before the first rows), shards, the statistics of their rows, and how many source
    rows and buffers of rows to shuffle they hold."""

    columns: tuple[Column, ...] | None = None
    shards: tuple[Shard, ...] = ()
    statistics: Mapping[str, ColumnStatistics] | None = None
    rows_done: int = 0
    buffers_done: int = 0


class Journal:
    """The journal in the folder in the making, locked while this process writes there.

    Its first line holds the options of the writer, the second the columns, every further one a finished shard.
    """

    def __init__(self, folder: Path, file: TextIO, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self._file = file

    @classmethod
    def begin(cls, target: Path, options: Mapping[str, Any], *, resume: bool) -> Self:
        """Take possession of the folder in the making of `target`, new or (`resume`) with what is finished in it.

        Raises DatasetExistsError if another process writes there, or if it was begun with other options; OSError.
        """
        folder = unfinished_folder(target)
        with locked_folder(target.parent):
            progress = _locked_progress(folder, target, options) if resume else None
            if progress is None:
                _remove_unfinished(folder, target)
                folder.mkdir()
            file = open(folder / JOURNAL_NAME, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
            try_lock(file.fileno())
        journal = cls(folder, file, progress or Progress())
        if progress is None:
            journal._append(options)
        else:
            journal._rewrite(options)
        return journal

    def set_columns(self, columns: tuple[Column, ...]) -> None:
        """Note the columns of the dataset."""
        self._append({"columns": [column_to_json(column) for column in columns]})

    def add_shard(
        self, shard: Shard, statistics: Mapping[str, ColumnStatistics], rows_done: int | None, buffers_done: int
    ) -> None:
        """Note a finished shard, whose bytes are on the disk."""
        self._append(_shard_entry(shard, statistics, rows_done, buffers_done))

    def close(self, *, remove: bool = False) -> None:
        """Let go of the folder; `remove` deletes the journal (the dataset is complete)."""
        if remove:
            os.remove(self.folder / JOURNAL_NAME)
        self._file.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        # Not waited for: a line that a power failure takes away costs one shard, which is then written again.
        self._file.flush()

    def _rewrite(self, options: Mapping[str, Any]) -> None:
        """Leave only whole lines of shards that are kept, and only their files."""
        progress = self.progress
        self._file.truncate(0)
        self._append(options)
        if progress.columns is not None and progress.statistics is not None:
            self.set_columns(progress.columns)
            *before, last = progress.shards
            for shard in before:
                self._append({"shard": shard_to_json(shard)})
            self.add_shard(last, progress.statistics, progress.rows_done, progress.buffers_done)
        kept = {JOURNAL_NAME, *(shard.file for shard in progress.shards)}
        for name in os.listdir(self.folder):
            if name not in kept:
                os.remove(self.folder / name)


def _shard_entry(
    shard: Shard, statistics: Mapping[str, ColumnStatistics], rows_done: int | None, buffers_done: int
) -> dict[str, Any]:
    return {
        "shard": shard_to_json(shard),
        "statistics": {name: statistics_to_json(value) for name, value in statistics.items()},
        "rows_done": rows_done,
        "buffers_done": buffers_done,
    }


def _locked_progress(folder: Path, target: Path, options: Mapping[str, Any]) -> Progress | None:
    """What an interrupted writer left, None if there is nothing to go on from."""
    path = folder / JOURNAL_NAME
    if not path.is_file():
        return None
    _check_idle(path, target)
    entries = _entries(path)
    if not entries:
        return None
    if entries[0] != json.loads(json.dumps(options)):
        changed = sorted(name for name in options if entries[0].get(name) != options[name])
        raise DatasetExistsError(
            f"The unfinished dataset in {folder} was begun with other options ({', '.join(changed)}). Give the same "
            "options to go on with it, or resume=False to begin again.",
            path=folder,
        )
    return progress_of(entries[1:], folder)


def progress_of(entries: list[dict[str, Any]], folder: Path) -> Progress:
    """Progress up to the last shard from which writing can go on and whose files are all there."""
    progress, columns, shards = Progress(), None, []
    for entry in entries:
        if "columns" in entry:
            columns = tuple(column_from_json(item) for item in entry["columns"])
            continue
        shard = shard_from_json(entry["shard"])
        path = folder / shard.file
        if columns is None or not path.is_file() or path.stat().st_size != shard.num_bytes:
            break
        shards.append(shard)
        if "rows_done" in entry and entry["rows_done"] is not None:
            known = entry["statistics"]
            progress = Progress(
                columns=columns,
                shards=tuple(shards),
                statistics={column.name: statistics_from_json(column, known[column.name]) for column in columns},
                rows_done=entry["rows_done"],
                buffers_done=entry["buffers_done"],
            )
    return progress


def _entries(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; the last one may have been cut short."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _check_idle(path: Path, target: Path) -> None:
    with open(path, "rb") as file:
        if not try_lock(file.fileno()):
            raise DatasetExistsError(
                f"Another process is writing the dataset {target} right now. Wait for it, or write to another path.",
                path=target,
            )


def _remove_unfinished(folder: Path, target: Path) -> None:
    """Remove what a writer left that was interrupted."""
    if (folder / JOURNAL_NAME).is_file():
        _check_idle(folder / JOURNAL_NAME, target)
    if folder.is_dir():
        shutil.rmtree(folder)
