"""Attributes of classes and modules of Keras and TensorFlow that others stand for, for a while: `replaced`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def replaced(owner: object, /, **values: object) -> Iterator[None]:
    """Inside the block, let these values stand for attributes of a class or module, by name.

    What a class has only from its bases it has from them again after the block.
    """
    own = {name: value for name, value in vars(owner).items() if name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in own:
                setattr(owner, name, own[name])
            else:
                delattr(owner, name)


def replaced_here(owner: object, /, **functions: Callable[..., object]) -> contextlib.AbstractContextManager[None]:
    """As `replaced`, for functions, and in this thread alone: others call what was there before."""
    thread = threading.get_ident()

    def either(original: Callable[P, R], function: Callable[P, R]) -> Callable[P, R]:
        def called(*args: P.args, **named: P.kwargs) -> R:
            return (function if threading.get_ident() == thread else original)(*args, **named)

        return called

    return replaced(owner, **{name: either(vars(owner)[name], function) for name, function in functions.items()})
