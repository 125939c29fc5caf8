"""The data sets that Keras downloads, by name; Keras is imported when one is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..format.columns import Column
from ..format.ragged import Ragged
from .from_numpy import ArraySource, chosen
from .sources import Piece, Source

NAMES = (
    *("mnist", "fashion_mnist", "cifar10", "cifar100", "imdb", "reuters"),
    *("california_housing", "boston_housing"),
)
PREFIX = "keras:"
_CLASS_NAMES = {
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
}


def keras_source(name: str, *, split: str | None = None, features: Sequence[str] | None = None) -> Source:
    """The columns "x" and "y" of a data set of `keras.datasets`, in memory; `split` is "train" (the default) or "test".

    Values and dtypes are those of `load_data()`; token lists (imdb, reuters) become a list column, int32. Keras
    downloads what is not in its cache. Raises SourceError.
    """
    name = name.removeprefix(PREFIX)
    if name not in NAMES:
        raise SourceError(f"keras.datasets has no {name!r}; there are {', '.join(NAMES)}.")
    if split not in (None, "train", "test"):
        raise SourceError(f"{PREFIX}{name} has no split {split!r}; there are 'train' and 'test'.")
    module = import_module(f"keras.datasets.{name}")
    try:
        train, test = module.load_data()
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise SourceError(
            f"Keras cannot load {name}: {error}. Without internet, put the file into $KERAS_HOME/datasets "
            "(by default ~/.keras/datasets) on this machine.",
        ) from error
    class_names = _class_names(name, module)
    x, y = test if split == "test" else train
    return labelled_source(x, y, name=f"{PREFIX}{name}/{split or 'train'}", features=features, class_names=class_names)


def labelled_source(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    name: str,
    features: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Arrays as Keras gives them, `x` [rows, *shape] or an object array of lists, as the columns "x" and "y"."""
    metadata = {"class_names": {"y": list(class_names)}} if class_names else {}
    if x.dtype != object:
        return ArraySource("keras", {"x": x, "y": y}, name=name, features=features, metadata=metadata)
    source = _TokenSource(x, np.asarray(y), name, chosen(name, {"x": x, "y": y}, features))
    source.metadata = metadata
    return source


class _TokenSource(Source):
    """Lists of token ids and labels."""

    kind = "keras"

    def __init__(self, x: npt.NDArray[Any], y: npt.NDArray[Any], name: str, names: Sequence[str]) -> None:
        self._x, self._y, self.name, self._names = x, y, name, names
        known = {
            "x": Column(name="x", dtype=np.dtype(np.int32), kind="list"),
            "y": Column(name="y", dtype=y.dtype, shape=y.shape[1:]),
        }
        self.columns = tuple(known[key] for key in names)
        self.num_rows = len(x)

    def pieces(self, first_row: int = 0) -> Iterator[Piece]:
        row_bytes = 4 * sum(map(len, self._x)) / max(1, len(self._x))
        step = min(self.rows_per_piece(row_bytes), 4096)
        for low in range(first_row, len(self._x), step):
            tokens = self._x[low : low + step]
            rows = {"x": Ragged.from_rows(list(tokens), "list", np.int32), "y": self._y[low : low + step]}
            yield Piece({key: rows[key] for key in self._names}, len(tokens), 0)


def _class_names(name: str, module: Any) -> Sequence[str] | None:
    if name in _CLASS_NAMES:
        return _CLASS_NAMES[name].split(",")
    return list(module.get_label_names()) if hasattr(module, "get_label_names") else None
