"""Which hooks the user's callbacks have, and which callbacks cannot work in a group."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import keras
from keras.callbacks import Callback

from ..engine.private_api import is_default
from ..errors import ConfigurationError

REFUSED = {
    "BackupAndRestore": "it restores one process and counts epochs by itself. Leave it out: a run keeps checkpoints in "
    "its run_dir (checkpoint_every=), and the same command goes on from the last one",
    "OrbaxCheckpoint": "its distributed mode is JAX's. Use keras.callbacks.ModelCheckpoint, or the run's checkpoints",
}
# The hooks around a step, and what Keras's own ones call.
_OLD_NAMES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise `ConfigurationError` for what is no callback, and for callbacks that cannot work in a group."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigurationError(
                f"callbacks holds {callback!r}, a {type(callback).__name__}; it takes keras.callbacks.Callback objects."
            )
        for kind in type(callback).__mro__:
            if kind.__name__ in REFUSED and kind.__module__.startswith("keras."):
                raise ConfigurationError(
                    f"The callback {type(callback).__name__} is refused: {REFUSED[kind.__name__]}."
                )
        if isinstance(callback, keras.callbacks.TensorBoard) and find_spec("tensorboard") is None:
            raise ConfigurationError(
                "The callback TensorBoard needs the package tensorboard, which does not come with TensorFlow and is "
                "not installed here. Install it where the chief runs: pip install tensorboard."
            )


def hooks_of(callback: Callback) -> set[str]:
    """Names of the hooks that a callback has itself."""
    return {name for name in dir(callback) if name.startswith("on_") and has_hook(callback, name)}


def has_hook(callback: Callback, hook: str) -> bool:
    """Whether a callback has a hook itself, perhaps by its old name."""
    names = (hook, _OLD_NAMES.get(hook, hook))
    return not all(is_default(getattr(callback, name)) for name in names)


def has_batch_hooks(callbacks: Sequence[Callback]) -> bool:
    """Whether any callback looks at, or acts between, the steps of an epoch."""
    return any(_acts_in_steps(callback) for callback in callbacks)


def _acts_in_steps(callback: Callback) -> bool:
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq == "epoch":
        return False
    return not hooks_of(callback).isdisjoint(_OLD_NAMES)
