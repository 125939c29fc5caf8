"""Loading what was trained, with the user's own classes found by the code of `build_model`: `load_trained`."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import keras
from heliostat.data import Dataset

from ..code_digests import is_filled, is_users, names_in
from ..columns import Columns, sample_rows
from ..engine.build_model import BuildModel, called
from ..engine.building import build_state
from ..engine.runtime import BUILD_LOCK
from ..errors import ModelError
from ..jobs import WEIGHTS_FILE

_MAX_ITEMS = 100  # of a list or dict that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a trained model comes from.

    Attributes:
        build_model: the user's function.
        data: what it was trained on.
        columns: which columns are inputs and targets.
    """

    build_model: BuildModel
    data: Dataset | None = None
    columns: Columns | None = None


def load_trained(path: Path, origin: Origin | None, custom_objects: dict[str, Any] | None) -> keras.Model:
    """Load a trained model.

    Args:
        path: a file that a run has written, see `worker.model_file`.
        origin: where the model comes from, if that is known.
        custom_objects: the user's classes and functions by name, beside those that `build_model` names.

    Raises:
        ModelError: the file does not tell enough, and the model cannot be built anew.
    """
    if path.name == WEIGHTS_FILE:
        return _built(path, origin, "it holds weights alone")
    named = {} if origin is None else named_objects(origin.build_model)
    objects = {name: each for name, each in named.items() if not _is_keras(name)} | (custom_objects or {})
    try:
        return keras.models.load_model(path, custom_objects=objects)
    except (TypeError, ValueError, NotImplementedError) as error:  # a class that is not known, or its from_config fails
        if not path.is_file():
            raise
        lines = str(error).strip().splitlines() or [""]
        try:
            return _built(path, origin, f"{type(error).__name__}: {lines[0]}")
        except ModelError as failed:
            raise failed from error


def _built(path: Path, origin: Origin | None, reason: str) -> keras.Model:
    """A model that `build_model` makes, with the weights of a file; optimizers that its step applies get no state."""
    if origin is None:
        raise ModelError(
            f"{str(path)!r} cannot be loaded by itself ({reason}), and the function that has made the model is not "
            "known here. Give the model's own classes as custom_objects={'name': class}, or take the result from the "
            "Trainer that has build_model; by hand: model = build_model(), then model.load_weights(path)."
        )
    with BUILD_LOCK:
        model, _ = called(origin.build_model)
        if origin.data is not None and origin.columns is not None:
            build_state(model, sample_rows(origin.data, origin.columns), origin.columns)
        model.built = True
    try:
        with warnings.catch_warnings():  # an optimizer that is not built yet takes no state
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(path)
    except ValueError as error:
        raise ModelError(
            f"The weights in {str(path)!r} do not fit the model that build_model makes now: {error}. Load them with "
            "the code that trained them."
        ) from error
    return model


def _is_keras(name: str) -> bool:
    """Whether Keras has something of this name, which a function of the user's must not stand for in a file."""
    homes = (keras.layers, keras.losses, keras.metrics, keras.activations, keras.optimizers, keras.initializers)
    return any(hasattr(home, name) for home in (*homes, keras.regularizers, keras.constraints))


# -- the user's own classes -------------------------------------------------------------------------------------------


def named_objects(function: Callable[..., object]) -> dict[str, Any]:
    """Classes and functions of the user's own that a function reaches by name, by their names.

    Looked through are the globals, closures and attributes of modules that its code names, and what these name: not
    what lies in installed packages, nor what is made while it runs.
    """
    found: dict[str, Any] = {}
    seen: dict[int, object] = {}  # the values, so that ids stay theirs
    waiting: list[object] = [function]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not _is_users(value):
            continue
        seen[id(value)] = value
        if isinstance(value, type | types.FunctionType):
            found.setdefault(value.__name__, value)
        waiting += _reached(value)
    return found


def _is_users(value: object) -> bool:
    """Whether classes, functions and modules are the user's; what may hold such ones counts as well."""
    if isinstance(value, type | types.FunctionType):
        return is_users(value.__module__)
    return not isinstance(value, types.ModuleType) or is_users(value.__name__)


def _reached(value: object) -> Iterator[object]:
    """What a value names or holds; of any other object its class."""
    if isinstance(value, types.FunctionType):
        yield from _named(value)
    elif isinstance(value, type):
        yield from value.__bases__
        for member in vars(value).values():
            yield getattr(member, "__func__", getattr(member, "fget", member))
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield value.__func__
    elif isinstance(value, list | tuple | dict):
        yield from islice(value.values() if isinstance(value, dict) else value, _MAX_ITEMS)
    elif not isinstance(value, types.ModuleType):
        yield type(value)


def _named(function: types.FunctionType) -> Iterator[object]:
    """Globals, closures, and attributes of modules among them, that a function names."""
    names = set(names_in(function.__code__))
    found = [function.__globals__[name] for name in names & set(function.__globals__)]
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    found += [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
    yield from found
    for module in found:
        if isinstance(module, types.ModuleType) and _is_users(module):
            yield from (getattr(module, name) for name in names if hasattr(module, name))
