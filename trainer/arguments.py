"""Arguments that a user gives `Trainer`, `fit`, `evaluate` and `predict`, as far as their names and functions go.

What Keras calls otherwise is answered with our name for it, and a custom step is tried with the arguments that it will
be given, before anything starts. Values are checked where they are kept (`config.py`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from .code_digests import callback_digests, code_digests
from .columns import Columns
from .config import LoopName
from .errors import ConfigurationError
from .shipping import UserCode

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_KERAS_NAMES = {
    "batch_size": "global_batch_size= (rows of one step over all workers)",
    "x": "the first argument, data: a dataset path or (x, y) arrays",
    "y": "the first argument, data: a dataset path or (x, y) arrays",
    "validation_split": "validation_data=: write the two parts with heliostat.data.write_dataset",
    "validation_batch_size": "global_batch_size=, which validation uses too; its results do not depend on it",
    "validation_steps": "validation_data=: a dataset with just the rows to validate on",
    "validation_freq": "nothing: validation runs after every epoch",
    "class_weight": "sample_weight=: a column with each row's weight",
    "steps": "nothing: evaluate and predict take all rows",
    "num_workers": "Trainer(workers=...)",
    "strategy": "Trainer(replicas_per_worker=...): each worker makes its own MirroredStrategy",
    "optimizer": "model.compile(optimizer=...) in build_model",
    "loss": "model.compile(loss=...) in build_model",
    "metrics": "model.compile(metrics=...) in build_model",
}


def refuses_unknown(name: str) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Answer arguments that `name` does not have, Keras's names above all, with ours: raises `ConfigurationError`."""

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        known = inspect.signature(function).parameters

        @functools.wraps(function)
        def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            for argument in kwargs:
                if argument not in known:
                    hint = _KERAS_NAMES.get(argument)
                    advice = f"Use {hint}." if hint else "See help(heliostat.trainer.Trainer)."
                    raise ConfigurationError(f"{name}() has no argument {argument!r}. {advice}")
            return function(*args, **kwargs)

        return checked

    return decorate


def check_build_model(build_model: object) -> None:
    """Raise `ConfigurationError` for what is no function that makes models."""
    # Whether it is a model or layer is told without loading Keras.
    is_from_keras = any(base.__module__.partition(".")[0] == "keras" for base in type(build_model).__mro__)
    if not callable(build_model) or isinstance(build_model, type) or is_from_keras:
        raise ConfigurationError(
            f"build_model is {build_model!r}; it must be a function without arguments that returns a new, compiled "
            "keras.Model: every worker builds its own."
        )


def checked_weights(weights: Sequence[np.ndarray] | str | None) -> tuple[np.ndarray, ...] | None:
    """The arrays that were given; None for those of `build_model`. Raises ConfigurationError for another text."""
    if isinstance(weights, str):
        if weights != "new":
            raise ConfigurationError(
                f"initial_weights={weights!r}; it takes a list of arrays, or 'new' for those of build_model."
            )
        return None
    return None if weights is None else tuple(np.asarray(weight) for weight in weights)


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


def check_steps(loop: LoopName, code: UserCode, columns: Columns) -> None:
    """Check the steps of the custom loop.

    Args:
        loop: the way to train.
        code: has the steps.
        columns: whether rows have weights decides what a step is called with.

    Raises:
        ConfigurationError: the loop takes no steps, or a step takes other arguments.
    """
    if loop != "custom" and (code.train_step is not None or code.valid_step is not None):
        raise ConfigurationError(
            f"train_step and valid_step belong to loop='custom', and loop is {loop!r}. To change the step of the other "
            "two ways, override train_step in a keras.Model subclass."
        )
    weight = () if columns.sample_weight is None else ("sample_weight",)
    _check_step("train_step", code.train_step, ("model", "optimizer", "x", "y", *weight))
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
