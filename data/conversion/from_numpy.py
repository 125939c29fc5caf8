"""Files of numpy arrays (.npz, .npy) and IDX files as sources."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadColumnError, SourceError
from .batch_source import ArraySource
from .idx import read_idx
from .sources import file_identity, size_of

_DAMAGE = (OSError, ValueError, EOFError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError)
Arrays = Mapping[str, npt.NDArray[Any]]


class ArrayFiles(ArraySource):
    """Arrays of some files."""

    def __init__(self, kind: str, arrays: Arrays, files: Sequence[Path], *, name: str) -> None:
        self._files = tuple(files)
        super().__init__(kind, checked_arrays(name, arrays), name=name)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, self._files)


def npz_source(path: Path, *, features: Sequence[str] | None = None) -> ArrayFiles:
    """The arrays of an .npz file, read whole, those of `features` only; raises SourceError, BadColumnError."""
    size_of([path], ".npz")
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise SourceError(f"{path} cannot be read as .npz: {_why(path, error)}", path=path) from error
    with archive:
        names = archive.namelist()
        _check_once(path, names)
        known = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
        arrays = {key: _read(archive, key, path) for key in chosen(str(path), known, features)}
    source = ArrayFiles("npz", arrays, [path], name=str(path))
    for name in names:
        if not name.endswith(".npy"):
            source.account.add("left out", name, unit="file", detail="it is no array (.npy)")
    return source


def npy_source(files: Sequence[Path], *, name: str, features: Sequence[str] | None = None) -> ArrayFiles:
    """Mapped .npy files as columns that are named like them (x.npy becomes "x"); raises SourceError, BadColumnError."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    size_of(files, ".npy")
    for path in files:
        if path.stem in arrays:
            raise SourceError(
                f"{name} has several files {path.name}, which would become one column {path.stem!r}. Give one of them, "
                "or files of different names.",
                path=path,
            )
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except _DAMAGE as error:
            if "Array can't be memory-mapped" in str(error):
                raise _objects(path.stem, str(path)) from error
            raise SourceError(f"{path} cannot be read as .npy: {error}", path=path) from error
        if not isinstance(found, np.memmap):
            raise SourceError(f"{path} cannot be read as .npy: it is an .npz file.", path=path)
        _check_end(path.stem, path, path.stat().st_size - found.offset - found.nbytes)
        arrays[path.stem] = found
    return ArrayFiles("npy", {key: arrays[key] for key in chosen(name, [*arrays], features)}, files, name=name)


def idx_source(files: Sequence[Path], *, name: str) -> ArrayFiles:
    """IDX files as columns, read whole: labels (one dimension) as "y", int64, others as "x".

    Raises SourceError, also if two files would become the same column.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for path in files:
        array = read_idx(path)
        column = "y" if array.ndim == 1 else "x"
        if column in arrays:
            raise SourceError(
                f"{name} has several IDX files of {'labels' if column == 'y' else 'images'}; give one of them, or "
                "choose a split with split= (--split train).",
                path=name,
            )
        arrays[column] = array.astype(np.int64) if column == "y" and array.dtype.kind in "iu" else array
    return ArrayFiles("idx", dict(sorted(arrays.items())), files, name=name)


def chosen(name: str, known: Sequence[str], features: Sequence[str] | None) -> list[str]:
    """The arrays that become columns, all for None; raises BadColumnError for unknown ones."""
    for requested in features or ():
        if requested not in known:
            raise BadColumnError(
                f"{name} has no array {requested!r}; it has {', '.join(map(repr, known))}.", path=name, column=requested
            )
    return list(known if features is None else features)


def checked_arrays(name: str, arrays: Arrays) -> Arrays:
    """The arrays if they have rows of numbers, text or bytes; raises BadColumnError."""
    for key, array in arrays.items():
        if array.dtype.hasobject:
            raise _objects(key, name)
        if not array.ndim:
            raise BadColumnError(
                f"Array {key!r} of {name} is a single value; a column has one entry per row. Choose the others with "
                "features= (--feature NAME).",
                path=name,
                column=key,
            )
        if 0 in array.shape[1:]:
            raise BadColumnError(
                f"Array {key!r} of {name} has rows of shape {array.shape[1:]}, which hold no value.",
                path=name,
                column=key,
            )
    return arrays


def _read(archive: zipfile.ZipFile, key: str, path: Path) -> npt.NDArray[Any]:
    try:
        with archive.open(f"{key}.npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            rest = len(member.read())
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise _objects(key, str(path)) from error
        # RuntimeError: it is encrypted, or packed in a way that this Python does not know.
        what = "cannot be read" if isinstance(error, RuntimeError) else "is damaged"
        raise SourceError(f"Array {key!r} of {path} {what}: {error}", path=path, column=key) from error
    _check_end(key, path, rest)
    return array


def _check_end(key: str, path: Path, num_bytes: int) -> None:
    """Raise SourceError for what NumPy leaves out: whatever comes after an array, such as a second one."""
    if num_bytes:
        raise SourceError(
            f"Array {key!r} of {path} is not all that is there: {num_bytes} bytes follow it, maybe of another np.save "
            "to the same file. Save each array by itself, or all of them by np.savez.",
            path=path,
            column=key,
        )


def _check_once(path: Path, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SourceError(f"{path} has {count} arrays {name.removesuffix('.npy')!r}; write it anew.", path=path)


def _why(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        is_npy = file.read(6) == np.lib.format.MAGIC_PREFIX
    return "it is one array without a name (.npy)" if is_npy else str(error)


def _objects(key: str, name: str) -> BadColumnError:
    return BadColumnError(
        f"Array {key!r} of {name} holds Python objects; a dataset holds numbers, bools, text and bytes.",
        path=name,
        column=key,
    )
