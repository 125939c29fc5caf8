"""Hashes of a user's function and of all of the user's code that it reaches, to tell whether it is still the same.

A finished run is answered from its folder, without a worker and without TensorFlow; so the driver has to know by itself
whether `build_model` is the function that the run was made with. What counts is what it does: bytecode, constants,
names, defaults, the values it finds in closures and globals, and the same of every function and class of the user's own
that it names. Comments and places in files do not count, nor do installed packages (`run.json` has their versions).

Equal hashes mean the same function. Others mean little: another Python compiles the same lines to other bytecode, and a
function may be written differently and do the same. Then the model itself has to be built and compared. The same holds
where a function uses an object that cannot be looked into, such as a lock: that has an entry which is never equal.
"""

from __future__ import annotations

import argparse
import copyreg
import functools
import inspect
import random
import sys
import types
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

PYTHON = "python"  # the entry that holds the version of Python
UNKNOWN = "not known: "  # begins the entries of what cannot be looked into, which are never equal
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_PLACES = frozenset(["site-packages", "dist-packages"])
_HOLDERS = (types.SimpleNamespace, argparse.Namespace)  # of values, and of nothing else
_NAMED = (
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)  # parts of classes that are written in C
_CHANGING = (random.Random, np.random.Generator, np.random.RandomState)  # whose state tells nothing of the code


def code_digests(*functions: object) -> dict[str, str]:
    """Hashes of functions and of the user's code that they reach, by module and name; and the version of Python."""
    walk = _Walk()
    for number, function in enumerate(functions):
        text = walk.describe_all(function)
        if text not in walk.found:  # a callable object, or a function of no module
            walk.found[f"function {number}"] = _hash(text)
    return {PYTHON: "{}.{}".format(*sys.version_info[:2]), **walk.found}


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names whose code differs, sorted; none where another Python has compiled it, which tells nothing."""
    if before.get(PYTHON) != now.get(PYTHON):
        return []
    known = [name for name in {**before, **now} if not name.startswith(UNKNOWN)]
    return sorted(name for name in known if before.get(name) != now.get(name))


def callback_digests(callbacks: Sequence[object], states: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Hashes of callbacks: of each its class, and the arguments of its constructor that it has kept.

    Args:
        callbacks: the user's.
        states: of Keras's callbacks, by class, attributes that are no setting, since they change.

    Returns:
        Hashes by ``EarlyStopping``, ``EarlyStopping.patience``; the second of a class is called ``EarlyStopping #2``.
        Those of the user's classes are there by module and name as well.
    """
    walk = _Walk()
    for callback in callbacks:
        walk.describe(type(callback))
    found: dict[str, str] = {}
    for callback in callbacks:
        kind, number = type(callback), 1
        name = kind.__name__
        while name in found:
            number += 1
            name = f"{kind.__name__} #{number}"
        found[name] = _hash(f"{kind.__module__}.{kind.__qualname__}")
        changing = {each for base in kind.__mro__ for each in states.get(base.__name__, ())}
        for setting in sorted(_arguments(kind) - changing):
            if setting in vars(callback):
                value = vars(callback)[setting]
                turned = setting == "min_delta" and isinstance(value, int | float)  # by Keras, for its comparison
                found[f"{name}.{setting}"] = _settled(abs(value) if turned else value)
    return found | walk.found


def _arguments(kind: type) -> set[str]:
    """Names of the arguments of a class's constructor, and of those that it calls."""
    makers = [vars(base)["__init__"] for base in kind.__mro__[:-1] if "__init__" in vars(base)]
    return {name for maker in makers if callable(maker) for name in inspect.signature(maker).parameters}


def _settled(value: object) -> str:
    walk = _Walk()
    text = walk.describe_all(value)
    known = (f"{name} {digest}" for name, digest in sorted(walk.found.items()) if not name.startswith(UNKNOWN))
    return _hash("\n".join([text, *known]))


