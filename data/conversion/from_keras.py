"""The data sets that Keras downloads, by name; Keras is imported when one is opened."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..format.columns import Column
from .batch_source import ArraySource
from .from_numpy import chosen
from .sources import Source

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

    Values and dtypes are those of `load_data()`; token lists (imdb, reuters) become a list column, int32. Without
    `split` the account says that the test rows are left out. Keras downloads what is not in its cache. Raises
    SourceError.
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
    x, y = test if split == "test" else train
    full_name, class_names = f"{PREFIX}{name}/{split or 'train'}", _class_names(name, module)
    source = labelled_source(x, y, name=full_name, features=features, class_names=class_names)
    if split is None:
        source.account.add("left out", "test", count=len(test[1]), unit="row", detail="choose it with split= (--split)")
    return source


def labelled_source(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    name: str,
    features: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Arrays as Keras gives them as the columns "x" and "y".

    Args:
        x: numbers [rows, *shape], or an object array of lists of token ids.
        y: numbers [rows, *shape].
        name: of the source, for messages and for the metadata.
        features: the columns to take; None: both.
        class_names: of the values of `y`, for the metadata.

    Raises BadColumnError for an unknown column, and for arrays of different length.
    """
    arrays = {key: {"x": x, "y": y}[key] for key in chosen(name, ["x", "y"], features)}
    tokens = Column(name="x", dtype=np.dtype(np.int32), kind="list")
    columns = [tokens] if "x" in arrays and x.dtype == object else []
    source = ArraySource("keras", arrays, name=name, columns=columns)
    source.metadata = {"class_names": {"y": list(class_names)}} if class_names else {}
    return source


def _class_names(name: str, module: ModuleType) -> Sequence[str] | None:
    if name in _CLASS_NAMES:
        return _CLASS_NAMES[name].split(",")
    return list(module.get_label_names()) if hasattr(module, "get_label_names") else None
