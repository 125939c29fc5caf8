"""`decode`: encoded images of a bytes column as arrays of one size, decoded by TensorFlow in threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from heliostat.data.columns import Column
from heliostat.data.dataset import Dataset
from heliostat.data.errors import SelectionError, TransformError
from heliostat.data.order import RowIds, checked_integer
from heliostat.data.ragged import Ragged
from heliostat.data.reader import aligned_empty
from heliostat.data.transform import ChangedDataset, RowChange
from heliostat.data.view import Values, chosen_columns

_JPEG_MAGIC = b"\xff\xd8\xff"
_CHANNELS = (1, 3, 4)
_MAX_THREADS = 16


def decoded(
    dataset: Dataset, column: str, size: tuple[int, int] | None, *, channels: int, output: str | None
) -> Dataset:
    """See `Dataset.decode`."""
    source = chosen_columns(dataset, [column])[column]
    if source.kind != "bytes":
        raise SelectionError(
            f"{dataset.name}.decode: column {column!r} is of kind {source.kind!r}; encoded images are a column of kind "
            "'bytes'.",
            path=dataset.name,
            column=column,
        )
    if channels not in _CHANNELS:
        raise SelectionError(f"decode: channels is {channels!r}; it must be 1 (grey), 3 (RGB) or 4 (RGBA).")
    if size is None:
        size = _first_size(dataset, column, channels)
        resizes = False
    else:
        size, resizes = _checked_size(size), True
    change = DecodeChange(column, size, channels, output or column, dataset.name, resizes=resizes)
    return ChangedDataset(dataset, change, f"decode({column}, {size[0]}×{size[1]})")


class DecodeChange(RowChange):
    """Images uint8 [height, width, channels] of a column of encoded ones."""

    def __init__(
        self, column: str, size: tuple[int, int], channels: int, output: str, dataset_name: str, *, resizes: bool
    ) -> None:
        self.inputs = (column,)
        self.outputs = {output: Column(name=output, dtype=np.dtype(np.uint8), shape=(*size, channels))}
        self._size, self._channels, self._resizes = size, channels, resizes
        self._output, self._dataset_name = output, dataset_name

    @property
    def content(self) -> Any:  # noqa: D102
        return [list(self._size), self._channels, self._resizes]

    def apply(  # noqa: D102
        self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int
    ) -> Mapping[str, Values]:
        encoded = rows[self.inputs[0]]
        if not isinstance(encoded, Ragged):
            raise TypeError(f"column {self.inputs[0]!r} holds no bytes")
        images = aligned_empty((ids.size, *self._size, self._channels), np.uint8)

        def decode(place: int) -> None:
            images[place] = self._image(encoded.row(place), int(ids[place]))

        if ids.size == 1:
            decode(0)
        else:
            with ThreadPoolExecutor(min(ids.size, _num_threads()), thread_name_prefix="heliostat-decode") as threads:
                # The first error in row order is raised, whatever thread met one first.
                list(threads.map(decode, range(ids.size)))
        return {self._output: images}

    def size_of(self, data: bytes, row_id: int) -> tuple[int, int]:
        """Height and width of one encoded image; raises TransformError."""
        height, width, _ = self._decoded(data, row_id).shape
        return height, width

    def _decoded(self, data: bytes, row_id: int) -> npt.NDArray[np.uint8]:
        try:
            return decode_image(data, self._channels)
        except ValueError as error:
            raise TransformError(
                f"Row {row_id} of {self._dataset_name} holds no image that can be decoded in column "
                f"{self.inputs[0]!r} ({len(data):,} bytes): {error}. It is damaged, or no JPEG, PNG, BMP or GIF: "
                "write the dataset without it, or leave it out with filter or select.",
                column=self.inputs[0],
            ) from error

    def _image(self, data: bytes, row_id: int) -> npt.NDArray[np.uint8]:
        image = self._decoded(data, row_id)
        if image.shape[:2] == self._size:
            return image
        if not self._resizes:
            raise TransformError(
                f"Row {row_id} of {self._dataset_name} holds an image of {image.shape[0]}×{image.shape[1]} pixels in "
                f"column {self.inputs[0]!r}; that of row 0 has {self._size[0]}×{self._size[1]}. Give decode a "
                "size=(height, width) to resize them.",
                column=self.inputs[0],
            )
        return _resized(image, self._size)


def decode_image(data: bytes, channels: int) -> npt.NDArray[np.uint8]:
    """An encoded image as uint8 [height, width, channels]; raises ValueError."""
    import tensorflow as tf

    try:
        with tf.device("CPU:0"):
            if data.startswith(_JPEG_MAGIC):
                if channels == 4:
                    raise ValueError("a JPEG has no fourth channel")
                # The exact transform, as other programs use it; TensorFlow's default is a faster one.
                image = tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")
            else:
                image = tf.io.decode_image(data, channels=channels, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(str(error.message).split("\n")[0]) from error
    return np.asarray(image.numpy(), np.uint8)


def _resized(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    import tensorflow as tf

    with tf.device("CPU:0"):
        scaled = tf.image.resize(image, size, method="bilinear", antialias=True)
        return np.asarray(tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8).numpy())


def _first_size(dataset: Dataset, column: str, channels: int) -> tuple[int, int]:
    with dataset.reader([column]) as reader:
        encoded: Any = reader.gather(np.zeros(1, np.int64))[column]
    probe = DecodeChange(column, (1, 1), channels, column, dataset.name, resizes=True)
    return probe.size_of(encoded.row(0), 0)


def _num_threads() -> int:
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise SelectionError(f"decode: size is {size!r}; it must be (height, width), or None.")
    height, width = (checked_integer("size", length, 1, 1 << 20) for length in size)
    return height, width
