"""A folder of encoded pictures, one sub-folder per class, as a source.

Every picture is decoded once when it is converted, in threads, so that one that cannot be decoded is found here and by
its name, not by its row in a step of the training. What lies in the folder and is no picture of a class is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from ..errors import SourceError
from ..format.account import Change
from ..format.arrow import arrow_schema
from ..format.columns import Column
from ..format.not_found import PICTURES as ENDINGS
from ..format.not_found import is_class
from .files import note_left_out
from .pictures import orientation, passed_over, upright, why_not
from .sources import Source, SourceRows, file_identity

BadPictures = Literal["refuse", "drop", "keep"]
"""What becomes of pictures that cannot be decoded: an error names them; they are left out, and in the account; they are
kept as they are, and then no picture is decoded, which takes a tenth of the time."""

_AT_ONCE = 1024
_MAX_THREADS = 16
_NUM_NAMED = 20
_TURNED = "EXIF orientation, which decode() does not apply; upright=True (--upright) does"
_LEADS_BACK = "a link that leads back to a folder that it lies in"
_UPRIGHT = "turned as its EXIF orientation says, stored as PNG"


class ImageSource(Source):
    """Pictures as their encoded bytes: "image", and the number of their class: "y", int64; classes and files by name.

    A class is a sub-folder of the root with all pictures below it. Rows come class by class. The class names are in the
    metadata.

    Args:
        root: the folder.
        bad: what becomes of pictures that cannot be decoded.
        upright: whether pictures with an EXIF orientation are turned by it, and stored as PNG.

    Raises SourceError for a folder without pictures, and for pictures that cannot be decoded, all of which it names.
    """

    kind = "images"
    columns: tuple[Column, ...] = (
        Column(name="image", dtype=np.dtype(np.uint8), kind="bytes"),
        Column(name="y", dtype=np.dtype(np.int64)),
    )

    def __init__(self, root: Path, *, bad: BadPictures = "refuse", upright: bool = False) -> None:
        if bad not in get_args(BadPictures):
            raise SourceError(f"bad_pictures= is {bad!r}; it must be one of {', '.join(get_args(BadPictures))}.")
        self.name, self._bad, self._upright = str(root), bad, upright
        left_out: dict[str, list[str]] = {}

        def leave_out(path: str, reason: str) -> None:
            left_out.setdefault(reason, []).append(os.path.relpath(path, root))

        here = os.path.realpath(root)
        classes = sorted(
            entry.name for entry in os.scandir(root) if is_class(entry) and os.path.realpath(entry.path) != here
        )
        self._files: list[_File] = []
        for number, name in enumerate(classes):
            paths = sorted(_walk(str(root / name), (here,), leave_out))
            self._files += [_File(path, number, path.stat().st_size) for path in paths]
            if not paths:
                self.account.add("noticed", name, unit="class", detail="its folder has no pictures")
        if not self._files:
            raise SourceError(
                f"Folder {root} has no images ({', '.join(ENDINGS)}) in sub-folders. The images of every class lie in "
                "a folder named after it.",
                path=root,
            )
        for entry in os.scandir(root):
            if entry.name not in classes:
                leave_out(entry.path, _LEADS_BACK if is_class(entry) else "it lies beside the folders of classes")
        for reason, names in sorted(left_out.items()):
            note_left_out(self.account, sorted(names), reason)
        self.num_rows = None if bad == "drop" else len(self._files)
        self.num_bytes = sum(file.num_bytes for file in self._files)
        self.metadata = {"class_names": {"y": classes}}

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return {**file_identity(self.kind, [file.path for file in self._files]), "name": Path(self.name).name}

    def record_batches(self, first_row: int = 0) -> Iterator[SourceRows]:  # noqa: D102
        schema = arrow_schema(self.columns)
        # Which pictures were left out before is not known: they are looked at again.
        start = 0 if self._bad == "drop" else first_row
        row, num_bytes = start, sum(file.num_bytes for file in self._files[:start])
        refused: list[str] = []
        with ThreadPoolExecutor(min(_MAX_THREADS, len(os.sched_getaffinity(0)))) as threads:
            for group in self._groups(self._files[start:]):
                num_bytes += sum(file.num_bytes for file in group)
                pictures = list(threads.map(self._picture, group))
                bad = [f"{one.file.path}: {one.why_not}" for one in pictures if one.why_not]
                refused += bad if self._bad == "refuse" else []
                if refused:  # the others are looked at, so that all are named
                    continue
                self._note(pictures, row, first_row)
                good = [one for one in pictures if not one.why_not]
                kept, row = good[max(0, first_row - row) :], row + len(good)
                if kept:
                    images = pa.array([one.data for one in kept], pa.large_binary())
                    labels = pa.array([one.file.label for one in kept], pa.int64())
                    yield SourceRows(pa.RecordBatch.from_arrays([images, labels], schema=schema), num_bytes)
        if refused:
            raise _cannot_be_decoded(refused)
        if not row:
            raise SourceError(f"{self.name}: none of its {len(self._files):,} pictures can be decoded.", path=self.name)

    def _groups(self, files: Iterable[_File]) -> Iterator[list[_File]]:
        """Some files at a time, of about `piece_bytes` bytes."""
        group: list[_File] = []
        num_bytes = 0
        for file in files:
            group.append(file)
            num_bytes += file.num_bytes
            if num_bytes >= self.piece_bytes or len(group) == _AT_ONCE:
                yield group
                group, num_bytes = [], 0
        if group:
            yield group

    def _picture(self, file: _File) -> _Picture:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise SourceError(f"{file.path} cannot be read: {error.strerror}.", path=file.path) from error
        wrong = None if self._bad == "keep" else why_not(data)
        if wrong is not None:
            return _Picture(file, data, wrong, ())
        notes: list[tuple[Change, str]] = [("noticed", one) for one in passed_over(data)]
        if orientation(data) != 1 and self._upright:
            try:
                data = upright(data)
                notes.append(("changed", _UPRIGHT))
            except ValueError:  # only of one that is kept as it is
                pass
        elif orientation(data) != 1:
            notes.append(("noticed", _TURNED))
        return _Picture(file, data, None, notes)

    def _note(self, pictures: list[_Picture], row: int, first_row: int) -> None:
        """Note what was left out and turned among pictures of which the first that is kept is this row.

        What was before `first_row` has been noted by the conversion that was interrupted.
        """
        for one in pictures:
            if row >= first_row and one.why_not:
                name = str(one.file.path.relative_to(self.name))
                self.account.add_rows("left out", name, [row], unit="picture", detail=one.why_not)
            for change, why in one.notes if row >= first_row else ():
                self.account.add_rows(change, "image", [row], unit="picture", detail=why)
            row += not one.why_not


def refuse_pictures_without_classes(root: Path, names: Sequence[str]) -> None:
    """Raise SourceError if pictures are among the names of what lies right in a folder."""
    if any("/" not in name and name.lower().endswith(ENDINGS) for name in names):
        raise SourceError(
            f"Folder {root} has pictures that lie in no folder of a class. Put those of every class into a folder of "
            "its name, and give the folder above. Of pictures without classes heliostat.data.from_generator makes a "
            "dataset.",
            path=root,
        )


class _File(NamedTuple):
    path: Path
    label: int
    num_bytes: int


class _Picture(NamedTuple):
    file: _File
    data: bytes
    why_not: str | None
    notes: Sequence[tuple[Change, str]]


def _walk(folder: str, above: tuple[str, ...], leave_out: Callable[[str, str], None]) -> Iterator[Path]:
    """The pictures in a folder; `above` are the folders that it lies in, to which a link may lead back."""
    here = os.path.realpath(folder)
    if here in above:
        leave_out(folder, _LEADS_BACK)
        return
    for entry in os.scandir(folder):
        reason = _why_left_out(entry)
        if reason is not None:
            leave_out(entry.path, reason)
        elif entry.is_dir():
            yield from _walk(entry.path, (*above, here), leave_out)
        else:
            yield Path(entry.path)


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return "hidden"
    if os.path.isdir(entry.path):
        return None
    if not os.path.exists(entry.path):
        return "a link to what is not there"
    if not entry.is_file():
        return "a pipe, socket or device"
    is_picture = entry.name.lower().endswith(ENDINGS)
    return None if is_picture else f"no picture by its ending ({', '.join(ENDINGS)})"


def _cannot_be_decoded(refused: list[str]) -> SourceError:
    more = len(refused) - _NUM_NAMED
    lines = "\n".join([*refused[:_NUM_NAMED], *([f"and {more:,} more"] if more > 0 else [])])
    return SourceError(
        f"{len(refused):,} of the pictures cannot be decoded:\n{lines}\nRemove them, save them again as PNG, or give "
        'bad_pictures="drop" (--bad-pictures drop), which leaves them out and tells it.',
        path=refused[0].partition(": ")[0],
    )
