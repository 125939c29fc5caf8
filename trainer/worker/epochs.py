"""What the three loops share: the hooks of an epoch, and what each of them means for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras

from .epoch_end import StepIndex
from .epoch_logs import Logs
from .session import Session


class SessionHooks(keras.callbacks.Callback):
    """In every worker's list of callbacks, where the user's would be: begins and ends epochs, and relays the hooks.

    Args:
        session: the run.
        validates: validate at an epoch's end, which Keras's own `fit` leaves to it.
    """

    def __init__(self, session: Session, *, validates: bool = False) -> None:
        super().__init__()
        self._session, self._relay, self._validates = session, session.relay, validates
        if self._relay.batch_hooks:  # Keras calls them at every step if there are any
            self.on_train_batch_begin, self.on_train_batch_end = self._before_step, self._after_step

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""
        if not self._session.resumed:
            self._relay.run_and_agree("on_train_begin", {})

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin the epoch here."""
        self._session.begin_epoch(epoch)
        if not self._session.position.begun_elsewhere:
            self._relay.run_and_agree("on_epoch_begin", epoch, {})

    def _before_step(self, batch: int, logs: Logs | None = None) -> None:
        position = self._session.position
        told_elsewhere = position.begun_elsewhere and batch == position.first_step
        if position.computes(batch) and not told_elsewhere:
            self._relay.run("on_train_batch_begin", batch, {})

    def _after_step(self, batch: int, logs: Logs | None = None) -> None:
        if self._session.position.computes(batch):
            self._relay.run("on_train_batch_end", batch, dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """The user's callbacks see the epoch's numbers, and may add to them; then it is over."""
        logs = {} if logs is None else logs
        if self._validates:
            validate(self._session, self._session.end.test)
        logs.clear()  # Keras sorts what it has
        logs.update(self._session.end.finish())
        self._relay.run_and_agree("on_epoch_end", epoch, logs, epoch_logs=logs)
        self._session.epoch_logs = dict(logs)
        self._session.end_epoch()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch: weights that a callback put back count."""
        self._relay.run_and_agree("on_train_end", dict(self._session.epoch_logs))


def callback_list(session: Session, *, validates: bool = False) -> keras.callbacks.CallbackList:
    """The callbacks of one worker: the session's, and Keras's history."""
    return keras.callbacks.CallbackList(
        [SessionHooks(session, validates=validates)],
        add_history=True,
        model=session.model,
        epochs=session.job.wanted.epochs,
        steps=session.position.steps_per_epoch,
        verbose=0,
    )


def epochs_of(session: Session, callbacks: keras.callbacks.CallbackList) -> Iterator[int]:
    """The epochs of a loop that is written in Python, with the hooks around each and around the whole.

    Args:
        session: the run.
        callbacks: its list. The caller trains and validates in every epoch.
    """
    model = session.model
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch in session.epochs():
        if not session.caller.wants_epoch(epoch, session.epoch_logs):
            session.end_run()
            break
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        yield epoch
        callbacks.on_epoch_end(epoch)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_variables)
    callbacks.on_train_end()


def validate(session: Session, test: Callable[[StepIndex], object]) -> None:
    """Do this worker's shards of the validation pass; the chief's callbacks hear of its batches, and may swap weights.

    Args:
        session: the run.
        test: computes one batch.
    """
    end, relay = session.end, session.relay
    if not end.validates:
        return
    end.meet()
    with session.times.part("validate", in_traces=False):
        relay.run_and_agree("on_test_begin", {})
        for index, batch in enumerate(end.batches()):
            relay.run("on_test_batch_begin", index, {})
            test(batch)
            relay.run("on_test_batch_end", index, {})
            session.tell_sample_if_due()
        relay.run_and_agree("on_test_end", end.validated())
