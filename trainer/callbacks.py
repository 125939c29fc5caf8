"""Keras callbacks in a group: the user's run on the chief, between two gates that run on every worker.

The opening gate comes first and the closing gate last in every worker's list. What user callbacks changed on the chief
between the two (learning rate, stop flag, weights, optimizer state) is taken over by the others in the closing gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import keras
from keras.src.utils.python_utils import is_default  # type: ignore[attr-defined]

from .errors import ConfigurationError
from .session import Session

REFUSED = {
    "BackupAndRestore": "it restores one process and counts epochs by itself",
    "SwapEMAWeights": "it swaps weights around validation on the chief alone",
    "OrbaxCheckpoint": "its distributed mode is JAX's",
}
_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise `ConfigurationError` for what is no callback, and for callbacks that cannot work in a group."""
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ConfigurationError(
                f"callbacks holds {callback!r}, a {type(callback).__name__}; it takes keras.callbacks.Callback objects."
            )
        name = type(callback).__name__
        if name in REFUSED and type(callback).__module__.startswith("keras."):
            raise ConfigurationError(f"The callback {name} is refused: {REFUSED[name]}. See docs/what-works.md.")
        if isinstance(callback, keras.callbacks.TensorBoard) and find_spec("tensorboard") is None:
            raise ConfigurationError(
                "The callback TensorBoard needs the package tensorboard, which comes not with TensorFlow and is not "
                "installed here. Install it where the chief runs: pip install tensorboard."
            )


def has_batch_hooks(callbacks: Sequence[Any]) -> bool:
    """Whether any callback looks at, or acts between, the steps of an epoch."""
    return any(_acts_in_steps(callback) for callback in callbacks)


def _acts_in_steps(callback: Any) -> bool:
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq == "epoch":
        return False
    return not all(is_default(getattr(callback, hook)) for hook in _BATCH_HOOKS)


class OpeningGate(keras.callbacks.Callback):
    """First in the list: notes the state before user callbacks see it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""
        self._session.before_callbacks()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the epoch here, in all three loops."""
        self._session.start_epoch(epoch)
        self._session.before_callbacks()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Training and validation of the epoch are done."""
        self._session.before_callbacks()

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch."""
        self._session.before_callbacks()


class MeetingGate(OpeningGate):
    """The opening gate of Keras's own `fit`, which leaves validation and the meeting of the workers to it."""

    def __init__(self, session: Session, test_hooks: keras.callbacks.CallbackList) -> None:
        super().__init__(session)
        self._test_hooks = test_hooks
        self._global_logs: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate, meet, and put the global numbers where the callbacks after this one find them."""
        validate(self._session, self._test_hooks)
        self._global_logs = self._session.finish_epoch()
        logs.update(self._global_logs)
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """The last epoch's numbers, with those of validation."""
        logs.update(self._global_logs)
        super().on_train_end(logs)


class ClosingGate(keras.callbacks.Callback):
    """Last in the list: the other workers take over what the chief's callbacks changed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""
        self._session.follow_chief()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before the epoch's first step."""
        self._session.follow_chief()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's numbers are final now."""
        self._session.publish(logs or {})
        self._session.follow_chief()

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch: weights that a callback put back count."""
        self._session.follow_chief()


def callback_list(session: Session, user: Sequence[Any], opening: OpeningGate) -> keras.callbacks.CallbackList:
    """The callbacks of one worker, with the gates around the user's."""
    return keras.callbacks.CallbackList(
        [opening, *user, ClosingGate(session)],
        add_history=True,
        model=session.model,
        epochs=session.job.epochs,
        steps=session.engine.steps_per_epoch,
        verbose=0,
    )


def callbacks_of_tests(session: Session, user: Sequence[Any]) -> keras.callbacks.CallbackList:
    """The user's callbacks alone, for their test hooks."""
    return keras.callbacks.CallbackList(list(user), model=session.model, steps=None, verbose=0)


def validate(session: Session, hooks: keras.callbacks.CallbackList) -> None:
    """This worker's share of the validation pass; the chief's callbacks hear of its batches."""
    if session.evaluator is None:
        return
    hooks.on_test_begin()
    for batch, ticket in enumerate(session.validation_batches()):
        hooks.on_test_batch_begin(batch)
        session.test_function(iter([ticket]))
        hooks.on_test_batch_end(batch)
    hooks.on_test_end()
