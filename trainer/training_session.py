"""A run step by step: the caller's own loop asks for every step, as with Keras's `train_on_batch`.

The run is one like any other, made by the driver's loop in a thread of its own: heartbeats, deadlines, recovery and
checkpoints go on, whatever the caller's thread does between two steps. This class is that thread's end of a `Dialogue`:
it knows the place at which the workers wait (`_at`), says what is wanted there, and waits to hear of the next one.

**Where a run goes on.** The caller's loop begins from its start each time, and the run where it was. So epochs and
steps that are done are passed over: `steps` yields those that are left, and what was set for them before does not count
again. A setting belongs to the call that follows it (`steps` of an epoch, a step, a validation): that is done, or not.

What was not done: steps that are granted ahead, which would hide the way to the driver and back, and leave the caller's
settings a step or more too late.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from .caller_words import CallerAsked, CallerWants
from .config import OPEN_END
from .driver.dialogue import Dialogue, RunEnded
from .driver.result import Result
from .errors import RunPausedError, SessionError

Logs = dict[str, Any]  # whatever metrics give


class TrainingSession:
    """A run whose steps the loop in its block asks for; made by `Trainer.session`.

    Leaving the block between two epochs finishes the run. Leaving it in the middle of an epoch, or by an error or
    Ctrl-C, pauses it with a checkpoint and frees the workers; the same command goes on.

    Args:
        make: makes the run, as `fit` does; called in a thread of its own.
        epochs: number of the last epoch.
        initial_epoch: number of the first.

    Example:
        >>> with trainer.session((x, y), batch_size=4, epochs=2, verbose=0) as s:
        ...     for epoch in range(2):
        ...         s.reset_metrics()
        ...         for step in s.steps(epoch):
        ...             logs = s.train_on_batch(step)
        >>> sorted(logs), len(s.result.history["loss"])
        (['loss', 'mae'], 2)
    """

    def __init__(self, make: Callable[[Dialogue], Result | None], epochs: int, initial_epoch: int) -> None:
        self._make, self._epochs, self._initial_epoch = make, epochs, initial_epoch
        self._dialogue = Dialogue()
        self._thread = threading.Thread(target=self._run, name="heliostat-session", daemon=True)
        self._at: CallerAsked | None = None  # where the workers wait; None before the block, and once the run is over
        self._ended: RunEnded | None = None
        self._entered: int | None = None  # the epoch whose steps were asked for last
        self._rate: float | None = None  # set, and not said yet
        self._next_test: int | None = None  # of a validation, the step that comes next
        self._logs: Logs = {}
        self._undo = contextlib.ExitStack()

    # -- the block ------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Begin the run, where no block does: in a cell of a notebook. Then `close` ends the session.

        Raises:
            what `Trainer.fit` raises before the first step.

        Example:
            >>> s = trainer.session((x, y), verbose=0, initial_weights="new").open()
            >>> for step in s.steps(0):
            ...     logs = s.train_on_batch(step)
            >>> s.close()
            >>> len(s.result.epochs)
            1
        """
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, self._on_signal)
            self._undo.callback(signal.signal, signal.SIGTERM, before)
        self._thread.start()
        try:
            self._hear()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def close(self) -> None:
        """What the end of the block does: finish the run, or pause it in the middle of an epoch."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as failed:
            self._leave(failed)
            raise
        self._leave(error)

    def _finish(self) -> None:
        """End the run, if the loop has left it between two epochs."""
        at = self._at
        if at is not None and at.is_trained:  # it was not validated
            at = self._go_on(keeps_rate=True)
        if at is not None and at.is_between_epochs and at.epoch > self._initial_epoch:
            self._go_on(ends=True)

    def _run(self) -> None:
        try:
            ended = RunEnded(result=self._make(self._dialogue))
        except BaseException as error:  # also of code that ends the program: it is the caller's to hear of
            ended = RunEnded(error=error)
        self._dialogue.news.put(ended)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._dialogue.pause(f"it was asked to by {signal.Signals(number).name}")

    def _leave(self, error: BaseException | None) -> None:
        """The block is over: pause the run, unless it has ended, and wait for that; say it with the caller's error."""
        with self._undo:
            if self._ended is None:
                by = "" if error is None else f" by {type(error).__name__}"
                self._dialogue.pause(f"the session was left {self._where()}{by}")
            while self._ended is None:
                with contextlib.suppress(RunPausedError):
                    self._hear()
        if error is not None and isinstance(paused := self._ended.error, RunPausedError) and paused is not error:
            error.add_note(str(paused))

    # -- the loop's calls -----------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that runs or comes next, counted from 0; those before are done.

        Example:
            >>> with trainer.session((x, y), epochs=1, verbose=0, initial_weights="new") as s:
            ...     for epoch in range(s.epoch, 1):
            ...         for step in s.steps(epoch):
            ...             logs = s.train_on_batch(step)
            ...     s.epoch
            1
        """
        return self._num_done() if self._at is None else self._at.epoch

    def steps(self, epoch: int) -> Iterator[int]:
        """Begin an epoch, or go on with it.

        Args:
            epoch: its number, counted from 0; epochs come in order. Of one that is done nothing is left.

        Returns:
            The numbers of its steps that are left, to be given to `train_on_batch` one after another.

        Raises:
            SessionError: it does not come now, or a step was passed over.
            what `Trainer.fit` raises.
        """
        at = self._usable("s.steps")
        if at is None:
            self._check_over(epoch)
            return iter(())
        if epoch >= self._epochs:
            raise SessionError.over(epoch, self._epochs)
        if epoch < at.epoch or (epoch == at.epoch != self._entered and not at.is_between_epochs):
            self._rate = None  # it was set when these steps were done
        if epoch == at.epoch + 1 and at.is_trained:
            at = self._go_on(keeps_rate=True)
        if at is not None and epoch == at.epoch and at.is_between_epochs:
            at = self._go_on()
        if at is not None and epoch > at.epoch:
            raise SessionError.out_of_turn(f"s.steps({epoch})", self._where())
        self._entered = epoch
        return self._steps_left(epoch)

    def train_on_batch(self, step: int) -> Logs:
        """Train one step: one global batch, of which every worker computes its part.

        Args:
            step: from `steps`.

        Returns:
            The global metrics of the epoch until now, by name.

        Raises:
            SessionError: it does not come now, or is no step.
            what `Trainer.fit` raises.
        """
        if not isinstance(step, numbers.Integral):
            raise SessionError.no_step("train_on_batch", step)
        at = self._usable("s.train_on_batch")
        if at is None or at.epoch != self._entered or at.is_trained or step != at.step:
            raise SessionError.out_of_turn(f"s.train_on_batch({step})", self._where())
        self._go_on()
        return dict(self._logs)

    def validation_steps(self, epoch: int) -> Iterator[int]:
        """The steps of the validation after an epoch, for `test_on_batch`; none after one that was validated.

        Args:
            epoch: its number. All its steps are done.

        Raises:
            SessionError: it does not come now, or a step was passed over.
        """
        at = self._usable("s.validation_steps")
        if at is not None and not at.num_validation_steps:
            raise SessionError.no_validation()
        if at is None or epoch < at.epoch:
            self._rate = None  # it was set before this validation
            return iter(())
        if epoch > at.epoch or not at.is_trained:
            raise SessionError.out_of_turn(f"s.validation_steps({epoch})", self._where())
        return self._validation_left(epoch, at.num_validation_steps)

    def test_on_batch(self, step: int) -> Logs:
        """Validate. The workers share all steps of the pass out among themselves, and do them at the first.

        Args:
            step: from `validation_steps`.

        Returns:
            The global metrics over all rows of the pass, by name; at each of its steps the same.

        Raises:
            SessionError: it does not come now, or is no step.
            what `Trainer.fit` raises.
        """
        if not isinstance(step, numbers.Integral):
            raise SessionError.no_step("test_on_batch", step)
        self._usable("s.test_on_batch")
        if step != self._next_test:
            raise SessionError.out_of_turn(f"s.test_on_batch({step})", self._where())
        if step == 0:
            self._go_on(validates=True)
            self._logs = {name[4:]: value for name, value in self._logs.items() if name.startswith("val_")}
        self._next_test = int(step) + 1
        return dict(self._logs)

    def reset_metrics(self) -> None:
        """Before an epoch or its validation, as in Keras; metrics begin anew there in any case.

        Raises:
            SessionError: in the middle of an epoch, whose metrics the run keeps.
        """
        at = self._usable("s.reset_metrics")
        if at is not None and at.epoch == self._entered and at.step > 0 and not at.is_trained:
            raise SessionError.in_an_epoch(at.step, at.epoch)

    @property
    def learning_rate(self) -> float:
        """That of the compiled model's optimizer. What is set holds from the next step on, on all workers.

        Raises:
            SessionError: there is none; it is set, and no number above 0, or a schedule decides it.
        """
        at = self._usable("s.learning_rate")
        if self._rate is not None:
            return self._rate
        if at is None:
            return float(self.result.model().optimizer.learning_rate)
        if at.learning_rate is None:
            raise SessionError.rate("...", "the model has no optimizer")
        return at.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        at = self._usable("s.learning_rate")
        if not isinstance(rate, numbers.Real) or not 0 < float(rate) < math.inf:
            raise SessionError.rate(rate, f"it is of type {type(rate).__name__} and no such number")
        if at is not None and (at.is_scheduled or at.learning_rate is None):
            raise SessionError.rate(rate, "a schedule decides it" if at.is_scheduled else "the model has no optimizer")
        self._rate = float(rate)

    @property
    def result(self) -> Result:
        """What came out, as of `fit`; there when the block is over.

        Raises:
            RunPausedError: the run was paused instead, or what has ended it.
            SessionError: it goes on.
        """
        if self._ended is None:
            raise SessionError.unfinished(f"it is {self._where()}")
        if self._ended.error is not None:
            raise self._ended.error
        if self._ended.result is None:
            raise SessionError.unfinished("it was not made")
        return self._ended.result

    # -- inside ---------------------------------------------------------------------------------------------------

    def _usable(self, what: str) -> CallerAsked | None:
        """Where the workers wait; None where the run is over.

        Args:
            what: is called, for messages.

        Raises:
            SessionError: outside of the block.
            what has ended the run.
        """
        if self._ended is not None and self._ended.error is not None:
            raise self._ended.error
        if self._at is None and self._ended is None:
            raise SessionError.not_open(what)
        return self._at

    def _go_on(self, *, validates: bool = False, ends: bool = False, keeps_rate: bool = False) -> CallerAsked | None:
        """Say what is wanted where the workers wait, and hear where they wait next; None where the run is over."""
        at = self._at
        if at is None:
            return None
        rate = None if keeps_rate or at.told else self._rate
        if not keeps_rate:
            self._rate = None
        self._dialogue.say(CallerWants(place=at.place, learning_rate=rate, validates=validates, ends=ends))
        self._hear()
        return self._at

    def _hear(self) -> None:
        """Wait until the workers wait, or the run is over. Raises what has ended it."""
        news = self._dialogue.news.get()
        if isinstance(news, CallerAsked):
            self._at, self._logs = news, news.logs
            return
        self._thread.join()
        self._at, self._ended = None, news
        if news.error is not None:
            raise news.error
        if news.result is None:
            sys.exit(0)  # a plan, a replay or a trace is done: see `environment`
        self._logs = news.result.epochs[-1].logs if news.result.epochs else {}

    def _steps_left(self, epoch: int) -> Iterator[int]:
        while (at := self._at) is not None and at.epoch == epoch and not at.is_between_epochs and not at.is_trained:
            yield at.step
            if self._at is at:
                raise SessionError.not_done("train_on_batch", at.step, epoch)

    def _validation_left(self, epoch: int, num_steps: int) -> Iterator[int]:
        for step in range(num_steps):
            self._next_test = step
            yield step
            if self._next_test == step:
                raise SessionError.not_done("test_on_batch", step, epoch)
        self._next_test = None

    def _num_done(self) -> int:
        """Number of the first epoch that was not trained, once the run is over."""
        ended = self._ended
        done = 0 if ended is None or ended.result is None else len(ended.result.epochs)
        return self._initial_epoch + done

    def _check_over(self, epoch: int) -> None:
        """Raise SessionError for an epoch that a finished run does not have, and nothing has ended it before."""
        ended, done = self._ended, self._num_done()
        if epoch >= self._epochs:
            raise SessionError.over(epoch, self._epochs)
        result = None if ended is None else ended.result
        if result is not None and self._epochs >= OPEN_END and epoch >= done and not result.epochs[-1].stopped:
            raise SessionError.over(epoch, done, result.run_dir)

    def _where(self) -> str:
        """Where the run is, for messages."""
        at = self._at
        if at is None:
            return "over" if self._ended is not None else "at its start"
        if at.is_between_epochs:
            return f"before epoch {at.epoch}"
        if at.is_trained:
            return f"after all {at.num_steps} steps of epoch {at.epoch}"
        return f"before step {at.step} of the {at.num_steps} of epoch {at.epoch}"
