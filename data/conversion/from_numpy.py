"""Files of numpy arrays (.npz, .npy) and IDX files as sources."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadColumnError, SourceError
from .idx import read_idx
from .sources import Piece, Source, file_identity, size_of

_READ_HEADER: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
RowReader = Callable[[int], npt.NDArray[Any]]
"""Gives the next so many rows of an array."""


class ArraySource(Source):
    """Arrays of equal length, in memory or mapped, as columns."""

    def __init__(
        self,
        kind: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        *,
        name: str,
        files: Sequence[Path] = (),
        features: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind, self.name, self._files, self.metadata = kind, name, tuple(files), dict(metadata or {})
        shapes = {key: (array.shape, array.dtype) for key, array in arrays.items()}
        self._arrays = {key: arrays[key] for key in chosen(name, shapes, features)}
        self.num_rows, self._row_bytes = check_arrays(name, {key: shapes[key] for key in self._arrays})
        self.num_bytes = self.num_rows * self._row_bytes

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        if self._files:
            return file_identity(self.kind, self._files)
        return {**super().identity(), "num_rows": self.num_rows}

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        step = self.rows_per_piece(self._row_bytes)
        num_rows = self.num_rows or 0
        for low in range(first_row, num_rows, step):
            high = min(low + step, num_rows)
            rows = {name: array[low:high] for name, array in self._arrays.items()}
            yield Piece(rows, high - low, high * self._row_bytes)


class NpzSource(Source):
    """The arrays of an .npz file, decompressed piece by piece; those in column-major order are read whole."""

    kind = "npz"

    def __init__(self, path: Path, *, features: Sequence[str] | None = None) -> None:
        self._path, self.name = path, str(path)
        size_of([path], ".npz")
        try:
            with zipfile.ZipFile(path) as archive:
                headers = {
                    name.removesuffix(".npy"): self._header(archive, name)
                    for name in archive.namelist()
                    if name.endswith(".npy")
                }
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path} cannot be read as .npz: {self._why(error)}", path=path) from error
        self._names = chosen(self.name, {name: (shape, dtype) for name, (shape, _, dtype) in headers.items()}, features)
        self._headers = {name: headers[name] for name in self._names}
        found = {name: (shape, dtype) for name, (shape, _, dtype) in self._headers.items()}
        self.num_rows, self._row_bytes = check_arrays(self.name, found)
        self.num_bytes = self.num_rows * self._row_bytes

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return file_identity(self.kind, [self._path])

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        step = self.rows_per_piece(self._row_bytes)
        num_rows = self.num_rows or 0
        with zipfile.ZipFile(self._path) as archive:
            readers = {name: self._guarded(name, self._reader, archive, name) for name in self._names}
            for name in self._names:
                for low in range(0, first_row, step):
                    self._guarded(name, readers[name], min(step, first_row - low))
            for low in range(first_row, num_rows, step):
                high = min(low + step, num_rows)
                rows = {name: self._guarded(name, readers[name], high - low) for name in self._names}
                yield Piece(rows, high - low, high * self._row_bytes)

    def _why(self, error: Exception) -> str:
        with open(self._path, "rb") as file:
            is_npy = file.read(6) == np.lib.format.MAGIC_PREFIX
        return "it is one array without a name (.npy)" if is_npy else str(error)

    def _header(self, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        with archive.open(name) as member:
            return read_header(member)

    def _reader(self, archive: zipfile.ZipFile, name: str) -> RowReader:
        shape, is_column_major, dtype = self._headers[name]
        if is_column_major:
            with archive.open(f"{name}.npy") as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
            places = iter_slices(array)
            return lambda count: places(count)
        opened = archive.open(f"{name}.npy")
        read_header(opened)
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

        def read(count: int) -> npt.NDArray[Any]:
            data = opened.read(count * row_bytes)
            if len(data) != count * row_bytes:
                raise EOFError(f"it ends {count * row_bytes - len(data)} bytes too early")
            return np.frombuffer(data, dtype).reshape(count, *shape[1:])

        return read

    def _guarded(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(
                f"Array {name!r} of {self.name} is damaged: {error}", path=self.name, column=name
            ) from error


def iter_slices(array: npt.NDArray[Any]) -> RowReader:
    """A reader of an array in memory."""
    place = 0

    def read(count: int) -> npt.NDArray[Any]:
        nonlocal place
        place += count
        return array[place - count : place]

    return read


def read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in column-major order, and dtype of the array that begins here in .npy format; raises ValueError.

    What follows is its values.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"it is of .npy version {version[0]}.{version[1]}, which only records with named fields have")
    return _READ_HEADER[version](file)


def npy_source(files: Sequence[Path], *, name: str, features: Sequence[str] | None = None) -> ArraySource:
    """Mapped .npy files as columns that are named like them (x.npy becomes "x")."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    size_of(files, ".npy")
    for path in files:
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, OverflowError) as error:
            if "Array can't be memory-mapped" in str(error):
                raise _objects(path.stem, str(path)) from error
            raise SourceError(f"{path} cannot be read as .npy: {error}", path=path) from error
        if not isinstance(arrays[path.stem], np.ndarray):
            raise SourceError(f"{path} cannot be read as .npy: it is an .npz file.", path=path)
    return ArraySource("npy", arrays, name=name, files=files, features=features)


def idx_source(files: Sequence[Path], *, name: str) -> ArraySource:
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
    return ArraySource("idx", dict(sorted(arrays.items())), name=name, files=files)


def chosen(name: str, known: Mapping[str, Any], features: Sequence[str] | None) -> list[str]:
    """The arrays that become columns, all for None; raises BadColumnError for unknown ones."""
    for wanted in features or ():
        if wanted not in known:
            raise BadColumnError(
                f"{name} has no array {wanted!r}; it has {', '.join(map(repr, known))}.", path=name, column=wanted
            )
    return list(known if features is None else features)


def check_arrays(name: str, arrays: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> tuple[int, int]:
    """The rows of all arrays and the bytes of one row; raises BadColumnError if they do not go together."""
    lengths = {}
    for key, (shape, dtype) in arrays.items():
        if dtype.hasobject:
            raise _objects(key, name)
        if not shape:
            raise BadColumnError(
                f"Array {key!r} of {name} is a single value; a column has one entry per row.", path=name, column=key
            )
        lengths[key] = shape[0]
    if not lengths:
        raise SourceError(f"{name} holds no arrays.", path=name)
    first, num_rows = next(iter(lengths.items()))
    for key, length in lengths.items():
        if length != num_rows:
            raise BadColumnError(
                f"Column {key!r} has {length} rows and column {first!r} has {num_rows}; all columns need the same "
                "number. Choose columns that go together with features= (--features).",
                path=name,
                column=key,
            )
    row_bytes = sum(int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize for shape, dtype in arrays.values())
    return num_rows, row_bytes


def _objects(key: str, name: str) -> BadColumnError:
    return BadColumnError(
        f"Array {key!r} of {name} holds Python objects; a dataset holds numbers, bools, text and bytes.",
        path=name,
        column=key,
    )
