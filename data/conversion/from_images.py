"""A folder of encoded images, one sub-folder per class, as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..format.columns import Column
from .sources import Piece, Source, file_identity

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8")
_PIECE_ROWS = 1024


class ImageSource(Source):
    """Images as their encoded bytes: "image", and the number of their class: "y", int64; classes and files by name.

    A class is a sub-folder of the root with all images below it; hidden files and folders and files with other endings
    are left out. Rows come class by class. The class names are in the metadata. Raises SourceError.
    """

    kind = "images"
    columns = (
        Column(name="image", dtype=np.dtype(np.uint8), kind="bytes"),
        Column(name="y", dtype=np.dtype(np.int64)),
    )

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        classes = sorted(entry.name for entry in os.scandir(root) if _is_class(entry))
        self._files = [(path, number) for number, name in enumerate(classes) for path in _images(root / name)]
        if not self._files:
            raise SourceError(
                f"Folder {root} has no images ({', '.join(ENDINGS)}) in sub-folders. The images of every class lie in "
                "a folder named after it.",
                path=root,
            )
        self.num_rows = len(self._files)
        self.num_bytes = sum(path.stat().st_size for path, _ in self._files)
        self.metadata = {"class_names": {"y": classes}}

    def identity(self) -> Mapping[str, Any]:  # noqa: D102
        return {**file_identity(self.kind, [path for path, _ in self._files]), "name": Path(self.name).name}

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:  # noqa: D102
        num_bytes = sum(path.stat().st_size for path, _ in self._files[:first_row])
        images: list[bytes] = []
        labels: list[int] = []
        waiting = 0
        for path, label in self._files[first_row:]:
            images.append(_encoded(path))
            labels.append(label)
            waiting += len(images[-1])
            if waiting >= self.piece_bytes or len(images) == _PIECE_ROWS:
                num_bytes += waiting
                yield _piece(images, labels, num_bytes)
                images, labels, waiting = [], [], 0
        if images:
            yield _piece(images, labels, num_bytes + waiting)


def has_images(root: Path) -> bool:
    """Whether a folder has a sub-folder with an image right in it."""
    return any(
        name.lower().endswith(ENDINGS)
        for entry in os.scandir(root)
        if _is_class(entry)
        for name in os.listdir(entry.path)
    )


def _piece(images: Sequence[bytes], labels: Sequence[int], num_bytes: int) -> Piece:
    return Piece({"image": images, "y": np.array(labels, np.int64)}, len(images), num_bytes)


def _is_class(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield Path(place, name)


def _encoded(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", path=path) from error
    if not data.startswith(_MARKS):
        raise SourceError(
            f"{path} is not an image: it starts with {data[:8].hex(' ') or 'nothing'}. JPEG, PNG, BMP and GIF can be "
            "decoded later. Remove the file, or save it again in one of these formats.",
            path=path,
        )
    return data
