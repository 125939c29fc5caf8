"""What the three loops share on a worker: steps, the meeting at the end of an epoch, and following the chief."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from heliostat.cluster.host import TaskContext

from .engine import Evaluator, TrainEngine
from .jobs import EpochLogs, EpochPart, FitJob, Progress, ValidationPart
from .state import assign_state, num_state_bytes, state_bytes, state_digest
from .trainee import Trainee

# The chief's callbacks may take long (a checkpoint, a plot): its peers wait for it, its death still ends the wait.
CALLBACK_DEADLINE_S = 24 * 3600.0
PROGRESS_EVERY_S = 0.2
_FRAME = struct.Struct("<d??")  # learning rate, stop after this step, no step follows


class Session:
    """One run on one worker.

    Args:
        job: what to train.
        trainee: the model.
        engine: trains.
        evaluator: validates, or None.
        context: the worker's place in the group.
        batch_hooks: whether the chief's callbacks act between steps; then a small frame precedes every step.
    """

    def __init__(
        self,
        job: FitJob,
        trainee: Trainee,
        engine: TrainEngine,
        evaluator: Evaluator | None,
        context: TaskContext,
        batch_hooks: bool,
    ) -> None:
        self.job, self.model, self.engine, self.evaluator = job, trainee.model, engine, evaluator
        self._trainee, self._context, self._batch_hooks = trainee, context, batch_hooks
        self.is_chief = context.rank == 0
        self.epoch = job.initial_epoch
        self.steps_done = 0
        self._row_ids: list[tuple[int, ...]] = []
        self._logs: dict[str, Any] = {}
        self._next_progress_s = 0.0
        self._digest = ""
        self._left = False
        self._epoch_names: list[str] = []

    @property
    def position(self) -> int:
        """The step of the run that is being computed, counted from 0."""
        return self.epoch * self.engine.steps_per_epoch + self.steps_done

    def epochs(self) -> range:
        """Numbers of the epochs to train."""
        return range(self.job.initial_epoch, self.job.epochs)

    def batches(self) -> Iterator[np.ndarray]:
        """Tickets of one epoch: int64 ``[1]`` step numbers; the rows are read inside the step."""
        for step in range(self.engine.steps_per_epoch):
            yield np.array([step], np.int64)

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch, before any callback hears of it."""
        self.epoch, self.steps_done, self._row_ids, self._left = epoch, 0, [], False
        self.engine.start_epoch(epoch)

    def train(self, ticket: Any) -> dict[str, Any]:
        """One step. Returns the global logs of the epoch so far, or the last known where nobody looks at them."""
        step = int(np.ravel(ticket)[0])
        if self._batch_hooks and not self._follow_frame():
            return self._logs
        self.engine.step(step)
        self.steps_done = step + 1
        if self.job.record_rows:
            self._row_ids.append(tuple(self.engine.my_row_ids(step)))
        last = self.steps_done == self.engine.steps_per_epoch
        if last or (self._batch_hooks and self.is_chief):
            self.engine.publish()
        now = time.monotonic()
        show = self.is_chief and (now >= self._next_progress_s or last)
        if last or show or (self._batch_hooks and self.is_chief):
            self._logs = self.engine.logs()
        if show:
            self._next_progress_s = now + PROGRESS_EVERY_S
            self._tell_progress()
        return self._logs

    def train_function(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """What Keras calls for every step, in place of its own function."""
        ticket = next(iterator)
        return self.train(ticket[0] if isinstance(ticket, tuple) else ticket)

    def validation_batches(self) -> Iterator[np.ndarray]:
        """Tickets of this worker's share of the validation pass; none without validation data."""
        if self.evaluator is not None:
            yield from self.evaluator.start(self._context.rank, self._context.num_workers)

    def test_function(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """What Keras calls for every batch of validation; results are known when all workers have met."""
        if self.evaluator is not None:
            ticket = next(iterator)
            self.evaluator.step(int(np.ravel(ticket[0] if isinstance(ticket, tuple) else ticket)[0]))
        return {}

    def finish_epoch(self) -> dict[str, Any]:
        """Meet the other workers at the driver, after training and validation; returns the epoch's global logs."""
        if self._batch_hooks and not self._left:
            self._follow_frame(leave=True)  # changes after the last step; after a stop some wait for the next
        if self.steps_done < self.engine.steps_per_epoch:
            self.engine.publish()
        logs = self.engine.logs()
        validation = self._validation_part()
        part = EpochPart(
            epoch=self.epoch,
            logs=logs,
            digest=state_digest(self._trainee),
            rows=self.engine.own_rows,
            total_rows=self.engine.totals.rows,
            times=self.engine.times_by_name(),
            validation=validation,
            row_ids=tuple(self._row_ids),
        )
        answer = self._context.channel.ask(part)
        if self.evaluator is not None:
            _, sums, extrema = answer.vector
            validated = self.evaluator.logs(sums, extrema, answer.rows)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        self._epoch_names = list(logs)
        return logs

    def publish(self, logs: dict[str, Any]) -> None:
        """Tell the driver the epoch's numbers, once the chief's callbacks have run."""
        if self.is_chief:
            ordered = {name: logs[name] for name in dict.fromkeys([*self._epoch_names, *logs]) if name in logs}
            self._context.channel.tell(EpochLogs(epoch=self.epoch, logs=_plain(ordered)))

    def before_callbacks(self) -> None:
        """Note the state before user callbacks run on the chief."""
        if self.is_chief and self.job.has_callbacks:
            self._digest = state_digest(self._trainee)

    def follow_chief(self) -> None:
        """After user callbacks: take over the stop flag, and the whole state if they changed any of it."""
        if not self.job.has_callbacks:
            return
        header = None
        if self.is_chief:
            changed = state_digest(self._trainee) != self._digest
            header = struct.pack("<??", changed, bool(self.model.stop_training))
        changed, stop = struct.unpack("<??", self._broadcast(header, 2))
        self.model.stop_training = stop
        if changed:
            limit = num_state_bytes(self._trainee)
            payload = self._broadcast(state_bytes(self._trainee) if self.is_chief else None, limit)
            if not self.is_chief:
                assign_state(self._trainee, payload)

    def _follow_frame(self, *, leave: bool = False) -> bool:
        """Before a step, and once after an epoch's last: take over learning rate and stop flag from the chief.

        Returns:
            False when there is no step to compute: callbacks ended the epoch on the chief.
        """
        own = _FRAME.pack(self._learning_rate(), bool(self.model.stop_training), leave) if self.is_chief else None
        rate, stop, self._left = _FRAME.unpack(self._broadcast(own, _FRAME.size))
        if not self.is_chief:
            self.model.stop_training = stop
            self._set_learning_rate(rate)
        return not self._left

    def _broadcast(self, payload: bytes | None, max_bytes: int) -> bytes:
        context = self._context
        return context.collective.broadcast(
            context.numbers(), payload, root=0, max_bytes=max_bytes, deadline_s=CALLBACK_DEADLINE_S
        )

    def _rate_variable(self) -> Any | None:
        optimizer = getattr(self._trainee.optimizer, "inner_optimizer", self._trainee.optimizer)
        rate = optimizer._learning_rate
        return rate if isinstance(rate, keras.Variable) else None

    def _learning_rate(self) -> float:
        variable = self._rate_variable()
        return 0.0 if variable is None else float(self._trainee.components(variable)[0].numpy())

    def _set_learning_rate(self, rate: float) -> None:
        variable = self._rate_variable()
        if variable is not None and self._learning_rate() != rate:
            for part in self._trainee.components(variable):
                part.assign(rate)

    def _validation_part(self) -> ValidationPart | None:
        if self.evaluator is None:
            return None
        nodes, rows = self.evaluator.finish()
        return ValidationPart(nodes=nodes, num_leaves=self.evaluator.num_leaves, rows=rows)

    def _tell_progress(self) -> None:
        progress = Progress(
            epoch=self.epoch,
            step=self.steps_done,
            steps=self.engine.steps_per_epoch,
            rows=self.engine.totals.rows,
            logs=_plain(self._logs),
        )
        self._context.channel.tell(progress)


def _plain(logs: dict[str, Any]) -> dict[str, Any]:
    """Logs as plain Python numbers, whatever a callback put in."""
    return {name: value if isinstance(value, list) else _number(value) for name, value in logs.items()}


def _number(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiub" else value
