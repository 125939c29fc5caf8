"""Python attributes that callbacks change: what a traced step reads of plain Python.

A trace reads a Python value once, where it is made: ``self.share`` of a model, ``rate`` of a `Dropout`, a global that a
loss names. So in Keras a callback may set such values in ``on_train_begin``, and they hold for the whole run; what it
sets after the first step has no effect. Here the step is traced on every worker, on one that joins later, too, and
callbacks run on the chief alone. So the chief looks at these values before its hooks and after them, tells the others
what has changed, and they set it before they trace.

Where it looks: the model, its layers, loss, metrics and optimizer, the steps of the custom loop; and from there on what
the user's own code reaches: attributes of objects, items of lists and dicts, closures, the globals that functions name,
attributes of classes. Installed packages are not looked into. A value has a path (``model.share``), by which another
worker finds its own copy. Plain values travel: None, numbers, text, arrays, and tuples, lists and dicts of them.
Anything else that takes a place of the user's own before the trace is refused, since another worker cannot have it.

What was not done: running ``on_train_begin`` everywhere, which would open the same files twice and draw other numbers.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xxhash

from ..checkpoints.values import DTYPES
from ..code_digests import is_filled, is_users, names_in
from ..engine import private_api, private_hooks, private_models
from ..errors import UnsupportedModelAttributeError

_MAX_DEPTH, _MAX_ITEMS, _MAX_OBJECTS = 5, 1000, 20_000
_SCALARS = (type(None), bool, int, float, str)
# Of Keras's objects: what it sets by itself while it runs, and private names that hold what a user has set.
_OF_RUNNING = frozenset(["stop_training", "stop_evaluating", "stop_predicting", "history", "built", "compiled"])
_OF_RUNNING |= {"train_function", "test_function", "predict_function", "reset_metrics", "supports_jit", "jit_compile"}
_VALUE = "value"  # of a variable
Slot = tuple[str, str]  # path of what holds a value, and the value's name there


@dataclass(frozen=True, slots=True)
class _Seen:
    """A value as it was: itself, so that its id stays its own, and what is equal for equal values."""

    value: object
    mark: str
    is_plain: bool


class Attributes:
    """The Python values that the traced steps of a model may read.

    Args:
        model: the model.
        functions: the user's steps; None where there is none.
        state: the variables that are followed anyway; of others the values are looked at here, until they are.

    Attributes:
        variables: the Keras variables that were met.
    """

    def __init__(
        self, model: keras.Model, functions: Sequence[object] = (), state: Sequence[keras.Variable] = ()
    ) -> None:
        self._model, self._functions = model, tuple(functions)
        self._state = {id(variable) for variable in (*model.variables, *state)}
        self._noted: dict[Slot, _Seen] | None = None
        self.variables: list[keras.Variable] = []

    def note(self) -> None:
        """Look at the values before hooks run, unless that was done since the workers agreed."""
        if self._noted is None:
            self._noted = self._seen()

    def follow(self, beside: Sequence[tf.Variable]) -> None:
        """These variables are followed from now on: their values are looked at no more."""
        self._state |= set(map(id, beside))

    def _is_followed(self, owner: object) -> bool:
        variable = private_api.tf_variable(owner) if isinstance(owner, keras.Variable) else owner
        return id(owner) in self._state or id(variable) in self._state

    def forget(self) -> None:
        """The workers have agreed."""
        self._noted = None

    def changes(self) -> dict[str, Any]:  # Any: plain values
        """What is other than when it was noted, by path and name; what is not plain is left out."""
        changed = self._changed().items()
        return {"\n".join(slot): _to_json(seen.value) for slot, seen in changed if seen.is_plain}

    def refuse_what_cannot_travel(self) -> None:
        """Raises UnsupportedModelAttributeError where something of the user's has become what is not plain."""
        for (path, name), seen in self._changed().items():
            if not seen.is_plain and not name.startswith("_"):
                raise UnsupportedModelAttributeError(f"{path}.{name}", type(seen.value).__name__)

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Set values as another worker's callbacks have set them; those that have no place here are left out."""
        if changes:
            owners = {path: owner for path, owner, _ in self._owners()}
            for slot, value in changes.items():
                path, _, name = slot.partition("\n")
                if path in owners and (name != _VALUE or not self._is_followed(owners[path])):
                    _set(owners[path], name, _from_json(value))

    def _changed(self) -> dict[Slot, _Seen]:
        if self._noted is None:
            return {}
        new = _Seen(None, "", is_plain=False)
        return {slot: seen for slot, seen in self._seen().items() if self._noted.get(slot, new).mark != seen.mark}

    def _seen(self) -> dict[Slot, _Seen]:
        found: dict[Slot, _Seen] = {}
        for path, owner, held in self._owners():
            found |= {(path, name): seen for name, seen in held.items()}
            if isinstance(owner, keras.Variable) and not self._is_followed(owner):
                found[path, _VALUE] = _looked_at(_value_of(owner))
        return found

    def _owners(self) -> Iterator[tuple[str, object, dict[str, _Seen]]]:
        self.variables = []
        for path, owner, held in reached_from(self._roots()):
            if isinstance(owner, keras.Variable):
                self.variables.append(owner)
            yield path, owner, held

    def _roots(self) -> Iterator[tuple[str, object]]:
        model = self._model
        yield "model", model
        for number, layer in enumerate(private_hooks.layers_in(model)):
            yield f"model.layers[{number}]", layer  # by number: names count up in a process
        for number, metric in enumerate(private_models.leaf_metrics(model)):
            yield f"model.metrics[{number}]", metric
        for number, variable in enumerate(model.variables):
            yield f"model.variables[{number}]", variable
        for number, function in enumerate(self._functions):
            if function is not None:
                yield f"step {number}", function


