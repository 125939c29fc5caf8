"""The journal of a dataset that is being written: which shards are finished, so that another process can go on.

A file of lines in the folder in the making. Each line stands for something that is on the disk already, so a process
may be killed at any moment: what is not in the journal did not happen, and is removed by the next writer. Lines are
not flushed to the disk themselves; one that a power failure takes away costs a shard that is written again. A last
line that was cut short ends the story there.

A line says all that is known of the rows so far (statistics, account), not only of its shard: the last one is enough
to go on from. A writer that goes on does not append to the journal that it found, whose end may be damaged, but begins
a new file with what it kept, locks it, and renames it over the old one; a kill in between leaves the old one, which is
still true. The lock is on the open file, not a file beside it: it ends with its process, and nothing is left over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import msgspec

from ..errors import DatasetExistsError
from ..format.account import Entry
from ..format.columns import (
    Column,
    ColumnContent,
    ColumnStatistics,
    StatisticsContent,
    column_to_json,
    statistics_to_json,
    without_none,
)
from ..format.manifest import Shard, check_shard
from .commit import locked_folder, try_lock, unfinished_folder

JOURNAL_NAME = "journal.jsonl"
_NEW_NAME = f".{JOURNAL_NAME}.new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is finished: columns (None before the first rows), shards, the statistics of their rows, how many source
    rows and buffers of rows to shuffle they hold, and what of those rows was left out or changed."""

    columns: tuple[Column, ...] | None = None
    shards: tuple[Shard, ...] = ()
    statistics: Mapping[str, ColumnStatistics] | None = None
    rows_done: int = 0
    buffers_done: int = 0
    account: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line after the first: the columns, or a shard and what is known with it; `rows_done` None: no place to go on
    from."""

    columns: tuple[ColumnContent, ...] | None = None
    shard: Shard | None = None
    statistics: dict[str, StatisticsContent] | None = None
    rows_done: int | None = None
    buffers_done: int | None = None
    account: tuple[Entry, ...] = ()


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
            if (folder / JOURNAL_NAME).is_file():
                _check_idle(folder / JOURNAL_NAME, target)
            progress = _progress_in(folder, options) if resume else None
            if progress is None and folder.is_dir():
                shutil.rmtree(folder)
            folder.mkdir(exist_ok=True)
            # Beside the old one, which stays the truth until all of it is written anew.
            file = open(folder / _NEW_NAME, "w", encoding="utf-8")  # noqa: SIM115 (closed by close)
            try_lock(file.fileno())
            journal = cls(folder, file, progress or Progress())
            journal._begin_with(options)
            os.replace(folder / _NEW_NAME, folder / JOURNAL_NAME)
        journal._remove_others()
        return journal

    def set_columns(self, columns: tuple[Column, ...]) -> None:
        """Note the columns of the dataset."""
        self._append({"columns": [column_to_json(column) for column in columns]})

    def add_shard(self, shard: Shard, progress: Progress, *, is_resumable: bool) -> None:
        """Note a finished shard, whose bytes are on the disk, what is known with it, and if writing can go on there."""
        statistics = progress.statistics or {}
        self._append(
            {
                "shard": without_none(shard),
                "statistics": {name: statistics_to_json(value) for name, value in statistics.items()},
                "rows_done": progress.rows_done if is_resumable else None,
                "buffers_done": progress.buffers_done,
                "account": [without_none(entry) for entry in progress.account],
            }
        )

    def close(self, *, remove: bool = False) -> None:
        """Let go of the folder; `remove` deletes the journal (the dataset is complete)."""
        if remove:
            os.remove(self.folder / JOURNAL_NAME)
        self._file.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        """Write a line."""
        self._file.write(json.dumps(entry) + "\n")
        # Not waited for: a line that a power failure takes away costs one shard, which is then written again.
        self._file.flush()

    def _begin_with(self, options: Mapping[str, Any]) -> None:
        """Write the options, and what is finished already: whole lines of shards that are kept."""
        progress = self.progress
        self._append(options)
        # Only the last of the shards is a place to go on from: what is known with it holds for all.
        if progress.columns is not None and progress.shards:
            self.set_columns(progress.columns)
            for shard in progress.shards[:-1]:
                self._append({"shard": without_none(shard)})
            self.add_shard(progress.shards[-1], progress, is_resumable=True)

    def _remove_others(self) -> None:
        """Remove the files of shards that are not finished."""
        kept = {JOURNAL_NAME, *(shard.file for shard in self.progress.shards)}
        for name in os.listdir(self.folder):
            if name not in kept:
                os.remove(self.folder / name)


def _progress_in(folder: Path, options: Mapping[str, Any]) -> Progress | None:
    """What an interrupted writer left, None if there is nothing to go on from."""
    path = folder / JOURNAL_NAME
    lines = _lines(path) if path.is_file() else []
    if not lines:
        return None
    before = lines[0]
    # As they come back from JSON: a tuple is a list then.
    if before != json.loads(json.dumps(options)):
        changed = sorted(name for name in options if before.get(name) != json.loads(json.dumps(options[name])))
        raise DatasetExistsError(
            f"The unfinished dataset in {folder} was begun with other options ({', '.join(changed)}). Give the same "
            "options to go on with it, or resume=False to begin again.",
            path=folder,
        )
    return progress_of(lines[1:], folder)


def progress_of(lines: list[dict[str, Any]], folder: Path) -> Progress:
    """Progress up to the last shard from which writing can go on and whose files are all there."""
    progress, columns, shards = Progress(), None, []
    for content in lines:
        try:
            line = msgspec.convert(content, _Line)
            if line.columns is not None:
                columns = tuple(item.column() for item in line.columns)
                continue
            if columns is None or line.shard is None:
                break
            check_shard(line.shard)
        except (ValueError, OverflowError):  # no line that this version can go on from
            break
        # A file that was cut short or is gone ends what can be gone on from, whatever the lines after it say.
        path = folder / line.shard.file
        if not path.is_file() or path.stat().st_size != line.shard.num_bytes:
            break
        shards.append(line.shard)
        if line.rows_done is not None and line.statistics is not None:
            known = line.statistics
            progress = Progress(
                columns=columns,
                shards=tuple(shards),
                statistics={column.name: known[column.name].statistics(column) for column in columns},
                rows_done=line.rows_done,
                buffers_done=line.buffers_done or 0,
                account=line.account,
            )
    return progress


def _lines(path: Path) -> list[dict[str, Any]]:
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
