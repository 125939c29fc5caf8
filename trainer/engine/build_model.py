"""What the user's `build_model` returns: a compiled model, or a model and optimizers by name for the custom loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import keras

from ..errors import ModelError, NotCompiledError
from . import private_api

NamedOptimizers: TypeAlias = "Mapping[str, keras.optimizers.Optimizer]"
BuildModel: TypeAlias = "Callable[[], keras.Model | tuple[keras.Model, NamedOptimizers]]"


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is built in the block has the names and the initial weights of every model that is built with this seed.

    Callers hold `runtime.BUILD_LOCK`, and are in the scope of the model's strategy, if it has one.
    """
    with private_api.fresh_names():
        keras.utils.set_random_seed(seed)
        private_api.new_global_generator()
        yield


def called(build_model: BuildModel) -> tuple[keras.Model, NamedOptimizers | None]:
    """The model, and the optimizers that came with it; without `compile` it is compiled with the first of these."""
    made = build_model()
    model, named = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"build_model returned {type(made).__name__}, not a keras.Model. It takes no arguments and returns the "
            "compiled model, new at every call."
        )
    if named is None:
        return model, None
    if not named or not isinstance(named, dict) or not all(map(_is_optimizer, named.values())):
        raise ModelError(
            f"build_model returned a model and {named!r}. Beside the model it may return a dict of optimizers by name, "
            'such as {"g": keras.optimizers.Adam(), "d": keras.optimizers.Adam()}, which the step of the custom loop '
            "gets in place of one optimizer."
        )
    if not getattr(model, "compiled", False):
        keras.Model.compile(model, optimizer=next(iter(named.values())))  # it may have a compile() of its own
    return model, named


def _is_optimizer(value: object) -> bool:
    return isinstance(value, keras.optimizers.Optimizer)


def check_compiled(model: keras.Model) -> None:
    """Raise `NotCompiledError` where a model has no optimizer."""
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise NotCompiledError(
            f"build_model returned {model.name!r} without compile(). Call model.compile(optimizer=..., loss=..., "
            "metrics=[...]) in build_model; the custom loop takes its optimizer and metrics from there as well."
        )