def reached_from(roots: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object, dict[str, _Seen]]]:
    """Whatever holds values, each once, with a path that is the same on all workers, and with what it holds, by name.

    Args:
        roots: where to begin, with their paths.
    """
    waiting, visited = deque(roots), set[int]()
    while waiting and len(visited) < _MAX_OBJECTS:
        path, owner = waiting.popleft()
        if id(owner) in visited:
            continue
        visited.add(id(owner))
        held = {name: _looked_at(value) for name, value in _held(owner).items()}
        yield path, owner, held
        for name, seen in held.items():
            if not seen.is_plain and _is_looked_into(seen.value):
                waiting.append((f"{path}.{name}", seen.value))
        if is_users(type(owner).__module__) and not isinstance(owner, type):
            waiting += [(kind.__name__, kind) for kind in type(owner).__mro__ if is_users(kind.__module__)]


def _held(owner: object) -> Mapping[str, object]:
    """The values that something holds, by name."""
    if isinstance(owner, dict):
        return {name: value for name, value in owner.items() if isinstance(name, str)}
    if isinstance(owner, (list, tuple)):
        return {str(number): value for number, value in enumerate(owner[:_MAX_ITEMS])}
    if isinstance(owner, types.FunctionType):
        return _of_function(owner)
    if isinstance(owner, types.MethodType):
        return {"self": owner.__self__, "function": owner.__func__}
    if isinstance(owner, functools.partial):
        return {"function": owner.func, "args": owner.args, **owner.keywords}
    if isinstance(owner, keras.Variable):  # its value is looked at where it is not followed
        return {private_hooks.TRAINABLE: owner.trainable}
    held = {name: value for name, value in _attributes(owner).items() if not name.startswith("__")}
    if isinstance(owner, type | types.ModuleType):
        return held
    hidden = private_hooks.names_of_keras(type(owner)) if private_hooks.is_of_keras(owner) else frozenset()
    return {
        name: value
        for name, value in held.items()
        if name in private_hooks.SETTINGS or (name not in hidden and name not in _OF_RUNNING)
    }


def _value_of(variable: keras.Variable) -> np.ndarray | None:
    """What a variable holds; None where that is no array that travels."""
    try:
        return np.asarray(variable.numpy())
    except (AttributeError, ValueError, NotImplementedError):  # it has no value yet, or is part of a graph
        return None


def _attributes(owner: object) -> dict[str, object]:
    """The attributes of an object, at one moment."""
    return dict(getattr(owner, "__dict__", {}))


def _of_function(function: types.FunctionType) -> dict[str, object]:
    """What a function finds in its closure, and the globals that it names."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    found = {name: cell.cell_contents for name, cell in cells if is_filled(cell)}
    scope = function.__globals__
    return {**{name: scope[name] for name in names_in(function.__code__) if name in scope}, **found}


def _set(owner: object, name: str, value: object) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    elif isinstance(owner, list):
        owner[int(name)] = value
    elif isinstance(owner, keras.Variable) and name == _VALUE:
        owner.assign(value)
    elif isinstance(owner, types.FunctionType):
        if name in owner.__code__.co_freevars:
            (owner.__closure__ or ())[owner.__code__.co_freevars.index(name)].cell_contents = value
        else:
            owner.__globals__[name] = value
    else:
        setattr(owner, "trainable" if name == private_hooks.TRAINABLE else name, value)


def _is_looked_into(value: object) -> bool:
    """Whether something may hold values that a step reads and a callback changes."""
    if isinstance(value, (dict, list, tuple, types.MethodType, functools.partial)):
        return True
    if isinstance(value, (types.FunctionType, type)):
        return is_users(value.__module__)
    if isinstance(value, types.ModuleType):
        return is_users(value.__name__)
    return (
        private_hooks.is_of_keras(value) or is_users(type(value).__module__) or isinstance(value, types.SimpleNamespace)
    )


def _looked_at(value: object) -> _Seen:
    mark = _mark(value)
    return _Seen(value, mark or f"object {id(value)}", mark is not None)


def _mark(value: object, depth: int = 0) -> str | None:
    """What is equal for equal plain values; None for what is not plain."""
    if type(value) in _SCALARS:
        return repr(value)
    if isinstance(value, np.generic | np.ndarray):
        array = np.asarray(value)
        known = array.dtype.name in DTYPES
        content = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).reshape(-1).view(np.uint8)) if known else ""
        return f"{type(value).__name__} {array.dtype} {array.shape} {content}" if known else None
    kind = next((each for each in (tuple, list, dict) if type(value) is each), None)
    if kind is None and private_hooks.is_of_keras(value):  # Keras has wrapped it
        kind = next((each for each in (list, dict) if isinstance(value, each)), None)
    whole: Any = value  # of one of these types, whatever is in it
    if kind is None or depth > _MAX_DEPTH or len(whole) > _MAX_ITEMS:
        return None
    if kind is dict and not all(type(each) is str for each in whole):
        return None
    marks = [_mark(each, depth + 1) for each in (whole.items() if kind is dict else whole)]
    return None if None in marks else f"{kind.__name__} {marks}"


def _to_json(value: Any) -> Any:  # Any: plain values
    """A plain value as one that messages hold: they know no tuples."""
    if isinstance(value, dict):
        return {"dict": {name: _to_json(each) for name, each in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_to_json(each) for each in value]}
    return value


def _from_json(found: Any) -> Any:  # Any: plain values
    """The value of which `_to_json` made this."""
    if not isinstance(found, dict):
        return found
    ((kind, items),) = found.items()
    if kind == "dict":
        return {name: _from_json(each) for name, each in items.items()}
    return (tuple if kind == "tuple" else list)(_from_json(each) for each in items)
