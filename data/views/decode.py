"""`decode`: encoded images of a bytes column as arrays of one size, decoded by TensorFlow in threads.

Opening the view starts no TensorFlow: the size comes from the head of the first image. Decoding takes as many threads
as TensorFlow has been given in the process, which in a worker is the worker's share of the machine: the rows of a batch
are divided among them, and each part is one call of a graph, an eighth of the time of a call per image if they are
small. A part in which something cannot be decoded is done again image by image, which names the row.

Pixels must be the same everywhere, or a resumed run would train on others: so JPEGs are decoded with the exact
transform, sizes are reached by one rounding rule, and bitmaps that TensorFlow takes for something else are rewritten or
refused (`image_header`). Not done: Pillow, whose pixels depend on the JPEG library that it was built with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..dataset import Dataset
from ..errors import SelectionError, TransformError
from ..format.columns import Column
from ..format.memory import aligned_empty
from ..format.ragged import Ragged, Values
from ..order.order import RowIds, checked_integer
from .image_header import JPEG_MAGIC, image_size, with_true_colours
from .transform import Transform, TransformedDataset
from .view import chosen_columns, rows_at

if TYPE_CHECKING:
    import tensorflow as tf

_CHANNELS = (1, 3, 4)
_MAX_THREADS = 16
_TRACING = threading.Lock()


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
        size = _first_size(dataset, column)
        resizes = False
    else:
        size, resizes = _checked_size(size), True
    change = DecodeTransform(column, size, channels, output or column, dataset.name, resizes=resizes)
    return TransformedDataset(dataset, change, f"decode({column}, {size[0]}×{size[1]})")


class DecodeTransform(Transform):
    """Images uint8 [height, width, channels] of a column of encoded ones."""

    def __init__(
        self, column: str, size: tuple[int, int], channels: int, output: str, dataset_name: str, *, resizes: bool
    ) -> None:
        self.inputs = (column,)
        self.outputs = {output: Column(name=output, dtype=np.dtype(np.uint8), shape=(*size, channels))}
        self._size, self._channels, self._resizes = size, channels, resizes
        self._output, self._dataset_name = output, dataset_name
        self._graphs: dict[bool, Callable[[tf.Tensor], tf.Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graphs": {}}

    @property
    def content(self) -> object:  # noqa: D102
        return [list(self._size), self._channels, self._resizes]

    def apply(  # noqa: D102
        self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int
    ) -> Mapping[str, Values]:
        encoded = rows[self.inputs[0]]
        if not isinstance(encoded, Ragged):
            raise TypeError(f"column {self.inputs[0]!r} holds no bytes")
        images = aligned_empty((ids.size, *self._size, self._channels), np.uint8)
        data = encoded.to_list()

        def decode(places: range) -> None:
            images[places.start : places.stop] = self._images(
                data[places.start : places.stop], ids[places.start : places.stop]
            )

        num_parts = min(ids.size, _num_threads())
        cuts = [ids.size * part // num_parts for part in range(num_parts + 1)]
        parts = [range(low, high) for low, high in pairwise(cuts)]
        if num_parts == 1:
            decode(parts[0])
        else:
            with ThreadPoolExecutor(num_parts, thread_name_prefix="heliostat-decode") as threads:
                # The first error in row order is raised, whatever thread met one first.
                list(threads.map(decode, parts))
        return {self._output: images}

    def _images(self, data: list[bytes], ids: RowIds) -> npt.NDArray[np.uint8] | list[npt.NDArray[np.uint8]]:
        """The images of some rows, decoded in one graph."""
        import tensorflow as tf

        # A graph decodes one kind, since that of JPEGs is told which transform to use.
        are_jpeg = {one.startswith(JPEG_MAGIC) for one in data}
        if len(are_jpeg) == 1:
            try:
                with tf.device("CPU:0"):
                    return self._graph_for(is_jpeg=are_jpeg.pop())(
                        tf.constant(list(map(with_true_colours, data)), tf.string)
                    ).numpy()
            except (tf.errors.OpError, ValueError):
                pass  # one by one it shows which
        return [self._image(one, row_id) for one, row_id in zip(data, ids.tolist(), strict=True)]

    def _graph_for(self, *, is_jpeg: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        with _TRACING:
            if is_jpeg not in self._graphs:
                resize = _resizing(self._size, self._channels) if self._resizes else None
                self._graphs[is_jpeg] = _decoding(self._size, self._channels, resize, is_jpeg=is_jpeg)
            return self._graphs[is_jpeg]

    def _image(self, data: bytes, row_id: int) -> npt.NDArray[np.uint8]:
        """One image by itself; raises TransformError with its row."""
        try:
            image = decode_image(data, self._channels)
        except ValueError as error:
            raise _undecodable(row_id, self._dataset_name, self.inputs[0], data, error) from error
        if image.shape[:2] == self._size:
            return image
        if not self._resizes:
            raise TransformError(
                f"Row {row_id} of {self._dataset_name} holds an image of {image.shape[0]}×{image.shape[1]} pixels in "
                f"column {self.inputs[0]!r}; that of row 0 has {self._size[0]}×{self._size[1]}. Give decode a "
                "size=(height, width) to resize them.",
                column=self.inputs[0],
            )
        resize = _resizing(self._size, self._channels)
        return np.asarray(resize(image).numpy())


def decode_image(data: bytes, channels: int) -> npt.NDArray[np.uint8]:
    """An encoded image as uint8 [height, width, channels]; raises ValueError."""
    import tensorflow as tf

    data = with_true_colours(data)
    try:
        with tf.device("CPU:0"):
            image = _decoded(data, channels, is_jpeg=data.startswith(JPEG_MAGIC))
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(str(error.message).split("\n")[0]) from error
    return np.asarray(image.numpy(), np.uint8)


def _decoded(data: bytes | tf.Tensor, channels: int, *, is_jpeg: bool) -> tf.Tensor:
    import tensorflow as tf

    if not is_jpeg:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)
    if channels == 4:
        raise ValueError("a JPEG has no fourth channel")
    # The exact transform, as other programs use it; TensorFlow's default is a faster one.
    return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")


def _decoding(
    size: tuple[int, int], channels: int, resize: Callable[[tf.Tensor], tf.Tensor] | None, *, is_jpeg: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from encoded images [rows] to images of one size; one of another size is resized, or an error."""
    import tensorflow as tf

    def one(data: tf.Tensor) -> tf.Tensor:
        image = _decoded(data, channels, is_jpeg=is_jpeg)
        if resize is not None:
            image = tf.ensure_shape(image, [None, None, channels])
            image = tf.cond(tf.reduce_all(tf.shape(image)[:2] == size), lambda: image, lambda: resize(image))
        return tf.ensure_shape(image, [*size, channels])

    def batch(data: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(one, data, fn_output_signature=tf.TensorSpec([*size, channels], tf.uint8))

    return tf.function(batch, input_signature=[tf.TensorSpec([None], tf.string)])


@lru_cache(maxsize=16)
def _resizing(size: tuple[int, int], channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from an image tensor of any size to one of `size`, traced once."""
    import tensorflow as tf

    def resize(image: tf.Tensor) -> tf.Tensor:
        scaled = tf.image.resize(image, size, method="bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8)

    return tf.function(resize, input_signature=[tf.TensorSpec([None, None, channels], tf.uint8)])


def _undecodable(row_id: int, dataset_name: str, column: str, data: bytes, error: Exception) -> TransformError:
    return TransformError(
        f"Row {row_id} of {dataset_name} holds no image that can be decoded in column {column!r} ({len(data):,} "
        f"bytes): {error}. It is damaged, or no JPEG, PNG, BMP or GIF: write the dataset without it, or leave it out "
        "with filter or select.",
        column=column,
    )


def _first_size(dataset: Dataset, column: str) -> tuple[int, int]:
    data = rows_at(dataset, np.zeros(1, np.int64), [column])[column].row(0)
    try:
        return image_size(data)
    except ValueError as error:
        raise _undecodable(0, dataset.name, column, data, error) from error


def _num_threads() -> int:
    """As many as TensorFlow was given here (a worker's share of the cores), else as many as there are cores."""
    import tensorflow as tf

    given = int(tf.config.threading.get_intra_op_parallelism_threads())
    return min(_MAX_THREADS, given or len(os.sched_getaffinity(0)))


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise SelectionError(f"decode: size is {size!r}; it must be (height, width), or None.")
    height, width = (checked_integer("size", length, 1, 1 << 20) for length in size)
    return height, width
