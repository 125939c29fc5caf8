"""One run on one worker, as its loop sees it: steps one after another, from wherever the run is."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import keras
import numpy as np
from heliostat.cluster import instruments
from heliostat.data.views.arriving import ArrivingDataset

from ..checkpoints.snapshot import Snapshot, make_snapshot, restore_state
from ..engine.memory import OUT_OF_MEMORY, memory_exhausted
from ..engine.replay import replay_step
from ..engine.step import Step
from ..engine.times import StartTimes
from ..environment import ReplayWanted
from ..errors import NonfiniteGradientError
from ..events import FirstStepDone
from ..jobs import Progress, RowsWanted
from ..shipping import UserCode
from .attributes import Attributes
from .callback_files import CallbackFiles
from .callback_relay import CallbackRelay
from .caller import Caller
from .epoch_end import EpochEnd, StepIndex, index_of
from .epoch_logs import Logs
from .position import Position
from .sampler import Sampler
from .saver import Saver
from .tracer import Tracer
from .tracing import RunSteps, Tracing
from .verifying import Verifying

PROGRESS_EVERY_S = 0.2


class Session:
    """One run on one worker.

    Args:
        tracing: traces the steps.
        code: the user's callbacks, this worker's copies, and steps.
        files: where callbacks work.
        times: where the time until the first step goes.

    Attributes:
        job: what to train.
        built: the model; `model` is that of Keras.
        engine: computes steps, once they are traced.
        position: where this worker is in the run.
        relay: the user's callbacks.
        times: where this worker's time goes.
        caller: whose loop says what comes next, in a run of `Trainer.session`.
        end: the end of an epoch.
        saver: makes checkpoints.
        epoch_logs: of the epoch that is over, as the callbacks here have left them; empty before one is.
        saved_files: the version of callbacks' files in the last of them; None before the first.
        resumed: the run has begun elsewhere.
    """

    def __init__(self, tracing: Tracing, code: UserCode, files: CallbackFiles, times: StartTimes) -> None:
        self.job, self.built, self._member, self._files = tracing.job, tracing.built, tracing.member, files
        self._tracing, job = tracing, tracing.job
        self.model: keras.Model = self.built.model
        self.position = Position(epoch=job.wanted.initial_epoch, steps_per_epoch=job.num_steps)
        self.attributes = Attributes(self.model, (code.train_step, code.valid_step), self.built.state)
        self.times = tracing.spent
        self.relay = CallbackRelay(
            code.callbacks, self.built, self.attributes, self._member, job, self.position, files, self.times
        )
        self.steps = RunSteps(tracing, code.callbacks, self.relay, self.attributes, times)
        self.caller = Caller(job, self.built, self._member, self.position, self.times, self._traced_engine)
        self.saver = Saver(job.wanted, self._member, job.first_generation, self._saved, self.times)
        self.saved_files: int | None = None
        self.resumed = False
        self.epoch_logs: Logs = {}
        self._restored: Snapshot | None = None
        self._logs: Logs = {}
        self._part = -1  # of data that arrive, what was read last
        self._next_progress_s = self._stepped_s = self._began_s = 0.0
        self._start_times: StartTimes | None = times
        self._sampler = Sampler(self._member, self.position, self.times, self.built)
        self._tracer = None if job.trace is None else Tracer(job.trace, self._member)
        self._verifying = None if job.verify is None else Verifying(job.verify, tracing)

    @property
    def engine(self) -> Step:
        """Computes steps, once they are traced."""
        return self.steps.traced.engine

    def _traced_engine(self) -> Step | None:
        return self.engine if self.steps.is_traced else None

    @functools.cached_property
    def end(self) -> EpochEnd:
        """The end of an epoch; asked for when steps are traced."""
        return EpochEnd(
            self.engine, self.steps.traced.evaluator, self._member, self.relay, self.position, self.job.wanted
        )

    @property
    def recorder(self) -> instruments.Recorder | None:
        """Takes spans for the trace that is asked for; None if none is."""
        return None if self._tracer is None else self._tracer.recorder

    def start(self) -> None:
        """The group stands and the loop begins."""
        self._began_s = time.perf_counter()

    def finish(self) -> None:
        """The loop is over: wait for the last checkpoint, tell the trace."""
        self.saver.finish()
        self.tell_sample()
        if self._tracer is not None:
            self._tracer.finish()

    # -- epochs and steps -----------------------------------------------------------------------------------------

    def epochs(self) -> range:
        """Numbers of the epochs to train; where a caller says when the run is over, of one more, to ask before it."""
        return range(self.position.epoch, self.job.wanted.epochs + self.job.wanted.is_stepwise)

    def batches(self) -> Iterator[StepIndex]:
        """The batches of an epoch: numbers of steps; the rows are read inside the step."""
        for step in range(self.position.steps_per_epoch):
            yield np.array([step], np.int64)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, before any callback hears of it; one that was begun elsewhere goes on."""
        self.position.begin_epoch(epoch)
        self._logs, self._stepped_s = {}, 0.0
        if self.steps.is_traced:
            self.engine.start_epoch(epoch)
        if self._restored is not None and self._restored.begun:
            self._go_on(self._restored)
        self._restored = None
        self._member.step = self.position.of_run

    def prepare(self, step: int) -> bool:
        """Before a step: hear what the chief's hooks have changed, and before the first step here trace, if need be.

        Args:
            step: its number in the epoch.

        Returns:
            Whether it is computed; asked again before the same step nothing more happens.
        """
        position = self.position
        if not position.computes(step):
            return False
        if not position.heard_chief:
            self.saver.before_step(position.of_run)
            self.relay.before_step()
            if position.steps_over:
                return False
            position.heard_chief = True
        self.steps.before_first(position.epoch, resumed=self.resumed)
        return True

    def prepare_first(self, step: int) -> None:
        """Before the first step here, for a loop in which steps are not where they are to be traced: see `prepare`."""
        if not self.steps.has_stepped:
            self.prepare(step)

    def train(self, batch: StepIndex | tuple[StepIndex, ...]) -> Logs:
        """One step. Returns the global logs of the epoch so far, or the last known where nobody looks at them."""
        step, position = index_of(batch), self.position
        if not position.computes(step) or (self.steps.is_traced and step >= self.engine.plan.steps_here):
            return self._logs
        self.times.enter("rest")
        self._want_rows()
        if self._tracer is not None:
            if self._stepped_s:
                instruments.note("rest", self._stepped_s)
            self._tracer.before_step(position.of_run)
        began = time.perf_counter()
        self._member.step = position.of_run
        if self.job.replay is not None and position.of_run == self.job.replay.step:
            self._replay(self.job.replay)
        if not self.prepare(step):
            return self._logs
        if self._start_times is not None:  # what was before is in there
            self.times.begin()
        instruments.note("control", began)
        if self._verifying is not None:
            self._verifying.before(self.steps.traced, position, self.relay.set_attributes)
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
        if self._verifying is not None:
            self._verifying.after(self.steps.traced, position)
        position.step = step + 1
        self._tell_first_step()
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
        self.tell_sample()

    def end_run(self) -> None:
        """A caller has ended the run between two epochs: its last state is saved, as that of every run."""
        self.saver.after_epoch(self.position.of_run, last=True)

    def train_function(self, iterator: Iterator[StepIndex]) -> Logs:
        """What Keras calls for every step, in place of its own function."""
        return self.train(next(iterator))

    def test_function(self, iterator: Iterator[StepIndex]) -> Logs:
        """What Keras calls for every batch of validation, in place of its own function."""
        return self.end.test(next(iterator))

    def _replay(self, wanted: ReplayWanted) -> None:
        """Compute the step again instead of applying it, and end the task."""
        self.steps.before_first(self.position.epoch, resumed=self.resumed)
        report = replay_step(self.engine, self.position.epoch, self.position.step, wanted)
        self._member.deliver = lambda at_end: report
        self._member.end()

    def _tell_first_step(self) -> None:
        """After the first step here: tell the driver where the time went until then."""
        if self._start_times is not None:
            self._start_times.seconds["step"] = time.perf_counter() - self._began_s - self.steps.late_s
            self._member.send(FirstStepDone(worker=self._member.worker, seconds=self._start_times.rounded()))
            self._start_times = None
            self.times.end_first_step()

    def tell_sample(self) -> None:
        """Tell the driver how far this worker is and where its time has gone, once it has done a step."""
        if self._start_times is None:
            self._sampler.tell(self.engine)

    def tell_sample_if_due(self) -> None:
        """The same if a second has gone by."""
        if time.monotonic() >= self._sampler.next_s:
            self.tell_sample()

    def _show(self, *, last: bool) -> None:
        """Bring the logs up to date where somebody looks at them, and now and then tell the driver."""
        acts = self.relay.batch_hooks and self._member.is_chief
        if last or acts:
            self.engine.sync_variables()
        now = time.monotonic()
        is_sampled = now >= self._sampler.next_s  # also after the first step here
        show = self._member.is_chief and (now >= self._next_progress_s or last or is_sampled)
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
        if is_sampled:
            self._sampler.tell(self.engine)

    # -- saving and restoring -------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """A copy of the state as it is now, between two steps."""
        position, is_traced = self.position, self.steps.is_traced
        if is_traced:
            self.engine.sync_variables()
        sums = self.engine.metrics.sums if is_traced else None
        return make_snapshot(
            self.built,
            epoch=position.epoch,
            step=position.step,
            begun=position.begun,
            totals={"sums": sums.sums.copy(), "extrema": sums.maxima.copy()} if sums and position.begun else {},
            extra={
                **position.for_snapshot(is_stopped=bool(self.model.stop_training)),
                "callbacks": self.relay.states(),
                "callback_names": self.relay.names,
                "callback_files": self.relay.files_version(),
                "rows": sums.rows if sums else 0,
                "rows_by_worker": {str(k): rows for k, rows in self.engine.rows_by_worker.items()} if sums else {},
                "traced_with": self.steps.traced_with,
                "attributes": self.relay.set_attributes,
                "beside": {str(place): value for place, value in self.relay.followed.beside().items()},
            },
        )

    def _saved(self) -> Snapshot:
        """A snapshot for a checkpoint."""
        snapshot = self.snapshot()
        self.saved_files = snapshot.extra["callback_files"]
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot; before the loop begins."""
        if snapshot.extra["new"]:  # no epoch had begun
            restore_state(self.built, snapshot)
            return
        self.resumed, self._restored = True, snapshot
        self.position.epoch, self.position.step, self.position.is_new = snapshot.epoch, snapshot.step, False
        values = snapshot.values()
        told = values.get("told")
        self.position.told = None if told is None else (told[0], told[1])
        self.steps.go_on(values.get("traced_with", {}))
        restore_state(self.built, snapshot)
        self.relay.restore_attributes(values.get("attributes", {}), values.get("beside", {}))
        names, files_version = values.get("callback_names"), values.get("callback_files", 0)
        self.relay.restore_states(values["callbacks"], names, files_version)
        self._member.step = self.position.of_run

    def _go_on(self, snapshot: Snapshot) -> None:
        """In the middle of an epoch that was begun elsewhere."""
        totals, extra = snapshot.totals, snapshot.values()
        self.position.go_on(snapshot.step, extra)
        rows_by_worker = {int(worker): rows for worker, rows in extra["rows_by_worker"].items()}
        if totals:  # else no step had been done
            self.engine.resume_epoch(totals["sums"], totals["extrema"], extra["rows"], rows_by_worker)
        if self.position.steps_over:
            self.model.stop_training = True  # the epoch is still to be finished
