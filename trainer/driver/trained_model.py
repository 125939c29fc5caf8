"""Loading what was trained, with the user's own classes found by the code of `build_model`: `load_trained`."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from heliostat.data import Dataset

from ..columns import Columns, sample_rows
from ..engine.building import build_state
from ..engine.runtime import BUILD_LOCK
from ..errors import ModelError
from ..jobs import WEIGHTS_FILE

_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a trained model comes from.

    Attributes:
        build_model: the user's function; it may return optimizers beside the model.
        data: what it was trained on.
        columns: which columns are inputs and targets.
    """

    build_model: Callable[[], Any]  # Any: (model, optimizers) too
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
    objects = {**({} if origin is None else named_objects(origin.build_model)), **(custom_objects or {})}
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
    """A model that `build_model` makes, with the weights of a file."""
    if origin is None:
        raise ModelError(
            f"{str(path)!r} cannot be loaded by itself ({reason}), and the function that has made the model is not "
            "known here. Give the model's own classes as custom_objects={'name': class}, or take the result from the "
            "Trainer that has build_model; by hand: model = build_model(), then model.load_weights(path)."
        )
    made = origin.build_model()
    model: keras.Model = made[0] if isinstance(made, tuple) else made
    with BUILD_LOCK:
        if origin.data is not None and origin.columns is not None:
            build_state(model, sample_rows(origin.data, origin.columns), origin.columns)
        model.built = True
    try:
        model.load_weights(path)
    except ValueError as error:
        raise ModelError(
            f"The weights in {str(path)!r} do not fit the model that build_model makes now: {error}. Load them with "
            "the code that trained them."
        ) from error
    return model


# -- the user's own classes -------------------------------------------------------------------------------------------


def named_objects(function: Callable[..., object]) -> dict[str, Any]:
    """Classes and functions of the user's own that a function reaches by name, by their names.

    Looked through are the globals, closures and attributes of modules that its code names, and what these name: not
    what lies in installed packages, nor what is made while it runs.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting: list[object] = [function]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not _is_users(value):
            continue
        seen.add(id(value))
        if isinstance(value, type | types.FunctionType):
            found.setdefault(value.__name__, value)
        waiting += _reached(value)
    return found


def _is_users(value: object) -> bool:
    if not isinstance(value, type | types.FunctionType | types.MethodType | types.ModuleType):
        return callable(value) and hasattr(value, "func")  # functools.partial
    name = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    if file is None:  # a notebook's cell, or an interpreter's line
        return name == "__main__"
    return not any(place in Path(file).parts for place in _INSTALLED) and not file.startswith(sys.base_prefix)


def _reached(value: Any) -> Iterator[object]:  # Any: functions, classes, modules, partials
    if isinstance(value, types.MethodType):
        yield value.__func__
    elif isinstance(value, types.FunctionType):
        names = set(_names(value.__code__))
        yield from (value.__globals__[name] for name in names & set(value.__globals__))
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        for module in [value.__globals__[name] for name in names & set(value.__globals__)]:
            if isinstance(module, types.ModuleType) and _is_users(module):
                yield from (getattr(module, name) for name in names if hasattr(module, name))
    elif isinstance(value, type):
        yield from value.__bases__
        for member in vars(value).values():
            yield getattr(member, "__func__", getattr(member, "fget", member))
    elif not isinstance(value, types.ModuleType):
        yield value.func


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)
