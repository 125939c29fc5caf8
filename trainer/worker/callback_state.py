"""What a callback has gathered, as values: so that another worker's copy of it can go on where the chief's stopped.

States are JSON values and numpy arrays, nested in dicts and lists. Nothing is pickled. What is carried: for Keras's own
callbacks the attributes listed here, for a user's callback what its ``get_state()`` returns. The others begin afresh.

The order on the new chief: `prepare_take_over`, the callback's ``on_train_begin``, `restore_callback`. Restoring goes
back to the moment at which the state was taken, files that the callback appends to included.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import keras

from ..checkpoints.values import copied
from ..engine import private_api
from ..engine.private_names import CALLBACK_FIELDS
from ..errors import CallbackStateError, ConfigurationError

State = dict[str, Any]

_COMPARISONS = {"less": keras.ops.less, "greater": keras.ops.greater}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapter:
    """The attributes of a Keras callback that decide how it goes on; `monitors`: it compares numbers with a best."""

    kind: type
    fields: tuple[str, ...]
    monitors: bool = False


_ADAPTERS = (
    _Adapter(
        kind=keras.callbacks.EarlyStopping,
        fields=CALLBACK_FIELDS["EarlyStopping"],
        monitors=True,
    ),
    _Adapter(kind=keras.callbacks.ReduceLROnPlateau, fields=CALLBACK_FIELDS["ReduceLROnPlateau"], monitors=True),
    _Adapter(
        kind=keras.callbacks.ModelCheckpoint,
        fields=CALLBACK_FIELDS["ModelCheckpoint"],
        monitors=True,
    ),
    _Adapter(kind=keras.callbacks.CSVLogger, fields=CALLBACK_FIELDS["CSVLogger"]),
    _Adapter(
        kind=keras.callbacks.TensorBoard,
        fields=CALLBACK_FIELDS["TensorBoard"],
    ),
)
_STATELESS = (
    keras.callbacks.Callback,
    keras.callbacks.History,  # every worker has its own
    keras.callbacks.LambdaCallback,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)


def carried_how(callback: Any) -> Literal["adapter", "own", "stateless", "afresh"]:
    """How a callback's state gets to another worker.

    Returns:
        "own": by the user's get_state() and set_state(state), which then answer for everything; "adapter": a Keras
        callback, or a subclass, of which the Keras part is carried; "stateless": a Keras callback, exactly that class,
        that has nothing to carry; "afresh": it begins again.
    """
    if callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None)):
        return "own"
    if _adapter(callback) is not None:
        return "adapter"
    return "stateless" if type(callback) in _STATELESS else "afresh"


def callback_state(callback: Any) -> State:
    """What a callback has gathered so far, copied; {} for what has nothing to carry.

    Values are None, bool, int, float, str, numpy scalars and arrays (bool, integers, floats, bfloat16, float8), and
    dicts with str keys and lists of them. Buffered events of a TensorBoard are written out.

    Raises:
        ConfigurationError: get_state() returned something else; it names the callback and the key.
    """
    name = type(callback).__name__
    if carried_how(callback) == "own":
        state = callback.get_state()
        if type(state) is not dict:
            raise ConfigurationError(
                f"get_state() of the callback {name} returned a {type(state).__name__}; it must return a dict with str "
                "keys, which set_state(state) takes on another worker."
            )
        return copied(state, f"get_state() of the callback {name}: state")
    adapter = _adapter(callback)
    if adapter is None:
        return {}
    attributes = vars(callback)
    state = {field: _untensored(attributes[field]) for field in adapter.fields if field in attributes}
    if adapter.monitors:
        state["comparison"] = next((k for k, op in _COMPARISONS.items() if op is callback.monitor_op), None)
    if isinstance(callback, keras.callbacks.CSVLogger):
        state["size_bytes"] = _csv_bytes(callback)
    if isinstance(callback, keras.callbacks.TensorBoard):
        private_api.write_out_events(callback)
    return copied(state, f"callback {name}: state")


def prepare_take_over(callback: Any) -> None:
    """Before ``on_train_begin`` on the new chief: keep it from destroying what the last chief wrote."""
    if isinstance(callback, keras.callbacks.CSVLogger):
        callback.append = True  # restore_callback puts the user's choice back
        callback.append_header = True  # on_train_begin sees whether the file has one


def restore_callback(callback: Any, state: State) -> None:
    """After ``on_train_begin`` on the new chief: take over what `callback_state` gave on the last one.

    A CSVLogger's file is cut to the length it had then: rows written since are those of hooks that run again.

    Raises:
        CallbackStateError: the state is not one of this kind of callback.
    """
    if carried_how(callback) == "own":
        callback.set_state(state)
        return
    adapter = _adapter(callback)
    fields = adapter.fields if adapter else ()
    extras = {"comparison"} if adapter and adapter.monitors else set()
    extras |= {"size_bytes"} if isinstance(callback, keras.callbacks.CSVLogger) else set()
    comparison = state.get("comparison")
    if (unknown := set(state) - {*fields, *extras}) or comparison not in (None, *_COMPARISONS):
        raise CallbackStateError(
            f"The state given to the callback {type(callback).__name__} is not one of its kind: "
            f"{f'it has {sorted(unknown)}' if unknown else f'it compares by {comparison!r}'}. Probably the list of "
            "callbacks, or Heliostat's version, is another than where the state was taken. Use the same."
        )
    for field in fields:
        if field in state:
            setattr(callback, field, state[field])
    if comparison is not None:  # Keras finds it at an epoch's end; a save between batches needs it before
        callback.monitor_op = _COMPARISONS[comparison]
        callback.min_delta = abs(callback.min_delta) * (-1 if comparison == "less" else 1)
    if isinstance(callback, keras.callbacks.CSVLogger):
        _cut_csv(callback, state.get("size_bytes"))
    if isinstance(callback, keras.callbacks.TensorBoard):
        private_api.reopen_train_writer(callback)


def _adapter(callback: Any) -> _Adapter | None:
    return next((adapter for adapter in _ADAPTERS if isinstance(callback, adapter.kind)), None)


def _untensored(value: Any) -> Any:
    """A number that logs held as a tensor, as the numpy scalar of its dtype."""
    return keras.ops.convert_to_numpy(value)[()] if keras.ops.is_tensor(value) else value


def _csv_bytes(callback: Any) -> int | None:
    file = callback.csv_file
    return os.fstat(file.fileno()).st_size if _on_disk(file) else None  # rows are flushed by Keras


def _cut_csv(callback: Any, size_bytes: int | None) -> None:
    file = callback.csv_file
    if size_bytes is None or not _on_disk(file):
        return
    if os.fstat(file.fileno()).st_size > size_bytes:
        os.ftruncate(file.fileno(), size_bytes)
    callback.append_header = os.fstat(file.fileno()).st_size == 0


def _on_disk(file: Any) -> bool:
    return file is not None and hasattr(file, "fileno") and not file.closed  # gs:// and the like have no descriptor
