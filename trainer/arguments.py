"""Arguments that a user gives `Trainer`, `fit`, `evaluate` and `predict`, as far as their names and functions go.

A custom step is tried with the arguments that it will be given, before anything starts. Values are checked where they
are kept (`config.py`), Keras's names for arguments are in `keras_arguments.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .code_digests import callback_digests, code_digests
from .config import FitConfig
from .errors import ConfigurationError
from .shipping import UserCode


def check_build_model(build_model: object) -> None:
    """Raise `ConfigurationError` for what is no function that makes models."""
    # Whether it is a model or layer is told without loading Keras.
    is_from_keras = any(base.__module__.partition(".")[0] == "keras" for base in type(build_model).__mro__)
    if not callable(build_model) or isinstance(build_model, type) or is_from_keras:
        raise ConfigurationError(
            f"build_model is {build_model!r}; it must be a function without arguments that returns a new, compiled "
            "keras.Model: every worker builds its own."
        )


def checked_weights(weights: object) -> tuple[np.ndarray, ...] | None:
    """The arrays that were given; None for those of `build_model`. Raises ConfigurationError for anything else."""
    if weights is None or (isinstance(weights, str) and weights == "new"):
        return None
    if isinstance(weights, (str, Mapping, np.ndarray)) or not isinstance(weights, Sequence):
        kind = repr(weights) if isinstance(weights, str) else f"a {type(weights).__name__}"
        raise ConfigurationError(
            f"initial_weights is {kind}; it takes a list of arrays as model.get_weights() gives them, or 'new' for "
            "those of build_model. Of a file: keras.models.load_model(path).get_weights()."
        )
    return tuple(np.asarray(weight) for weight in weights)


def check_prepare(prepare: Callable[..., Any] | None) -> None:
    """Raise `ConfigurationError` for what is no function of a model."""
    if prepare is None:
        return
    try:
        inspect.signature(prepare).bind("model")
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"prepare is called as prepare(model), which {getattr(prepare, '__name__', prepare)!r} does not take: "
            f"{error}."
        ) from error


def check_steps(wanted: FitConfig, code: UserCode) -> None:
    """Check the steps of the custom loop.

    Args:
        wanted: the loop, and whether rows have weights, which decides what a step is called with.
        code: has the steps.

    Raises:
        ConfigurationError: the loop takes no steps, or a step takes other arguments.
    """
    if wanted.loop != "custom" and (code.train_step is not None or code.valid_step is not None):
        raise ConfigurationError(
            f"train_step and valid_step belong to loop='custom', and loop is {wanted.loop!r}. To change the step of "
            "the other two ways, override train_step in a keras.Model subclass."
        )
    weight = ("sample_weight",) if wanted.columns.is_weighted else ()
    _check_step("train_step", code.train_step, ("model", "optimizer", "x", "y", *weight))
    weight = ("sample_weight",) if wanted.validation_columns.is_weighted else ()
    _check_step("valid_step", code.valid_step, ("model", "x", "y", *weight))


def _check_step(name: str, step: Callable[..., Any] | None, arguments: Sequence[str]) -> None:
    if step is None:
        return
    function = getattr(step, "python_function", step)
    if not callable(function):
        raise ConfigurationError(f"{name} is {step!r}, not a function of ({', '.join(arguments)}).")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"{name} is called as {name}({', '.join(arguments)}), which {getattr(step, '__name__', step)!r} does not "
            f"take: {error}."
        ) from error


def digests_of(code: UserCode, states: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Hashes of the user's steps and callbacks, by what they are of: to say what has changed when a run goes on.

    Args:
        code: the user's.
        states: see `callback_digests`.
    """
    steps = [step for step in (code.train_step, code.valid_step) if step is not None]
    return code_digests(*steps) | callback_digests(code.callbacks, states)
