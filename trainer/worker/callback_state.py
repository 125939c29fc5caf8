"""What a callback has gathered, as values: so that another worker's copy of it can go on where the chief's stopped.

States are JSON values and numpy arrays, nested in dicts and lists. Nothing is pickled. What is carried: for Keras's own
callbacks the attributes listed here, for a user's callback what its ``get_state()`` returns. The others begin afresh.

The order on the new chief: `prepare_take_over`, the callback's ``on_train_begin``, `restore_callback`. Restoring goes
back to the moment at which the state was taken, files that the callback appends to included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import IO, Any, Literal

import keras
import numpy as np
from keras.callbacks import Callback

from ..checkpoints.values import copied, encode_state
from ..engine import private_hooks
from ..engine.private_names import CALLBACK_FIELDS
from ..errors import CallbackStateError, ConfigurationError

State = dict[str, Any]
# Comparisons by which a callback finds the best number.
_COMPARISONS = {"less": keras.ops.less, "greater": keras.ops.greater}


# Of Keras's own, those that have nothing to carry.
_WITHOUT_STATE = (
    keras.callbacks.Callback,
    keras.callbacks.History,  # every worker has its own
    keras.callbacks.LambdaCallback,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TerminateOnNaN,
)


def state_kind(callback: Callback) -> Literal["own", "keras", "none", "lost"]:
    """What of a callback gets to another worker.

    Returns:
        "own": what the user's get_state() returns, for set_state(state): they answer for everything; "keras": the part
        of a Keras callback, in it or a subclass of it; "none": a Keras callback, exactly that class, has nothing to
        carry; "lost": nothing, it begins afresh.
    """
    if callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None)):
        return "own"
    if _fields_of(callback):
        return "keras"
    return "none" if type(callback) in _WITHOUT_STATE else "lost"


def notes_on_lost_state(callbacks: Sequence[Callback]) -> tuple[str, ...]:
    """What users should know of callbacks whose state cannot be carried to another worker."""
    names = [type(callback).__name__ for callback in callbacks if state_kind(callback) == "lost"]
    if not names:
        return ()
    return (
        f"callbacks that begin afresh if the chief is lost: {', '.join(names)} (get_state() and set_state(state) would "
        "carry them)",
    )


def callback_state(callback: Callback) -> State:
    """What a callback has gathered so far, copied; {} for what has nothing to carry. See `encoded_state`."""
    return copied(*_state_of(callback))


def encoded_state(source: Callback | State, where: str = "") -> tuple[str, dict[str, np.ndarray]]:
    """What a callback has gathered so far, or a state that it was: JSON text in tags, and the arrays that it names.

    The arrays are the callback's own, not copied.

    Args:
        source: the callback, or the state.
        where: of a state: what it is, for messages.

    Raises:
        ConfigurationError: see `_state_of`; or the state holds what cannot be carried (names the place).
    """
    state, where = _state_of(source) if isinstance(source, Callback) else (source, where)
    arrays: dict[str, np.ndarray] = {}
    return json.dumps(encode_state(state, arrays, where), allow_nan=False), arrays


def _state_of(callback: Callback) -> tuple[State, str]:
    """A callback's state as it is, {} for what has nothing to carry; and what to call it in messages.

    Values are None, bool, int, float, str, numpy scalars and arrays (bool, integers, floats, bfloat16, float8), and
    dicts with str keys and lists of them. Buffered events of a TensorBoard are written out.

    Raises:
        ConfigurationError: get_state() returned something else; it names the callback and the key.
    """
    name = type(callback).__name__
    if state_kind(callback) == "own":
        state = callback.get_state()
        if type(state) is not dict:
            raise ConfigurationError(
                f"get_state() of the callback {name} returned a {type(state).__name__}; it must return a dict with str "
                "keys, which set_state(state) takes on another worker."
            )
        return state, f"get_state() of the callback {name}: state"
    fields, attributes = _fields_of(callback), vars(callback)
    state = {field: _untensored(attributes[field]) for field in fields if field in attributes}
    if "best" in fields:
        state["comparison"] = next((k for k, op in _COMPARISONS.items() if op is callback.monitor_op), None)
    if isinstance(callback, keras.callbacks.CSVLogger):
        state["size_bytes"] = _csv_bytes(callback)
    if isinstance(callback, keras.callbacks.TensorBoard):
        private_hooks.write_out_events(callback)
    return state, f"callback {name}: state"


def prepare_take_over(callback: Callback) -> None:
    """Before ``on_train_begin`` on the new chief: keep it from destroying what the last chief wrote."""
    if isinstance(callback, keras.callbacks.CSVLogger):
        callback.append = True  # restore_callback puts the user's choice back
        callback.append_header = True  # on_train_begin sees whether the file has one


def restore_callback(callback: Callback, state: State) -> None:
    """After ``on_train_begin`` on the new chief: take over what `callback_state` gave on the last one.

    A CSVLogger's file is cut to the length it had then: rows written since are those of hooks that run again.

    Raises:
        CallbackStateError: the state is not one of this kind of callback.
    """
    if state_kind(callback) == "own":
        callback.set_state(state)
        return
    fields = _fields_of(callback)
    extras = {"comparison"} if "best" in fields else set()
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
        private_hooks.reopen_train_writer(callback)


def _fields_of(callback: Callback) -> tuple[str, ...]:
    """The attributes that decide how a Keras callback goes on; one of them is `best` if it compares numbers."""
    kinds = ((getattr(keras.callbacks, name), fields) for name, fields in CALLBACK_FIELDS.items())
    return next((fields for kind, fields in kinds if isinstance(callback, kind)), ())


def _untensored(value: object) -> object:
    """A number that logs held as a tensor, as the numpy scalar of its dtype."""
    return keras.ops.convert_to_numpy(value)[()] if keras.ops.is_tensor(value) else value


def _csv_bytes(callback: keras.callbacks.CSVLogger) -> int | None:
    file = callback.csv_file
    return os.fstat(file.fileno()).st_size if _on_disk(file) else None  # rows are flushed by Keras


def _cut_csv(callback: keras.callbacks.CSVLogger, size_bytes: int | None) -> None:
    file = callback.csv_file
    if size_bytes is None or not _on_disk(file):
        return
    if os.fstat(file.fileno()).st_size > size_bytes:
        os.ftruncate(file.fileno(), size_bytes)
    callback.append_header = os.fstat(file.fileno()).st_size == 0


def _on_disk(file: IO[str] | None) -> bool:
    return file is not None and hasattr(file, "fileno") and not file.closed  # gs:// and the like have no descriptor
