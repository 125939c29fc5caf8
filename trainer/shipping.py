"""The user's code on its way to workers: cloudpickle bytes, unpacked there with errors that say what to do.

It travels through Ray, and Ray's channel is Ray's trust boundary.

Functions and classes of the script itself travel by value, all others by the name of their module, which the worker
imports. Which modules these are is noted while the code is packed, so that a machine without them is known before
anything is loaded there (`preflight`).

What travels by value brings its file's name and text along, for errors that say file and line, and for AutoGraph, which
reads what a function was written as. Cloudpickle leaves both out; and the file on another machine, or on this one some
hours later, may be another.
"""

from __future__ import annotations

import builtins
import dis
import io
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from .errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    import keras

_NO_FILE = "<dynamic-code>"  # what cloudpickle calls the file of a function that travels by value
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)  # what is pickled by its name where it has one


@dataclass(frozen=True, slots=True)
class InProcess:
    """User code that stays in its process (``workers=0``): the very objects, so that a callback's list fills up."""

    value: Any


@dataclass(frozen=True, slots=True)
class Packed:
    """User code as it travels: its pickle, and the modules that a worker imports for it, by their dotted names.

    The pickle is that of a pair: the code, and the texts of the files that it was written in, by their names.
    """

    payload: bytes
    modules: tuple[str, ...] = ()


Shipped = Packed | InProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCode:
    """What of a `fit` is the user's code: the steps of the custom loop, and Keras callbacks.

    With callbacks `build_model` is in it as well: what they share with the model (a global, a variable in a closure) is
    one object on a worker only if both are unpacked together.
    """

    train_step: Callable[..., Any] | None = None
    valid_step: Callable[..., Any] | None = None
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    build_model: Callable[[], keras.Model] | None = None


def ship(value: object, what: str, *, stays: bool = False) -> Shipped:
    """Pack user code.

    Args:
        value: the code.
        what: it is, for messages.
        stays: whether it stays in this process.

    Raises:
        ConfigurationError: it cannot leave this process.
    """
    if stays:
        return InProcess(value)
    try:
        return pack(value)
    except Exception as error:  # pickling runs user code, which may raise anything
        raise ConfigurationError(
            f"{what} cannot be shipped to workers: {type(error).__name__}: {error}. Something it refers to lives in "
            "this process only (an open file, a lock, a model or a tf.Variable). Make such things inside the function."
        ) from error


def pack(value: object) -> Packed:
    """Pickle something, and note the modules that it names; raises what pickling raises."""
    file = io.BytesIO()
    pickler = _NotingPickler(file)
    pickler.dump((value, pickler.texts))  # which it fills while it pickles the value
    return Packed(file.getvalue(), tuple(sorted(pickler.modules)))


def unship(shipped: Shipped, what: str) -> Any:  # Any: what was shipped, which the caller knows
    """Unpack user code on a worker; raises `ModelError` when something it needs is missing there."""
    if isinstance(shipped, InProcess):
        return shipped.value
    try:
        value, texts = cloudpickle.loads(shipped.payload)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} needs the module {error.name!r}, which this worker does not have. Install it on every machine of "
            "the cluster, or put it beside the script, or name it in Trainer(runtime_env={'pip': [...]})."
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"{what} does not unpack on this worker: {error}. The worker has another version of a module than "
            "the driver."
        ) from error
    for name, text in texts.items():  # without a time, so that nobody looks into a file for another text
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return value


class _NotingPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Notes the modules whose names it writes, and those that functions import which travel by value."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.modules: set[str] = set()
        self.texts: dict[str, str] = {}

    def reducer_override(self, value: object) -> Any:  # Any: as the pickle protocol has it
        """How an object is pickled: code with the name of its file, whose text is noted; all else as usual."""
        if not isinstance(value, types.CodeType):
            return super().reducer_override(value)
        name = value.co_filename
        if name not in self.texts and (text := "".join(linecache.getlines(name))):
            self.texts[name] = text
        make, arguments = self.dispatch_table[types.CodeType](value)
        return make, tuple(name if isinstance(each, str) and each == _NO_FILE else each for each in arguments)

    def persistent_id(self, value: object) -> None:
        """Called with every object that is pickled, before it is; none gets an id."""
        if isinstance(value, types.ModuleType):
            self._note(value.__name__)
        elif isinstance(value, _NAMED) and _is_found_by_name(value):
            self._note(value.__module__)
        elif isinstance(value, types.CodeType):
            for name in imported_by(value):
                self._note(name)

    def _note(self, name: str) -> None:
        parts = name.split(".")
        by_value = cloudpickle.list_registry_pickle_by_value()
        if parts[0] not in ("__main__", "builtins") and not any(
            ".".join(parts[: num + 1]) in by_value for num in range(len(parts))
        ):
            self.modules.add(name)


def _is_found_by_name(value: type | types.FunctionType | types.BuiltinFunctionType) -> bool:
    """Whether a class or function is what its module has under its name, so that it travels by that."""
    found: object = sys.modules.get(getattr(value, "__module__", None) or "", builtins)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value and value.__module__ is not None


def imported_by(code: types.CodeType) -> Iterator[str]:
    """Modules that a function imports whenever it runs, not in a ``try`` or ``with`` block: those may do without."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]  # it is in no stubs
    guarded = {offset for entry in entries for offset in range(entry.start, entry.end)}
    before: list[object] = []  # what was loaded last: the level of a relative import, and its names
    for line in dis.get_instructions(code):
        if line.opname == "IMPORT_NAME" and before[:1] == [0] and line.offset not in guarded:
            yield str(line.argval)
        before = [*before[-1:], line.argval] if line.opname.startswith("LOAD_") else before
