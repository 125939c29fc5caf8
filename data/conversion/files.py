"""Which files a source is made of, and which of those that are there are left out.

A folder is taken with all that lies below it: the files with an ending of the kind become rows, in the order of their
names, and every other one is an entry of the account, so that nothing vanishes because nobody looked for it. What files
say by their names is heard: `train` and `test` are not joined unless that is asked for, shards that are missing from
`-00000-of-00008` are told, and `year=2023/` is a column (see `foreign.schemas`). Looking is one walk through the
folder, deciding a function of the names alone. Left out without a word is only what carries no rows: the notes that
Hadoop, Spark, Hugging Face, macOS and this package leave beside theirs.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePath

from ..errors import SourceError
from ..foreign.schemas import ALL_SPLITS, split_of
from ..foreign.tfrecord import is_tfrecord
from ..format.account import Account
from ..format.walk import files_below

_PACKED = ("", ".gz", ".bz2", ".zst")
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "npz": (".npz",),
    "npy": (".npy",),
    "csv": tuple(f"{ending}{packed}" for ending in (".csv", ".tsv") for packed in _PACKED),
    "json": tuple(f"{ending}{packed}" for ending in (".jsonl", ".ndjson", ".json") for packed in _PACKED),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "tfrecord": (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz"),
    "idx": ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"),
}

_SHARD = re.compile(r"(?P<start>.*)-(?P<number>[0-9]{3,})-of-(?P<total>[0-9]{3,})(?P<end>.*)")
_NOTES = re.compile(
    r"_SUCCESS|_metadata|_common_metadata|_committed_.*|_started_.*|\..*\.crc|\..*\.writing.*|\.DS_Store"
    r"|dataset_infos?\.json"
)
_NUM_NAMED = 5


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source in order, and their names below the folder or pattern that was given."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]


@dataclass(slots=True)
class _Choice:
    """Names that are taken, and those that are left out, by reason."""

    taken: list[str]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, is_kept: Callable[[str], bool], reason: str) -> None:
        """Leave out what is not kept."""
        out = [name for name in self.taken if not is_kept(name)]
        self.taken = [name for name in self.taken if is_kept(name)]
        if out:
            self.left_out.setdefault(reason, []).extend(out)


def find_files(
    source: str, kind: str, account: Account, *, split: str | None = None, are_joined: bool = True
) -> SourceFiles:
    """The files of a kind at a path, in and below a folder, or of a pattern (`*`), in the order of their names.

    Args:
        source: a file, a folder or a pattern.
        kind: one of `ENDINGS`.
        account: gets what is left out.
        split: takes the files whose names say so, such as "train"; "all" takes all.
        are_joined: whether rows of several files come one after the other, so that splits and shards matter.

    Raises SourceError if there is none, and if names say several splits and none is chosen.
    """
    root, names = listed(source)
    if not names and not Path(source).is_dir():
        names = [Path(source).name]  # what is wrong with it shows when it is opened
    choice = _Choice(names)
    is_file = len(names) == 1 and Path(source) == root / names[0]
    if is_file and _is_special(root / names[0]):
        raise SourceError(f"{source} is no regular file, and it is read twice: write it to a file first.", path=source)
    if not is_file:
        choice.keep(lambda name: not name.endswith("/"), "a link that leads back to a folder that it lies in")
        choice.keep(lambda name: not _is_special(root / name), "no regular file")
        _choose_kind(choice, source, kind)
    if are_joined:
        _choose_split(choice, source, split)
    if not choice.taken:
        what = f"Folder {source} has" if Path(source).is_dir() else f"{source} gives"
        raise SourceError(f"{what} no {kind} files ({', '.join(ENDINGS[kind])}).", path=source)
    for name in choice.taken:
        check_utf8(name)
    for reason, left_out in choice.left_out.items():
        note_left_out(account, left_out, reason)
    if are_joined:
        _note_missing_shards(account, choice.taken)
    return SourceFiles(tuple(root / name for name in choice.taken), tuple(choice.taken))


def listed(source: str) -> tuple[Path, list[str]]:
    """The folder that names count from, and the files of a source below it, by name; raises SourceError.

    A folder that is a dataset of ours, below the one that is given, is listed by its manifest.
    """
    path = Path(source)
    if path.exists() or not _is_pattern(source):
        is_folder = path.is_dir()
        names = files_below(path) if is_folder else [path.name] if path.exists() else []
        return path if is_folder else path.parent, sorted(names, key=_parts)
    root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    pattern = (*path.parts[len(root.parts) :], *(["**"] if source.endswith("/") else []))
    found = sorted(files_below(root, {pattern}), key=_parts) if root.is_dir() else []
    if not found:
        raise SourceError(f"No file fits the pattern {source}.", path=source)
    return root, found


def note_left_out(account: Account, names: Sequence[str], reason: str) -> None:
    """Add files to the account, those of one ending together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(PurePath(name).suffixes[-2:]), []).append(name)
    for ending, group in groups.items():
        shown = ", ".join(group[:_NUM_NAMED]) + (", …" if len(group) > _NUM_NAMED else "")
        name = group[0] if len(group) == 1 else f"*{ending}"
        detail = reason if len(group) == 1 else f"{reason} ({shown})"
        account.add("left out", name, count=len(group), unit="file", detail=detail)