class _Walk:
    """Goes from value to value, each once.

    Attributes:
        found: hashes by module and name.
    """

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._names: dict[int, str] = {}  # by id of what was visited
        self._counts: Counter[str] = Counter()  # of names
        self._kept: list[object] = []  # so that ids stay theirs

    def describe_all(self, value: object) -> str:
        """`describe`, also of what is nested too deep to be described."""
        try:
            return self.describe(value)
        except RecursionError:
            return self._unknown("what is nested too deep")

    def describe(self, value: object) -> str:
        """What there is to compare of a value: its own text, or the name under which its hash is found."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, np.generic):
            return f"{value.dtype} {value.item()!r}"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, tuple):
            return f"[{', '.join(map(self.describe, value))}]"
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(map(self.describe, value)))}}}"
        if isinstance(value, np.ndarray):
            content = _hash(value.tobytes()) if value.dtype != object else self.describe(value.tolist())
            return f"array {value.dtype} {value.shape} {content}"
        if id(value) in self._names:
            return self._names[id(value)]
        if isinstance(value, list):
            self._enter(value, "a list that holds itself")
            return f"[{', '.join(map(self.describe, list(value)))}]"
        if isinstance(value, dict):
            self._enter(value, "a dict that holds itself")
            return f"{{{', '.join(f'{self.describe(k)}: {self.describe(v)}' for k, v in list(value.items()))}}}"
        if isinstance(value, types.MappingProxyType):
            return self.describe(dict(value))
        return self._code_or_object(value)

    def _code_or_object(self, value: object) -> str:
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, functools.partial):
            return self.describe((value.func, value.args, dict(value.keywords)))
        if isinstance(value, types.MethodType):
            return self.describe((value.__func__, value.__self__))
        if isinstance(value, types.BuiltinFunctionType):
            return self.describe((value.__qualname__, value.__self__))
        if isinstance(value, _NAMED):
            return value.__qualname__
        if isinstance(value, (staticmethod, classmethod)):
            return self.describe(value.__func__)
        if isinstance(value, property):
            return self.describe((value.fget, value.fset))
        if isinstance(value, functools.cached_property):
            return self.describe(value.func)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        return self._object(value)

    def _enter(self, value: object, name: str) -> str:
        """Name a value before what it refers to is looked at, which may be itself."""
        self._counts[name] += 1
        self._names[id(value)] = name + "'" * (self._counts[name] - 1)
        self._kept.append(value)
        return self._names[id(value)]

    def _unknown(self, name: str) -> str:
        """Note that something is not known, so that these hashes are equal to no others."""
        self.found[UNKNOWN + name] = uuid.uuid4().hex
        return name

    def _function(self, function: types.FunctionType) -> str:
        name = self._enter(function, f"{function.__module__}.{function.__qualname__}")
        if not is_users(function.__module__):
            return name
        self.found[name] = ""
        cells = [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
        parts: list[object] = [function.__code__, function.__defaults__, function.__kwdefaults__, cells]
        parts += self._named(function.__code__, function.__globals__)
        self.found[name] = _hash("\n".join(map(self.describe, parts)))
        return name

    def _named(self, code: types.CodeType, scope: Mapping[str, Any]) -> Iterator[object]:
        """The values of the globals that a function names, and of the attributes it names of the user's modules."""
        names = list(names_in(code))
        for name in names:
            value = scope.get(name)
            yield name if isinstance(value, types.ModuleType) else value
            if isinstance(value, types.ModuleType) and is_users(value.__name__):
                yield from (vars(value)[each] for each in names if each in vars(value))

    def _code(self, code: types.CodeType) -> str:
        parts = [code.co_code.hex(), code.co_names, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        return self.describe([*parts, code.co_flags, code.co_consts])

    def _class(self, kind: type) -> str:
        name = self._enter(kind, f"{kind.__module__}.{kind.__qualname__}")
        if not is_users(kind.__module__):
            return name
        self.found[name] = ""
        parts: list[object] = list(kind.__bases__)
        for member, value in vars(kind).items():
            if member != "_abc_impl" and (not member.startswith("__") or isinstance(value, types.FunctionType)):
                parts += [member, value]
        self.found[name] = _hash("\n".join(map(self.describe, parts)))
        return name

    def _object(self, value: object) -> str:
        """An object: its class, and what it holds; of an installed class that is what it can be made again from."""
        kind = type(value)
        inner = getattr(value, "python_function", None) if kind.__module__.startswith("tensorflow.") else None
        if inner is not None:  # of a tf.function
            return self.describe(inner)
        name = self._enter(value, f"an object of {kind.__module__}.{kind.__qualname__}")
        if kind.__module__.startswith("keras.") and kind.__name__ == "Tracker":
            return name  # has only addresses of what its layer holds
        is_own = is_users(kind.__module__) or isinstance(value, _HOLDERS)
        held, settings = _held(value, kind), _settings(value, kind)
        if is_own:
            return f"{self.describe(kind)}({self.describe(held)})" + (self.describe(settings) if settings else "")
        if settings is None:
            settings = _made_from(value, kind)
        if settings is None:
            return self._unknown(name)
        functions = [each for each in held.values() if isinstance(each, types.FunctionType)]
        return f"{self.describe(kind)}({self.describe(settings)}){self.describe(functions)}"


def _held(value: object, kind: type) -> dict[str, object]:
    """The values of an object's attributes, and of the slots of the user's classes among its own."""
    slots = [vars(base).get("__slots__", ()) for base in kind.__mro__ if is_users(base.__module__)]
    names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
    found = {name: getattr(value, name) for name in names if not name.startswith("__") and hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def _settings(value: Any, kind: type) -> tuple[object, ...] | None:  # Any: it may have no such methods
    """What an object of Keras says of itself, and its weights; None of another, or where it cannot say it."""
    if not hasattr(kind, "get_config"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas, which nobody loads from here
            return value.get_config(), value.get_weights() if hasattr(kind, "get_weights") else []
    except Exception:  # whatever another's code raises
        return None


def _made_from(value: object, kind: type) -> tuple[object, ...] | None:
    """What an object can be made again from, as `copy` and `pickle` ask for it; None where it cannot."""
    if isinstance(value, _CHANGING):
        return None
    try:
        reduced = copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(2)
        if isinstance(reduced, str):  # its name
            return reduced, getattr(value, "__dict__", {}).get("__wrapped__")
        made, items = tuple(reduced[:3]), reduced[3:5]
        return (*made, *(None if each is None else list(each) for each in items))
    except Exception:  # whatever another's code raises
        return None


def names_in(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes that a function uses, those inside of it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


def is_filled(cell: types.CellType) -> bool:
    """Whether a cell of a closure has a value."""
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later, or never
        return False


def is_users(name: str | None) -> bool:
    """Whether a module is the user's own: neither Python's, nor installed, nor Heliostat's."""
    top = (name or "").partition(".")[0]
    if name != "__main__" and (top in sys.stdlib_module_names or top in ("heliostat", "")):
        return False
    path = getattr(sys.modules.get(name or ""), "__file__", None)
    return path is None or _PLACES.isdisjoint(Path(path).parts)


def _hash(content: str | bytes) -> str:
    return str(xxhash.xxh3_64_hexdigest(content.encode() if isinstance(content, str) else content))
