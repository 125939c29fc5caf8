"""What tells one Python function from another of other effect, in every process: or that nothing can.

A fingerprint is the promise that equal ones mean equal rows: a cache is used again because of it, a run goes on. So a
function is taken apart until only values are left that are certain to be the same: its byte code and constants, what
its closure, defaults and globals hold, and of an object the code of its class and what pickle would keep of it. What
is installed (the standard library and packages) counts by name; the user's own modules by those of their names that
the code uses. Arrays, frames, tensors and the weights of Keras objects count by their bytes. What is none of this is
refused by name, and the user says with `version=` when the effect changes.

Not done: hashing what `cloudpickle` writes, which differs from process to process (sets, memos, the order in which
things were imported) and leaves out modules; leaving out what is not known, which made functions of different effect
equal. Line numbers, names of files, comments and docstrings do not matter.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import dis
import enum
import fractions
import functools
import importlib
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xxhash

from ..dataset import Dataset
from ..errors import TransformError
from .object_contents import contents_of, is_installed

IDENTITY_VERSION = 2
"""Changes whenever the fingerprint of any function changes."""

_VALUES = (
    *(bool, int, float, complex, str, bytes, bytearray, range, slice, type(None), type(Ellipsis), type(NotImplemented)),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
    *(decimal.Decimal, fractions.Fraction, uuid.UUID),
)
_LRU_CACHE = type(functools.cache(lambda: None))
_NAMED: tuple[type, ...] = (types.BuiltinFunctionType, np.ufunc, types.GetSetDescriptorType, types.MemberDescriptorType)
_NAMED += (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
# They find by a text what the code of a function does not name.
_BY_TEXT = frozenset({"eval", "exec", "globals", "__import__"})
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is made when code runs
# Of a class: what differs without a difference, or is in its code and annotations as well.
_NOT_OF_A_CLASS = {
    *("__doc__", "__module__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__abstractmethods__"),
    *("__dataclass_fields__", "__dataclass_params__", "__firstlineno__", "__static_attributes__", "__orig_bases__"),
    *("__parameters__", "__type_params__", "__match_args__", "__annotate_func__", "__annotations_cache__", "_abc_impl"),
}


def function_fingerprint(function: Callable[..., Any]) -> str:
    """xxh3_128 (hex) over all that decides what a function computes; equal in every process of one Python version.

    Raises TransformError if that cannot be told for certain.
    """
    what = function_name(function)
    try:
        found = _Identity().of(function)
    except RecursionError as error:
        raise _refused(what, "something that is nested too deeply") from error
    except _UncertainError as error:
        raise _refused(what, str(error)) from error
    return xxhash.xxh3_128_hexdigest(f"{IDENTITY_VERSION} {found}".encode())


def function_name(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    if isinstance(function, functools.partial):
        return function_name(function.func)
    return str(getattr(function, "__qualname__", type(function).__qualname__)).replace("<locals>.", "")


def _refused(what: str, refers_to: str) -> TransformError:
    return TransformError(
        f"The function {what} refers to {refers_to}, of which cannot be told for certain whether it is the same "
        "another time; a cache or a run that goes on could use rows of another function without a word. Say it "
        'yourself: map(..., version="1"), and another text whenever the effect changes. Or let the function refer to '
        "plain values, arrays, frames, functions and objects of these only."
    )


class _UncertainError(Exception):
    """Something of which cannot be told whether it is the same another time; the message says what and where."""

    def __init__(self, value: object, path: str, why: str = "") -> None:
        kind = f"the module {value.__name__}" if isinstance(value, types.ModuleType) else f"a {_name(type(value))}"
        where = path.lstrip(".")
        super().__init__(f"{kind}{f' (in {where})' if where else ''}{why}")


class _Identity:
    """Takes one function apart; what it has met is known again, so that circles end."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._alive: list[object] = []  # an id is taken again when its object is gone
        self._depth = 0
        self._modules: set[tuple[str, frozenset[str]]] = set()

    def of(self, value: object, path: str = "") -> str:
        """A text that two values share only if they have the same effect; `path` says where it was found."""
        if type(value) in _VALUES or isinstance(value, pathlib.PurePath):
            return f"{_name(type(value))} {value!r}"
        if id(value) in self._known:
            return self._known[id(value)]
        self._alive.append(value)
        self._known[id(value)] = f"circle {self._depth}"
        self._depth += 1
        parts = [part if isinstance(part, str) else self.of(*part) for part in self._parts(value, path)]
        self._depth -= 1
        found = self._known[id(value)] = xxhash.xxh3_128_hexdigest("\0".join(parts).encode("utf-8", "surrogatepass"))
        return found

    def _parts(self, value: Any, path: str) -> Iterator[str | tuple[object, str]]:
        """Texts, and further values with their paths."""
        kind = type(value)
        yield _name(kind)
        if isinstance(value, types.CodeType):
            yield from self._code(value, path)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, path)
        elif isinstance(value, type):
            yield from self._class(value, path)
        elif isinstance(value, types.ModuleType):
            yield value.__name__
            if not is_installed(value.__name__):
                raise _UncertainError(value, path, " as a whole")
        elif isinstance(value, types.MethodType):
            yield from ((value.__func__, path), (value.__self__, f"{path}.__self__"))
        elif isinstance(value, types.BuiltinMethodType) and not isinstance(value.__self__, types.ModuleType | None):
            yield value.__name__
            yield value.__self__, f"{path}.__self__"
        elif isinstance(value, _NAMED):
            yield f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
        elif isinstance(value, Dataset):
            yield value.fingerprint
        elif isinstance(value, re.Pattern):
            yield from ((value.pattern, path), str(value.flags))
        elif isinstance(value, enum.Enum):
            yield from (value.name, (kind, path))
        elif isinstance(value, property):
            yield from ((one, path) for one in (value.fget, value.fset, value.fdel))
        elif isinstance(value, staticmethod | classmethod):
            yield value.__func__, path
        elif isinstance(value, _LRU_CACHE):
            yield value.__wrapped__, path
        elif isinstance(value, functools.cached_property):
            yield value.func, path
        elif kind in (set, frozenset):
            yield from sorted(self.of(item, path) for item in value)
        elif kind in (list, tuple, dict) and _is_plain(value):
            yield repr(value)
        elif kind in (list, tuple):
            yield from ((item, f"{path}[{number}]") for number, item in enumerate(value))
        elif kind is dict or isinstance(value, types.MappingProxyType):
            for key, item in value.items():
                yield from ((key, path), (item, f"{path}[{key!r}]"))
        else:
            yield from self._object(value, path)

    def _code(self, code: types.CodeType, path: str) -> Iterator[str | tuple[object, str]]:
        yield code.co_code.hex() + getattr(code, "co_exceptiontable", b"").hex()
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags))
        yield from ((constant, path) for constant in code.co_consts)

    def _function(self, function: types.FunctionType, path: str) -> Iterator[str | tuple[object, str]]:
        if _is_named(function):
            yield f"{function.__module__} {function.__qualname__}"
            return
        code = function.__code__
        if function.__doc__ is not None and code.co_consts[:1] == (function.__doc__,):
            code = code.replace(co_consts=(None, *code.co_consts[1:]))
        yield code, path
        yield from ((value, path) for value in (function.__defaults__, function.__kwdefaults__, function.__dict__))
        attributes = frozenset(_names(code, "ATTR", "METHOD", "FROM"))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                contents = cell.cell_contents
            except ValueError:  # not filled yet
                yield "empty"
                continue
            yield from self._used(contents, attributes, f"{path}.{name}")
        for name in sorted(set(_names(code, "GLOBAL", "NAME"))):
            if name in function.__globals__:
                yield name
                yield from self._used(function.__globals__[name], attributes, f"{path}.{name}")
            elif name in _BY_TEXT:
                raise _UncertainError(getattr(builtins, name), f"{path}.{name}")
        package = function.__globals__.get("__package__") or ""
        for name in sorted(set(_names(code, "IMPORT_NAME"))):
            yield name
            yield from self._imported(name, package, attributes, path)

    def _imported(
        self, name: str, package: str, attributes: frozenset[str], path: str
    ) -> Iterator[str | tuple[object, str]]:
        if not is_installed(name or package):
            try:
                module = importlib.import_module(name)
            except ImportError:
                raise _UncertainError(
                    name, path, f", the name of a module that it imports: {name or package}"
                ) from None
            yield from self._used(module, attributes, f"{path}.{name}")

    def _used(self, value: object, attributes: frozenset[str], path: str) -> Iterator[str | tuple[object, str]]:
        """A global of a function: of a module of the user's own, those of its names that the code uses."""
        if not isinstance(value, types.ModuleType) or is_installed(value.__name__):
            yield value, path
            return
        yield f"module {value.__name__}"
        if (value.__name__, attributes) in self._modules:
            return
        self._modules.add((value.__name__, attributes))
        for name in sorted(attributes & vars(value).keys()):
            yield name
            yield from self._used(vars(value)[name], attributes, f"{path}.{name}")

    def _class(self, kind: type, path: str) -> Iterator[str | tuple[object, str]]:
        yield _name(kind)
        if _is_named(kind):
            return
        yield from ((base, path) for base in (*kind.__bases__, type(kind)))
        if issubclass(kind, enum.Enum):
            for name, member in kind.__members__.items():
                yield from (name, (member.value, f"{path}.{name}"))
        for name, member in sorted(vars(kind).items()):
            if name in _NOT_OF_A_CLASS or (issubclass(kind, enum.Enum) and not callable(member)):
                continue
            yield from (name, (member, f"{path}.{name}"))

    def _object(self, value: Any, path: str) -> Iterator[str | tuple[object, str]]:
        """An object: the code of its class, and what is the same whenever it is made anew."""
        try:
            known = contents_of(value)
        except (NotImplementedError, AttributeError, ValueError, TypeError) as error:
            raise _UncertainError(value, path) from error
        if known is not None:
            yield from ((type(value), path), (known, path))
            return
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # its class's code may raise anything
            raise _UncertainError(value, path) from error
        yield type(value), path
        if isinstance(reduced, str):  # the name of a global
            yield reduced
            return
        maker, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        yield from ((maker, path), (arguments, path))
        if isinstance(state, dict):
            state = dict(sorted(state.items(), key=lambda item: str(item[0])))
        yield from ((state, path), (None if items is None else list(items), path))
        yield None if pairs is None else list(pairs), path


def _names(code: types.CodeType, *kinds: str) -> Iterator[str]:
    """The names that a code and the codes within it load in these ways."""
    for instruction in dis.get_instructions(code):
        if instruction.opname.endswith(kinds) and isinstance(instruction.argval, str):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant, *kinds)


def _is_plain(values: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> bool:
    items = (*values.keys(), *values.values()) if isinstance(values, dict) else values
    return all(type(item) in _VALUES for item in items)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_named(value: Any) -> bool:
    """Whether a function or class is one of an installed module, found there under its name."""
    if isinstance(value, type) and not value.__flags__ & _HEAP_TYPE:
        return True  # written in C
    module = value.__module__
    if not isinstance(module, str):  # of what Cython makes it is a descriptor
        return type(value) is type
    if not is_installed(module):
        return False
    found: Any = sys.modules.get(module)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