def check_utf8(path: str) -> None:
    """Raise SourceError for a path that is no UTF-8, which neither Arrow opens nor a manifest holds."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"The name {os.fsencode(path)!r} is no UTF-8 text: rename it.") from error


def has_ending(name: str, kind: str) -> bool:
    """Whether files of that name are of the kind; shards of TFRecord are often called train.tfrecord-00000-of-00008."""
    bare = PurePath(name).name.lower()
    if kind == "tfrecord":
        return is_tfrecord(bare)
    return bare.endswith(ENDINGS[kind]) and not (kind == "idx" and ".tfrecord" in bare)


def is_hidden(name: str) -> bool:
    """Whether files of that name carry no rows, or are those that their owner does not want to be seen."""
    return _is_note(name) or any(part.startswith((".", "_")) for part in PurePath(name).parts)


def _is_note(name: str) -> bool:
    return any(map(_NOTES.fullmatch, PurePath(name).parts))


def _choose_kind(choice: _Choice, source: str, kind: str) -> None:
    choice.taken = [name for name in choice.taken if not _is_note(name)]
    choice.keep(lambda name: not is_hidden(name), "its name begins with . or _; rename it to take it")
    if not _is_pattern(source) or any(has_ending(name, kind) for name in choice.taken):
        choice.keep(lambda name: has_ending(name, kind), f"not of kind {kind}; --kind chooses another")


def _choose_split(choice: _Choice, source: str, split: str | None) -> None:
    found = dict.fromkeys(one for one in map(split_of, choice.taken) if one is not None)
    names = ", ".join(map(repr, found))
    if split is None and len(found) > 1:
        examples = ", ".join(next(name for name in choice.taken if split_of(name) == one) for one in found)
        raise SourceError(
            f"{source} has the splits {names} by the names of its files ({examples}); none was chosen. Choose one with "
            f"split= (--split {next(iter(found))}), or join them with --split {ALL_SPLITS}.",
            path=source,
        )
    if split is None or split == ALL_SPLITS:
        return
    if split not in found:
        has = f"it has {names}" if found else "their names say none"
        raise SourceError(f"{source} has no files of split {split!r}; {has}. Leave split= (--split) out.", path=source)
    choice.keep(lambda name: split_of(name) == split, f"not of split {split}; --split chooses another")


def _note_missing_shards(account: Account, names: Sequence[str]) -> None:
    groups: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if (found := _SHARD.fullmatch(name)) is not None:
            groups.setdefault((found["start"], found["total"], found["end"]), set()).add(int(found["number"]))
    for (start, total, end), numbers in groups.items():
        first = 1 if 0 not in numbers and int(total) in numbers else 0
        missing = [number for number in range(first, first + int(total)) if number not in numbers]
        if missing:
            account.add(
                "left out",
                f"{start}-{missing[0]:0{len(total)}}-of-{total}{end}",
                count=len(missing),
                unit="file",
                detail=f"by the names of the others there are {int(total)}, and {len(missing)} not here: give them all",
            )


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device; a link that leads nowhere is a file that cannot be opened."""
    return path.exists() and not path.is_file()


def _parts(name: str) -> tuple[str, ...]:
    return PurePath(name).parts


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not Path(source).exists()
