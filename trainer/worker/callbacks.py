"""Keras callbacks in a group: the user's run on the chief, behind a gate that is in every worker's list.

Every worker holds its own copies of the callbacks; only the chief's run. After the hooks of an epoch the others take
over what the chief's changed (learning rate, stop flag, weights, optimizer state), and the state of the callbacks
themselves. A worker that becomes the chief goes on with its copies: it restores their states and runs the hooks that
its predecessor may not have finished.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import keras
from heliostat.cluster import instruments

from ..engine.private_api import is_default
from ..errors import ConfigurationError
from .callback_state import callback_state, prepare_take_over, restore_callback
from .session import Session

REFUSED = {
    "BackupAndRestore": "it restores one process and counts epochs by itself",
    "SwapEMAWeights": "it swaps weights around validation on the chief alone",
    "OrbaxCheckpoint": "its distributed mode is JAX's",
}
# The hooks around a step, and what Keras's own ones call.
_OLD_NAMES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


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
    return not _hooks_of(callback).isdisjoint(_OLD_NAMES)


def _hooks_of(callback: Any) -> set[str]:
    """The hooks that a callback has itself."""
    own = {name for name in dir(callback) if name.startswith("on_") and not is_default(getattr(callback, name))}
    return own | {name for name, old in _OLD_NAMES.items() if old in own}


class Gate(keras.callbacks.Callback):
    """Stands for the user's callbacks in a worker's list.

    Attributes:
        pending: hooks since the workers last agreed, which a new chief has to run; empty on the chief.
        states: the callbacks' states when the workers last agreed; None before the first time.
    """

    def __init__(self, session: Session, user: Sequence[Any]) -> None:
        super().__init__()
        self._session, self._user = session, tuple(user)
        self._hooks = set().union(*map(_hooks_of, self._user))  # before they run: the same on all workers
        if self._user:
            self._hooks.add("on_train_begin")  # gives them their model, before their state is asked for
        self._active = False
        self._last_logs: dict[str, Any] = {}
        self.pending: list[tuple[str, tuple[Any, ...]]] = []
        self.states: list[dict[str, Any]] | None = None
        session.gate = self

    def run(self, hook: str, *args: Any) -> None:
        """Run a hook of the user's callbacks, if one has it, here if this is the chief; otherwise remember it."""
        if hook not in self._hooks:
            return
        if self._session.is_chief and not self.pending:
            self._call(hook, *args)
        else:
            self.pending.append((hook, args))

    def catch_up(self) -> bool:
        """On a new chief: run what the last one may not have finished; returns whether that ends the epoch."""
        pending, self.pending = self.pending, []
        for hook, args in pending:
            ends_step = hook == "on_train_batch_end"
            if ends_step:
                self._session.engine.sync_variables()
                args = (args[0], self._session.current_logs())
            self._call(hook, *args)
            if ends_step and self._session.model.stop_training:
                return True
        return False

    def current_states(self) -> list[dict[str, Any]]:
        """The callbacks' states: on the chief as they are, elsewhere as they were when the workers last agreed."""
        if self._active and self._session.is_chief:
            return [callback_state(callback) for callback in self._user]
        return self.states or [{} for _ in self._user]

    def synced(self) -> None:
        """All workers have agreed."""
        self.pending = []
        if self.states is None:
            self.states = [{} for _ in self._user]

    def _call(self, hook: str, *args: Any) -> None:
        """Call a hook of all callbacks with the same logs, to which each may add for those after it."""
        self._activate()
        began = time.perf_counter()
        try:
            for callback in self._user:
                getattr(callback, hook)(*args)
        except Exception:
            self._session.member.step = self._session.position
            raise
        instruments.note(hook, began)

    def _activate(self) -> None:
        """Give the callbacks their model; make them go on where another chief's stopped, if there was one."""
        if not self._active:
            self._active = True
            os.makedirs(self._session.job.run_dir, exist_ok=True)
            os.chdir(self._session.job.run_dir)  # callbacks' relative paths are relative to the run folder
            keras.callbacks.CallbackList(
                list(self._user),
                model=self._session.model,
                epochs=self._session.job.wanted.epochs,
                steps=self._session.engine.steps_per_epoch,
                verbose=0,
            )
            if self.states is not None:
                self._take_over(self.states)

    def _take_over(self, states: Sequence[dict[str, Any]]) -> None:
        for callback in self._user:
            prepare_take_over(callback)
        with self._session.state_kept():  # what on_train_begin did to the model, it did when the run began
            for callback in self._user:
                callback.on_train_begin({})
        for callback, state in zip(self._user, states, strict=True):
            restore_callback(callback, state)

    # -- the hooks of Keras ---------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""
        if self._session.resumed:
            return
        self._note()
        self.run("on_train_begin", {})
        self._session.follow_chief()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the epoch here, in all three loops."""
        self._session.start_epoch(epoch)
        if self._session.begun or "on_epoch_begin" not in self._hooks:
            return
        self._note()
        self.run("on_epoch_begin", epoch, {})
        self._session.follow_chief()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """The epoch's numbers are known: the user's callbacks see them, and may add to them."""
        logs = {} if logs is None else logs
        if self._session.stopping:
            self._session.model.stop_training = True
        if "on_epoch_end" in self._hooks:
            self._note()
        self.run("on_epoch_end", epoch, logs)
        self._session.follow_chief(logs)
        self._last_logs = dict(logs)
        self._session.epoch_over()

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch: weights that a callback put back count."""
        self._note()
        self.run("on_train_end", dict(self._last_logs))
        self._session.follow_chief()

    def _note(self) -> None:
        if self._session.is_chief and self._user:
            self._session.before_callbacks()


