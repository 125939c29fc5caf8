"""What tells one Python function from another: its code and the values it refers to, not where it is written."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xxhash

_MAX_DEPTH = 8
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


def function_fingerprint(function: Callable[..., Any]) -> str:
    """xxh3_128 (hex) over a function's byte code, constants, defaults, closure and the globals that it names.

    Functions among them are followed, modules and classes count by name, other objects by their class and those of
    their attributes that are numbers, text or arrays. Equal in every process of one Python version; line numbers,
    comments and the rest of the file do not matter.
    """
    return xxhash.xxh3_128_hexdigest(repr(_identity(function, _MAX_DEPTH)).encode())


def function_name(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    if isinstance(function, functools.partial):
        return function_name(function.func)
    return str(getattr(function, "__qualname__", type(function).__qualname__)).replace("<locals>.", "")


def _identity(value: Any, depth: int) -> Any:
    """A value made of strings and tuples whose repr tells values apart and does not depend on the process."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth == 0:
        return ("deep", type(value).__qualname__)
    if isinstance(value, types.CodeType):
        return _code(value, depth)
    if isinstance(value, types.FunctionType):
        return _function(value, depth)
    return _object(value, depth)


def _function(function: types.FunctionType, depth: int) -> Any:
    cells = [_cell(cell, depth - 1) for cell in function.__closure__ or ()]
    named = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return (
        "function",
        _code(function.__code__, depth, function.__doc__),
        _identity(function.__defaults__, depth - 1),
        _identity(function.__kwdefaults__, depth - 1),
        tuple(cells),
        # A function that calls itself by name would never end; its code is here already.
        tuple((n, _identity(v, depth - 1)) for n, v in sorted(named.items()) if v is not function),
    )


def _cell(cell: Any, depth: int) -> Any:
    try:
        return _identity(cell.cell_contents, depth)
    except ValueError:  # not filled yet
        return "empty"


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _code(code: types.CodeType, depth: int, documentation: str | None = None) -> Any:
    constants = code.co_consts
    if documentation is not None and constants[:1] == (documentation,):
        constants = (None, *constants[1:])
    return (
        "code",
        code.co_code.hex(),
        tuple(_identity(constant, depth - 1) for constant in constants),
        code.co_names,
        code.co_varnames,
    )


def _object(value: Any, depth: int) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, types.ModuleType):
        return ("module", value.__name__)
    if isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        return ("named", getattr(value, "__module__", None), getattr(value, "__qualname__", repr(value)))
    if isinstance(value, functools.partial):
        return ("partial", *(_identity(part, depth - 1) for part in (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return ("method", _identity(value.__func__, depth - 1), _identity(value.__self__, depth - 1))
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return ("array", str(array.dtype), array.shape, xxhash.xxh3_128_hexdigest(array.tobytes()))
    if isinstance(value, set | frozenset):
        return (kind, tuple(sorted(repr(_identity(item, depth - 1)) for item in value)))
    if isinstance(value, Mapping):
        return (kind, tuple((repr(key), _identity(item, depth - 1)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (kind, tuple(_identity(item, depth - 1) for item in value))
    call = vars(type(value)).get("__call__")
    code = _identity(call, depth - 1) if isinstance(call, types.FunctionType) else None
    # Only values that are certain to be the same in every process.
    state = {
        name: item
        for name, item in getattr(value, "__dict__", {}).items()
        if isinstance(item, (*_PLAIN, np.ndarray, np.generic))
    }
    return (kind, code, _identity(state, depth - 1))
