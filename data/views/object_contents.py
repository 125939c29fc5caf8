"""What arrays, frames, tensors and objects of Keras hold, as values that are the same in every process."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash


def contents_of(value: Any) -> object | None:
    """Plain values instead of arrays, frames, tensors and Keras objects; None for any other object.

    Raises NotImplementedError, AttributeError, ValueError, TypeError for those that cannot be told from their values.
    """
    if isinstance(value, np.ma.MaskedArray):
        return ["masked", np.ma.getmaskarray(value), value.filled(), value.fill_value]
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return [str(array.dtype), array.shape, array.tolist()]
        return [str(array.dtype), array.shape, xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes())]
    roots = [one.__module__.partition(".")[0] for one in type(value).__mro__]
    if roots[0] == "pandas":
        return _pandas_contents(value)
    if "keras" in roots:
        return _keras_contents(value)
    return _tensorflow_contents(value) if roots[0] == "tensorflow" else None


def _pandas_contents(value: Any) -> object | None:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = [_pandas_contents(value.iloc[:, number]) for number in range(value.shape[1])]
        return [list(value.columns), list(value.columns.names), value.index, columns]
    if isinstance(value, pd.MultiIndex):
        return [_pandas_contents(value.get_level_values(number)) for number in range(value.nlevels)]
    if isinstance(value, pd.Series | pd.Index):
        index = value.index if isinstance(value, pd.Series) else None
        values = value.to_numpy() if isinstance(value.dtype, np.dtype) else value.astype(object).tolist()
        categories = value.dtype.categories if isinstance(value.dtype, pd.CategoricalDtype) else None
        return [value.name, str(value.dtype), getattr(value.dtype, "ordered", None), categories, index, values]
    return None


def _tensorflow_contents(value: Any) -> object:
    import tensorflow as tf

    if isinstance(value, tf.RaggedTensor):
        return [value.flat_values, list(value.nested_row_splits)]
    if isinstance(value, tf.DType | tf.TensorShape | tf.TypeSpec):
        return repr(value)
    if hasattr(value, "python_function"):  # tf.function
        return [value.python_function, value.input_signature]
    return value.numpy()  # of a tensor or variable that has values


def _keras_contents(value: Any) -> object:
    """Settings and weights. What gets its weights later is not known yet."""
    import keras

    if isinstance(value, list | tuple):  # as Keras keeps them in layers
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, keras.Variable):
        return [str(value.dtype), np.asarray(value)]
    if not isinstance(value, keras.layers.Layer):
        return [value.get_config(), vars(value)]
    has_vocabulary = hasattr(value, "get_vocabulary")
    if not value.built and not has_vocabulary and type(value).build is not keras.layers.Layer.build:
        raise ValueError("it has no weights yet")
    config = value.get_config()
    names = {name: f"layer {number}" for number, name in enumerate(dict.fromkeys(_layer_names(config)))}
    known: list[object] = [_renamed(config, names), [np.asarray(one) for one in value.variables]]
    known.append(list(getattr(value, "layers", ())))
    if has_vocabulary:
        known.append(value.get_vocabulary())
    # Settings name functions, and of a layer of the user's own they need not be all.
    plain = vars(keras.layers.Layer()).keys()
    own = {name: one for name, one in vars(value).items() if name not in plain and not name.startswith("_self_")}
    is_own = not is_installed(type(value).__module__)
    known.append({name: one for name, one in own.items() if is_own or isinstance(one, types.FunctionType)})
    return known


def _layer_names(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            yield config["name"]
        for item in config.values():
            yield from _layer_names(item)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from _layer_names(item)


def _renamed(config: object, names: dict[str, str]) -> object:
    """Settings without the names of layers, which count how many were made before."""
    if isinstance(config, dict):
        return {key: _renamed(item, names) for key, item in config.items()}
    if isinstance(config, list | tuple):
        return [_renamed(item, names) for item in config]
    return names.get(config, config) if isinstance(config, str) else config


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module is of the standard library or of an installed package, rather than the user's own."""
    root = module.partition(".")[0]
    if root == "__main__":
        return False
    if root in sys.stdlib_module_names or root == __name__.partition(".")[0]:
        return True
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin]
    folders = {pathlib.Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return any(
        {"site-packages", "dist-packages"} & set(path.parts) or folders & set(path.parents)
        for path in map(pathlib.Path, filter(None, places))
    )
