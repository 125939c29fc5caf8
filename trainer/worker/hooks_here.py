"""The user's callbacks on the worker that runs them: how a hook is called there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import keras
from heliostat.cluster import instruments
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member
from keras.callbacks import Callback

from ..engine.model import BuiltModel
from ..engine.times import TimeSplit
from ..jobs import FitJob
from .callback_hooks import has_hook
from .drawn_numbers import DrawnNumbers
from .epoch_logs import Logs
from .hook_model import HookModel
from .position import Position
from .printed import ChiefsWords


class HooksHere:
    """Calls hooks of callbacks, with the model as one device's and random numbers of their own.

    Args:
        callbacks: the user's, this worker's copies.
        built: the model.
        member: this worker's membership in the group.
        job: what is trained.
        position: where this worker is in the run.
        times: where this worker's time goes.

    Attributes:
        model: what hooks see.
        drawn: from where they draw.
        authors: of what is in the epoch's logs: names of callbacks' classes.
        is_set_up: the callbacks have their model.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        built: BuiltModel,
        member: Member,
        job: FitJob,
        position: Position,
        times: TimeSplit,
    ) -> None:
        self._callbacks, self._built, self._member = tuple(callbacks), built, member
        self._job, self._position, self._times = job, position, times
        self.model, self.drawn = HookModel(built), DrawnNumbers(built, job.settings.seed)
        self.authors: dict[str, str] = {}
        self.is_set_up = False
        self._words: ChiefsWords | None = None  # on a chief in a process of its own

    def set_up(self) -> None:
        """Give the callbacks their model."""
        self.is_set_up = True
        if not self._job.settings.local:
            self._words = ChiefsWords(self._member.worker, self._member.send)
        with self.model.shown(self._callbacks[0], "set_model"):
            keras.callbacks.CallbackList(
                list(self._callbacks),
                model=self._built.model,
                epochs=self._job.wanted.epochs,
                steps=self._position.steps_per_epoch,
                verbose=0,
            )

    def begin_again(self) -> None:
        """Let callbacks begin on a worker that has become the chief; that they may stop the run is of the past."""
        stop = self._built.model.stop_training
        with self.drawn.installed():
            for callback in self._callbacks:
                with self.model.shown(callback, "on_train_begin"):
                    callback.on_train_begin({})
        self._built.model.stop_training = stop

    def call(self, hook: str, args: tuple[Any, ...]) -> None:  # Any: what Keras gives to hooks
        """Call a hook of all callbacks with the same logs, to which each may add for those after it."""
        began_s = time.perf_counter()
        logs: Logs = args[-1] if hook == "on_epoch_end" else {}
        step, epoch = self._position.of_run, self._position.epoch
        heard = contextlib.nullcontext() if self._words is None else self._words.heard(hook, step, epoch)
        try:
            at_hooks = self._member.at_activity(Activity.CALLBACKS)
            with at_hooks, self._times.part("hooks", in_traces=False), heard, self.drawn.installed():
                for callback in self._callbacks:
                    if has_hook(callback, hook):
                        before, began = dict(logs), time.perf_counter()
                        with self.model.shown(callback, hook):
                            getattr(callback, hook)(*args)
                        self._times.note_hook(f"{type(callback).__name__}.{hook}", time.perf_counter() - began)
                        self._note_authors(callback, before, logs)
        except BaseException:  # sys.exit(), too
            self._member.step = self._position.of_run
            raise
        instruments.note(hook, began_s)

    def _note_authors(self, callback: Callback, before: Logs, logs: Logs) -> None:
        """Note which of an epoch's numbers are of this callback; `before` is what the logs were before its hook."""
        new = (name for name, value in logs.items() if name not in before or value is not before[name])
        self.authors |= dict.fromkeys(map(str, new), type(callback).__name__)