class MeetingGate(Gate):
    """The gate of Keras's own `fit`, which leaves validation and the meeting of the workers to it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate, meet, and put the global numbers where callbacks find them."""
        validate(self._session)
        logs.update(self._session.finish_epoch())
        super().on_epoch_end(epoch, logs)


class _BatchHooks(Gate):
    """Hooks around steps; only in the list if a callback has any, since Keras calls them at every step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a step."""
        session = self._session
        if batch >= session.first_step and not (session.begun and batch == session.first_step) and not session.left:
            self.run("on_train_batch_begin", batch, {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step."""
        if batch >= self._session.first_step and not self._session.left:
            self.run("on_train_batch_end", batch, dict(logs or {}))


class BatchGate(_BatchHooks, Gate):
    """A gate with hooks around steps."""


class BatchMeetingGate(_BatchHooks, MeetingGate):
    """A gate of Keras's own `fit` with hooks around steps."""


def make_gate(session: Session, user: Sequence[Any], *, meets: bool) -> Gate:
    """The gate for a loop; `meets` for Keras's own `fit`."""
    if session.batch_hooks:
        return BatchMeetingGate(session, user) if meets else BatchGate(session, user)
    return MeetingGate(session, user) if meets else Gate(session, user)


def callback_list(session: Session, gate: Gate) -> keras.callbacks.CallbackList:
    """The callbacks of one worker: the gate, and Keras's history."""
    return keras.callbacks.CallbackList(
        [gate],
        add_history=True,
        model=session.model,
        epochs=session.job.wanted.epochs,
        steps=session.engine.steps_per_epoch,
        verbose=0,
    )


def validate(session: Session) -> None:
    """This worker's shards of the validation pass; the chief's callbacks hear of its batches."""
    gate = session.gate
    if session.evaluator is None or gate is None:
        return
    gate.run("on_test_begin", {})
    for batch, ticket in enumerate(session.validation_batches()):
        gate.run("on_test_batch_begin", batch, {})
        session.test_function(iter([ticket]))
        gate.run("on_test_batch_end", batch, {})
    gate.run("on_test_end", {})
