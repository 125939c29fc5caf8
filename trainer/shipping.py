"""The user's code on its way to workers: cloudpickle bytes, unpacked there with errors that say what to do.

It travels through Ray, and Ray's channel is Ray's trust boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from .errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class InProcess:
    """User code that stays in its process (``workers=0``): the very objects, so that a callback's list fills up."""

    value: Any


Shipped = bytes | InProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCode:
    """What of a `fit` is the user's code: the steps of the custom loop, and Keras callbacks."""

    train_step: Callable[..., Any] | None = None
    valid_step: Callable[..., Any] | None = None
    callbacks: tuple[keras.callbacks.Callback, ...] = ()


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
        return cloudpickle.dumps(value)  # type: ignore[no-any-return]
    except Exception as error:  # pickling runs user code, which may raise anything
        raise ConfigurationError(
            f"{what} cannot be shipped to workers: {type(error).__name__}: {error}. Something it refers to lives in "
            "this process only (an open file, a lock, a model or a tf.Variable). Make such things inside the function."
        ) from error


def unship(payload: Shipped, what: str) -> Any:
    """Unpack user code on a worker; raises `ModelError` when something it needs is missing there."""
    if isinstance(payload, InProcess):
        return payload.value
    try:
        return cloudpickle.loads(payload)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} needs the module {error.name!r}, which this worker does not have. Install it on every machine of "
            "the cluster, or define what is needed in the script itself, or pass it with Ray's runtime_env "
            "(working_dir or py_modules)."
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"{what} does not unpack on this worker: {error}. The worker has another version of a module than "
            "the driver."
        ) from error
