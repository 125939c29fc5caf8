"""One run on one worker, as its loop sees it: steps one after another, from wherever the run is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from heliostat.cluster import instruments
from heliostat.cluster.group.member import Member
from heliostat.data.views.arriving import ArrivingDataset
from keras.callbacks import Callback

from ..checkpoints.snapshot import Snapshot, make_snapshot, restore_state
from ..engine.evaluate import Evaluator
from ..engine.memory import OUT_OF_MEMORY, memory_exhausted
from ..engine.nonfinite import replay_step
from ..engine.step import Step
from ..engine.times import StartTimes
from ..environment import ReplayWanted
from ..errors import NonfiniteGradientError
from ..events import FirstStepDone
from ..jobs import FitJob, Progress, RowsWanted
from .callback_files import CallbackFiles
from .callback_relay import CallbackRelay
from .epoch_end import EpochEnd, StepIndex, index_of
from .epoch_logs import Logs
from .position import Position
from .saver import Saver
from .tracer import Tracer

PROGRESS_EVERY_S = 0.2


class Session:
    """One run on one worker.

    Args:
        job: what to train.
        engine: computes steps.
        evaluator: validates, or None.
        member: this worker's membership in the group.
        callbacks: the user's, this worker's copies.
        files: where they work.

    Attributes:
        model: the Keras model.
        position: where this worker is in the run.
        relay: the user's callbacks.
        end: the end of an epoch.
        saver: makes checkpoints.
        saved_files: the version of callbacks' files in the last of them; None before the first.
        resumed: the run has begun elsewhere.
    """

    def __init__(
        self,
        job: FitJob,
        engine: Step,
        evaluator: Evaluator | None,
        member: Member,
        callbacks: Sequence[Callback],
        files: CallbackFiles,
    ) -> None:
        self.job, self.engine, self._member, self._files = job, engine, member, files
        self.model: keras.Model = engine.built.model
        self.position = Position(epoch=job.wanted.initial_epoch, steps_per_epoch=engine.steps_per_epoch)
        self.relay = CallbackRelay(callbacks, engine, member, job, self.position, files)
        self.end = EpochEnd(engine, evaluator, member, self.relay, self.position, job.wanted)
        self.saver = Saver(job.wanted, member, job.first_generation, self._saved)
        self.saved_files: int | None = None
        self.resumed = False
        self._restored: Snapshot | None = None
        self._logs: Logs = {}
        self._part = -1  # of data that arrive, what was read last
        self._next_progress_s = self._stepped_s = self._began_s = 0.0
        self._start_times: StartTimes | None = None
        self._tracer = None if job.trace is None else Tracer(job.trace, member)

    @property
    def recorder(self) -> instruments.Recorder | None:
        """Takes spans for the trace that is asked for; None if none is."""
        return None if self._tracer is None else self._tracer.recorder

    def start(self, times: StartTimes) -> None:
        """The group stands and the loop begins: `times` tells where the time went until here."""
        self._start_times, self._began_s = times, time.perf_counter()

    def finish(self) -> None:
        """The loop is over: wait for the last checkpoint, tell the trace."""
        self.saver.finish()
        if self._tracer is not None:
            self._tracer.finish()

    # -- epochs and steps -----------------------------------------------------------------------------------------

    def epochs(self) -> range:
        """Numbers of the epochs to train."""
        return range(self.position.epoch, self.job.wanted.epochs)

    def batches(self) -> Iterator[StepIndex]:
        """The batches of an epoch: numbers of steps; the rows are read inside the step."""
        for step in range(self.engine.steps_per_epoch):
            yield np.array([step], np.int64)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, before any callback hears of it; one that was begun elsewhere goes on."""
        self.position.begin_epoch(epoch)
        self._logs, self._stepped_s = {}, 0.0
        self.engine.start_epoch(epoch)
        if self._restored is not None and self._restored.begun:
            self._go_on(self._restored)
        self._restored = None
        self._member.step = self.position.of_run

    def train(self, batch: StepIndex | tuple[StepIndex, ...]) -> Logs:
        """One step. Returns the global logs of the epoch so far, or the last known where nobody looks at them."""
        step, position = index_of(batch), self.position
        if not position.computes(step) or step >= self.engine.plan.steps_here:
            return self._logs
        self._want_rows()
        if self._tracer is not None:
            if self._stepped_s:
                instruments.note("rest", self._stepped_s)
            self._tracer.before_step(position.of_run)
        times, began = self.engine.times, time.perf_counter()
        times.rest_s += began - (self._stepped_s or began)
        self._member.step = position.of_run
        if self.job.replay is not None and position.of_run == self.job.replay.step:
            self._replay(self.job.replay)
        if not position.heard_chief:
            self.saver.before_step(position.of_run)
            self.relay.before_step()
            if position.steps_over:
                return self._logs
        position.heard_chief = True
        times.control_s += time.perf_counter() - began
        instruments.note("control", began)
        try:
            self.engine.run(step)
        except NonfiniteGradientError:
            if self._member.is_chief:
                self.saver.save_now(position.of_run)  # nothing of the step was applied: it can be looked at, or resumed
            raise
        except OUT_OF_MEMORY as error:
            settings = self.job.settings
            rows = settings.rows_per_microbatch(self.job.wanted.global_batch_size)
            raise memory_exhausted(self.engine.built, settings.total_microbatches, rows, error) from error
        position.heard_chief, self._stepped_s = False, time.perf_counter()
        self._files.all_heard()
        instruments.note("step", began)
        self._tell_first_step()
        position.step = step + 1
        if self.job.wanted.record_rows:
            position.row_ids.append(self.engine.row_ids(step))
        self._show(last=position.step == self.engine.plan.steps_here)
        return self._logs

    def _want_rows(self) -> None:
        """Tell the driver which part of data that arrive is read now, once for each."""
        if isinstance(data := self.job.data, ArrivingDataset):
            first = self.job.wanted.initial_epoch * self.position.steps_per_epoch
            part = data.parts.part_of(self.position.of_run - first)
            if part != self._part:
                self._part = part
                self._member.send(RowsWanted(part=part))

    def end_epoch(self) -> None:
        """The epoch is over on all workers: make a checkpoint if one is due."""
        last = self.position.epoch + 1 >= self.job.wanted.epochs or bool(self.model.stop_training)
        self.position.end_epoch()
        self.saver.after_epoch(self.position.of_run, last=last)

    def train_function(self, iterator: Iterator[StepIndex]) -> Logs:
        """What Keras calls for every step, in place of its own function."""
        return self.train(next(iterator))

    def test_function(self, iterator: Iterator[StepIndex]) -> Logs:
        """What Keras calls for every batch of validation, in place of its own function."""
        return self.end.test(next(iterator))

    def _replay(self, wanted: ReplayWanted) -> None:
        """Compute the step again instead of applying it, and end the task."""
        epoch, step = self.position.epoch, self.position.step
        engine = self.engine
        report = replay_step(engine.microbatches, engine.metrics, engine.numbering, epoch, step, wanted)
        self._member.deliver = lambda at_end: report
        self._member.end()

    def _tell_first_step(self) -> None:
        """After the first step here: tell the driver where the time went until then."""
        if self._start_times is not None:
            self._start_times.seconds["step"] = time.perf_counter() - self._began_s
            self._member.send(FirstStepDone(worker=self._member.worker, seconds=self._start_times.rounded()))
            self._start_times = None

    def _show(self, *, last: bool) -> None:
        """Bring the logs up to date where somebody looks at them, and now and then tell the driver."""
        acts = self.relay.batch_hooks and self._member.is_chief
        if last or acts:
            self.engine.sync_variables()
        now = time.monotonic()
        show = self._member.is_chief and (now >= self._next_progress_s or last)
        if last or show or acts:
            self._logs = self.engine.metrics.logs()
        if show:
            self._next_progress_s = now + PROGRESS_EVERY_S
            self._member.send(
                Progress(
                    epoch=self.position.epoch,
                    step=self.position.step,
                    steps=self.position.steps_per_epoch,
                    rows=self.engine.metrics.sums.rows,
                    logs=dict(self._logs),
                    num_workers=self._member.num_workers,
                )
            )

    # -- saving and restoring -------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """A copy of the state as it is now, between two steps."""
        self.engine.sync_variables()
        position, sums = self.position, self.engine.metrics.sums
        return make_snapshot(
            self.engine.built,
            epoch=position.epoch,
            step=position.step,
            begun=position.begun,
            totals={"sums": sums.sums.copy(), "extrema": sums.maxima.copy()} if position.begun else {},
            extra={
                **position.for_snapshot(is_stopped=bool(self.model.stop_training)),
                "callbacks": self.relay.states(),
                "callback_names": self.relay.names,
                "callback_files": self.relay.files_version(),
                "rows": sums.rows,
                "rows_by_worker": {str(worker): rows for worker, rows in self.engine.rows_by_worker.items()},
            },
        )

    def _saved(self) -> Snapshot:
        """A snapshot for a checkpoint."""
        snapshot = self.snapshot()
        self.saved_files = snapshot.extra["callback_files"]
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot; before the loop begins."""
        restore_state(self.engine.built, snapshot)
        if snapshot.extra["new"]:  # no epoch had begun
            return
        self.resumed, self._restored = True, snapshot
        self.position.epoch, self.position.step, self.position.is_new = snapshot.epoch, snapshot.step, False
        values = snapshot.values()
        names, files_version = values.get("callback_names"), values.get("callback_files", 0)
        self.relay.restore_states(values["callbacks"], names, files_version)
        self._member.step = self.position.of_run

    def _go_on(self, snapshot: Snapshot) -> None:
        """In the middle of an epoch that was begun elsewhere."""
        totals, extra = snapshot.totals, snapshot.values()
        self.position.go_on(snapshot.step, extra)
        rows_by_worker = {int(worker): rows for worker, rows in extra["rows_by_worker"].items()}
        self.engine.resume_epoch(totals["sums"], totals["extrema"], extra["rows"], rows_by_worker)
        if self.position.steps_over:
            self.model.stop_training = True  # the epoch is still to be finished
