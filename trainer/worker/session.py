"""What the three loops share on a worker: steps, passes, the end of an epoch, and following the chief."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.membership import Member

from ..checkpoints.snapshot import Snapshot, make_snapshot, restore_state
from ..checkpoints.values import pack, unpack
from ..engine import private_api
from ..engine.evaluate import Evaluator
from ..engine.model import BuiltModel
from ..engine.state import assign_state, state_bytes, state_digest
from ..engine.step import Step
from ..environment import ReplayWanted
from ..errors import NonfiniteGradientError
from ..jobs import EpochLogs, EpochPart, FitJob, PassSum, Progress, Shard, ShardResult
from .replay import replay_step
from .saver import Saver
from .tracer import Tracer

if TYPE_CHECKING:
    from .callbacks import Gate

# The chief's callbacks may take long (a checkpoint, a plot): its peers wait for it, its death still ends the wait.
CALLBACK_DEADLINE_S = 24 * 3600.0
PROGRESS_EVERY_S = 0.2
MAX_PAYLOAD_BYTES = 1 << 40
_FRAME = struct.Struct("<d???")  # learning rate, stop after this step, no step follows, callbacks' states follow
_HEADER = struct.Struct("<??Q")  # stop, callbacks' states follow, bytes of training state


class Session:
    """One run on one worker.

    Args:
        job: what to train.
        built: the model.
        engine: trains.
        evaluator: validates, or None.
        member: this worker's membership in the group.
        has_callbacks: whether there are callbacks of the user's.
        batch_hooks: whether they act between steps; then a small frame precedes every step.

    `on_first_step` is called once, after the first step here.
    """

    def __init__(
        self,
        job: FitJob,
        built: BuiltModel,
        engine: Step,
        evaluator: Evaluator | None,
        member: Member,
        *,
        has_callbacks: bool,
        batch_hooks: bool,
    ) -> None:
        self.job, self.model, self.engine, self.evaluator = job, built.model, engine, evaluator
        self.member, self.batch_hooks, self._has_callbacks = member, batch_hooks, has_callbacks
        self._built = built
        self.gate: Gate | None = None
        self.on_first_step: Callable[[], None] | None = None
        self.tracer: Tracer | None = None
        self.epoch = self._first_epoch = job.wanted.initial_epoch
        self.steps_done = self.first_step = 0
        self.resumed = self.begun = False  # the run, or its first epoch here, has begun elsewhere
        self._framed = self._stopped = self._entered = False
        self._restored: Snapshot | None = None
        self._row_ids: list[tuple[tuple[int, ...], ...]] = []
        self._logs: dict[str, Any] = {}
        self._next_progress_s = self._stepped_s = 0.0
        self._digest = ""
        self._states = b""
        self._left = False
        self._epoch_names: list[str] = []
        self._passed: PassSum | None = None
        self._passed_epoch = False
        self.saver = Saver(job.wanted, member, job.first_generation, self.snapshot)

    @property
    def is_chief(self) -> bool:
        """Whether the user's callbacks run here."""
        return self.member.is_chief

    @property
    def position(self) -> int:
        """The step of the run that is being computed, counted from 0."""
        return self.epoch * self.engine.steps_per_epoch + self.steps_done

    # -- steps ----------------------------------------------------------------------------------------------------

    def epochs(self) -> range:
        """Numbers of the epochs to train."""
        return range(self._first_epoch, self.job.wanted.epochs)

    def batches(self) -> Iterator[np.ndarray]:
        """Tickets of one epoch: int64 ``[1]`` step numbers; the rows are read inside the step."""
        for step in range(self.engine.steps_per_epoch):
            yield np.array([step], np.int64)

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch, before any callback hears of it; one that was begun elsewhere goes on."""
        self._entered = True
        self.epoch, self.steps_done, self._left, self._passed = epoch, 0, False, None
        self._row_ids, self._logs, self._stepped_s = [], {}, 0.0
        self.engine.start_epoch(epoch)
        self.begun = self._restored is not None and self._restored.begun
        self.first_step = 0
        if self._restored is not None and self.begun:
            self._go_on(self._restored)
        self._restored = None
        self.member.step = self.position

    def train(self, ticket: Any) -> dict[str, Any]:
        """One step. Returns the global logs of the epoch so far, or the last known where nobody looks at them."""
        step = int(np.ravel(ticket)[0])
        if step < self.first_step or self._left:
            return self._logs
        if self.tracer is not None:
            if self._stepped_s:
                instruments.note("rest", self._stepped_s)
            self.tracer.before_step(self.position)
        times, began = self.engine.times, time.perf_counter()
        times.rest_s += began - (self._stepped_s or began)
        self.member.step = self.position
        if self.job.replay is not None and self.position == self.job.replay.step:
            self._replay(self.job.replay)
        if not self._framed:
            self.saver.before_step(self.position)
            if self.batch_hooks and not self._follow_frame():
                return self._logs
        self._framed = True
        times.control_s += time.perf_counter() - began
        instruments.note("control", began)
        try:
            self.engine.run(step)
        except NonfiniteGradientError:
            if self.is_chief:
                self.saver.save_now(self.position)  # nothing of the step was applied: it can be looked at, or resumed
            raise
        self._framed, self._stepped_s = False, time.perf_counter()
        instruments.note("step", began)
        if self.on_first_step is not None:
            self.on_first_step()
            self.on_first_step = None
        self.steps_done = step + 1
        if self.job.wanted.record_rows:
            self._row_ids.append(self.engine.row_ids(step))
        self._show(last=self.steps_done == self.engine.steps_per_epoch)
        return self._logs

    def _replay(self, wanted: ReplayWanted) -> None:
        """Compute the step again instead of applying it, and end the task."""
        report = replay_step(self.engine, self.epoch, self.steps_done, wanted)
        self.member.deliver = lambda at_end: report
        self.member.end()

    def train_function(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """What Keras calls for every step, in place of its own function."""
        ticket = next(iterator)
        return self.train(ticket[0] if isinstance(ticket, tuple) else ticket)

    def current_logs(self) -> dict[str, Any]:
        """Global logs of the epoch so far."""
        return self.engine.metrics.logs()

    # -- validation and the end of an epoch -----------------------------------------------------------------------

    def validation_batches(self) -> Iterator[np.ndarray]:
        """Tickets of this worker's shards of the validation pass; more if another worker is lost meanwhile."""
        answer = self._meet()
        while isinstance(answer, Shard) and self.evaluator is not None:
            self.member.note_activity("validation")
            yield from self.evaluator.start(answer.lo, answer.hi)
            nodes, rows = self.evaluator.finish()
            result = ShardResult(shard=answer, nodes=nodes, rows=rows)
            answer = self.member.ask(result, "waiting for others to validate")
        self._passed = answer

    def test_function(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """What Keras calls for every batch of validation; results are known when all workers have met."""
        if self.evaluator is not None:
            ticket = next(iterator)
            self.member.poll()
            instruments.fault_point("validation", self.member.step)
            began = time.perf_counter()
            self.evaluator.step(int(np.ravel(ticket[0] if isinstance(ticket, tuple) else ticket)[0]))
            instruments.note("validation", began)
        return {}

    def finish_epoch(self) -> dict[str, Any]:
        """The epoch's global logs, after training and validation."""
        passed = self._passed if self._passed is not None else self._meet()
        logs = self.engine.metrics.logs()
        if self.evaluator is not None:
            _, sums, maxima = passed.vector
            validated = self.evaluator.logs(sums, maxima, passed.rows)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        self._epoch_names = list(logs)
        return logs

    def _meet(self) -> Any:
        """Tell the driver how the epoch's training ended; returns its answer: a shard of validation, or its result."""
        if self.batch_hooks and not self._left:
            self._follow_frame(leave=True)  # changes after the last step; after a stop some wait for the next
        began = time.perf_counter()
        self.engine.sync_variables()
        digest = state_digest(self._built)
        if self._has_callbacks:
            self._digest = digest
        part = EpochPart(
            epoch=self.epoch,
            logs=self.engine.metrics.logs(),
            digest=digest,
            rows=self.engine.metrics.sums.rows,
            rows_by_worker=dict(self.engine.rows_by_worker),
            times=self.engine.times_by_name(),
            num_microbatches=0 if self.evaluator is None else self.evaluator.num_microbatches,
            row_ids=tuple(self._row_ids),
        )
        instruments.note("metrics and digest", began)
        return self.member.ask(part, "waiting for the others at the end of the epoch")

    # -- following the chief --------------------------------------------------------------------------------------

    def before_callbacks(self) -> None:
        """Note the state before user callbacks run on the chief, unless that was done when the workers met."""
        self._digest = self._digest or state_digest(self._built)

    def follow_chief(self, epoch_logs: dict[str, Any] | None = None) -> None:
        """After user callbacks: take over the stop flag, their states, and the whole state if they changed any of it.

        With `epoch_logs` the chief also publishes the numbers of the epoch.
        """
        gate = self._the_gate()
        if epoch_logs is None and not self._has_callbacks:
            return

        def produce() -> bytes:
            if gate.pending:  # this worker has become the chief in the middle of its callbacks
                self.before_callbacks()
            gate.catch_up()
            if epoch_logs is not None:
                self._publish(epoch_logs)
            changed = self._digest and state_digest(self._built) != self._digest
            state = state_bytes(self._built) if changed else b""
            states = self._changed_states(gate)
            return (
                _HEADER.pack(bool(self.model.stop_training), states is not None, len(state)) + state + (states or b"")
            )

        payload = self.member.broadcast(produce, MAX_PAYLOAD_BYTES, CALLBACK_DEADLINE_S)
        self._digest = ""
        stop, with_states, length = _HEADER.unpack_from(payload)
        self.model.stop_training = stop
        if not self.is_chief and length:
            assign_state(self._built, payload[_HEADER.size : _HEADER.size + length])
        self._take_states(gate, payload[_HEADER.size + length :] if with_states else None)

    def _follow_frame(self, *, leave: bool = False) -> bool:
        """Before a step, and once after an epoch's last: take over learning rate and stop flag from the chief.

        Returns:
            False when there is no step to compute: callbacks ended the epoch on the chief.
        """
        gate = self._the_gate()

        def produce() -> bytes:
            over = gate.catch_up() or leave
            states = self._changed_states(gate)
            frame = _FRAME.pack(self._learning_rate(), bool(self.model.stop_training), over, states is not None)
            return frame + (states or b"")

        payload = self.member.broadcast(produce, MAX_PAYLOAD_BYTES, CALLBACK_DEADLINE_S)
        rate, stop, self._left, with_states = _FRAME.unpack_from(payload)
        self.model.stop_training = stop
        if not self.is_chief:
            self._set_learning_rate(rate)
        self._take_states(gate, payload[_FRAME.size :] if with_states else None)
        return not self._left

    def _changed_states(self, gate: Gate) -> bytes | None:
        """The states of the chief's callbacks, if they differ from those that all workers have."""
        packed = pack(gate.current_states())
        return None if packed == self._states else packed

    def _take_states(self, gate: Gate, packed: bytes | None) -> None:
        if packed is not None:
            self._states = packed
            gate.states = unpack(packed)
        gate.synced()

    def _publish(self, logs: dict[str, Any]) -> None:
        """Tell the driver the epoch's numbers, once the chief's callbacks have run."""
        ordered = {name: logs[name] for name in dict.fromkeys([*self._epoch_names, *logs]) if name in logs}
        event = EpochLogs(epoch=self.epoch, logs=_plain(ordered), stopped=bool(self.model.stop_training))
        self.member.mailbox.ask(event)

    # -- saving and restoring -------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """A copy of the state as it is now, between two steps."""
        self.engine.sync_variables()
        gate = self._the_gate()
        over = self._passed_epoch
        totals = self.engine.metrics.sums
        return make_snapshot(
            self._built,
            epoch=self.epoch + 1 if over else self.epoch,
            step=0 if over else self.steps_done,
            begun=not over,
            totals={} if over else {"sums": totals.sums.copy(), "extrema": totals.maxima.copy()},
            extra={
                "new": not self._entered,
                "callbacks": gate.current_states(),
                "rows": totals.rows,
                "rows_by_worker": {str(worker): rows for worker, rows in self.engine.rows_by_worker.items()},
                "row_ids": [] if over else [[list(ids) for ids in step] for step in self._row_ids],
                "framed": self._framed,
                "stopping": bool(self.model.stop_training) and not over,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot; before the loop begins."""
        self.resumed = self._entered = True
        self._restored = snapshot
        self._first_epoch = self.epoch = snapshot.epoch
        self.steps_done = snapshot.step
        restore_state(self._built, snapshot)
        gate = self._the_gate()
        gate.states = snapshot.values()["callbacks"]
        self._states = pack(gate.states)
        self.member.step = self.position

    def _go_on(self, snapshot: Snapshot) -> None:
        """In the middle of an epoch that was begun elsewhere."""
        totals, extra = snapshot.totals, snapshot.values()
        self.steps_done = self.first_step = snapshot.step
        self.engine.resume_epoch(
            totals["sums"], totals["extrema"], extra["rows"], {int(w): n for w, n in extra["rows_by_worker"].items()}
        )
        self._row_ids = [tuple(tuple(ids) for ids in step) for step in extra["row_ids"]]
        self._framed = extra["framed"]
        self._stopped = extra["stopping"]
        if self._stopped:
            self.first_step, self._left = self.engine.steps_per_epoch, True

    @contextlib.contextmanager
    def state_kept(self) -> Iterator[None]:
        """Put the training state back as it was before the block."""
        self.engine.sync_variables()
        kept, stop = state_bytes(self._built), self.model.stop_training
        yield
        self.engine.sync_variables()
        assign_state(self._built, kept)
        self.model.stop_training = stop

    @property
    def left(self) -> bool:
        """Whether the epoch's steps are over, because callbacks ended it."""
        return self._left

    @property
    def stopping(self) -> bool:
        """Whether callbacks had stopped the run before it came here; the epoch is still to be finished."""
        return self._stopped

    def epoch_over(self) -> None:
        """The epoch is over on all workers: make a checkpoint if one is due."""
        last = self.epoch + 1 >= self.job.wanted.epochs or bool(self.model.stop_training)
        self._passed_epoch = True
        try:
            self.saver.after_epoch((self.epoch + 1) * self.engine.steps_per_epoch, last=last)
        finally:
            self._passed_epoch = False

    # -- small helpers --------------------------------------------------------------------------------------------

    def _show(self, *, last: bool) -> None:
        acts = self.batch_hooks and self.is_chief
        if last or acts:
            self.engine.sync_variables()
        now = time.monotonic()
        show = self.is_chief and (now >= self._next_progress_s or last)
        if last or show or acts:
            self._logs = self.engine.metrics.logs()
        if show:
            self._next_progress_s = now + PROGRESS_EVERY_S
            self.member.mailbox.tell(
                Progress(
                    epoch=self.epoch,
                    step=self.steps_done,
                    steps=self.engine.steps_per_epoch,
                    rows=self.engine.metrics.sums.rows,
                    logs=_plain(self._logs),
                    num_workers=self.member.num_workers,
                )
            )

    def _the_gate(self) -> Gate:
        if self.gate is None:
            raise RuntimeError("the session has no gate yet")
        return self.gate

    def _rate_variable(self) -> Any | None:
        optimizer = self._built.optimizer
        rate = private_api.learning_rate(private_api.inner_optimizer(optimizer) or optimizer)
        return rate if isinstance(rate, keras.Variable) else None

    def _learning_rate(self) -> float:
        variable = self._rate_variable()
        return 0.0 if variable is None else float(self._built.components(variable)[0].numpy())

    def _set_learning_rate(self, rate: float) -> None:
        variable = self._rate_variable()
        if variable is not None and self._learning_rate() != rate:
            for part in self._built.components(variable):
                part.assign(rate)


def _plain(logs: dict[str, Any]) -> dict[str, Any]:
    """Logs as plain Python numbers, whatever a callback put in."""
    return {name: value if isinstance(value, list) else _number(value) for name, value in logs.items()}


def _number(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiub" else value
