"""One run as the driver sees it: the plan, what workers report meanwhile, the run folder, checkpoints, the result."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heliostat.cluster.group.controller_state import Formed
from heliostat.cluster.group.driver_loop import Task, TaskLoop
from heliostat.cluster.group.messages import Failure, Heartbeat

from ..checkpoints.manifest import CheckpointManifest, check_identity
from ..checkpoints.store import CheckpointStore
from ..engine.times import StartTimes
from ..errors import CheckpointError, ConfigurationError, NonfiniteGradientError, RunPausedError, TrainerError
from ..jobs import (
    CheckpointFailed,
    CheckpointWritten,
    FirstStep,
    FitJob,
    FitReport,
    InitialCheckpoint,
    Nonfinite,
    PauseReport,
    Progress,
    Ready,
    ReplayReport,
    WorkerTrace,
)
from .coordinator import Coordinator, Listeners
from .display import Display, start_line
from .events import (
    CheckpointCommitted,
    CheckpointNotMade,
    EpochRecord,
    FirstStepDone,
    GradientNotFinite,
    GroupFormed,
    Paused,
    Resumed,
    WorkerLate,
    WorkerLost,
    history_of,
)
from .result import Result, stored_result
from .run_folder import TRACE_FILE, RunFolder, read_epochs, read_events
from .trace_file import chrome_trace
from .workers import Workers

_CONFIGURATION = ("loop", "initial_epoch", "global_batch_size", "steps_per_epoch", "shuffle")
REGROUP_EVERY_S = 0.2
TRACED = "the steps to be traced are over"
RunTask = Callable[[Task, Coordinator, Callable[[TaskLoop], None]], dict[int, Any]]


@dataclass(slots=True, kw_only=True)
class FitRun:
    """Runs one `fit` job on started workers.

    Attributes:
        job: what to train.
        workers: the worker group, started.
        folder: the run folder.
        store: the run's checkpoints, None without.
        display: what the user sees.
        began_s: when the run began (monotonic clock).
        number: which fit of this process it is, counted from 1.
        start: what the driver's time until now went to.
    """

    job: FitJob
    workers: Workers
    folder: RunFolder
    store: CheckpointStore | None
    display: Display
    began_s: float
    number: int = 1
    start: StartTimes = field(default_factory=StartTimes)
    _epochs: list[EpochRecord] = field(default_factory=list)
    _clock_s: float = 0.0
    _regrouped_s: float = 0.0
    _loop: TaskLoop | None = None
    _model: dict[str, str] = field(default_factory=dict)
    _origin: InitialCheckpoint | None = None
    _said_failure: bool = False
    _said_start: bool = False
    _said_traced: bool = False
    _traces: dict[int, WorkerTrace] = field(default_factory=dict)

    def run(self, run_task: RunTask) -> Result:
        """Train to the end; returns the result, which the run folder holds as well.

        Raises:
            RunPausedError: the run was paused.
        """
        plan = self.workers.plan(self.job.settings.total_microbatches, self.job.wanted.global_batch_size)
        self._go_on()
        self.folder.update(state="running", plan=plan, epochs=self.job.wanted.epochs, **self._record())
        self.display.say(f"run folder {self.folder.path}")
        self.display.say(self.workers.describe(plan, len(self.job.data), self.job.wanted.steps_per_epoch))
        for name, data in (("training", self.job.data), ("validation", self.job.validation_data)):
            if data is not None and data.num_skipped:
                self.display.say(f"{data.num_skipped:,} damaged rows of the {name} data are left out, on all workers")
        coordinator = Coordinator(self._listeners())
        log_dir = None if self.job.settings.local else self.folder.log_dir
        task = Task(method="fit", job=self.job, initial_state=self._origin, log_dir=log_dir)
        delivered = run_task(task, coordinator, self._set_loop)
        return self._finish(delivered, coordinator)

    def stored(self) -> Result:
        """The result of the run in the folder, which was finished before.

        Raises:
            ConfigurationError: it was another run.
        """
        check_identity(self.folder.record.get("identity", {}), self.identity(), self.folder.path)
        self.display.say(f"the run in {self.folder.path} is finished; this is its result")
        return stored_result(self.folder.path, self.folder.record, read_epochs(self.folder.path))

    def replay(self, run_task: RunTask) -> ReplayReport:
        """Compute one step of the run in the folder again, from the last checkpoint before it; nothing is written.

        Raises:
            ConfigurationError: the run is another one, or never got as far as that step.
        """
        wanted = self.job.replay
        if wanted is None or self.store is None:
            raise ConfigurationError("A run without checkpoints cannot be replayed.")
        check_identity(self.folder.record.get("identity", {}), self.identity(), self.folder.path)
        epochs, steps = self.job.wanted.epochs, self._steps()
        if wanted.step >= epochs * steps:
            raise ConfigurationError(
                f"step {wanted.step} is beyond the run: {epochs} epochs of {steps} steps have steps 0 to "
                f"{epochs * steps - 1}."
            )
        for name in self.store.names():
            manifest = self.store.manifest(name)
            if manifest.epoch * self._steps() + manifest.step <= wanted.step:
                self._origin = InitialCheckpoint(location=str(self.job.wanted.checkpoint_dir), name=name)
        begins = "the beginning" if self._origin is None else f"checkpoint {self._origin.name}"
        self.display.say(f"computing from {begins} up to step {wanted.step}")
        with tempfile.TemporaryDirectory(prefix="heliostat-replay-") as scratch:
            quietly = replace(self.job.wanted, checkpoint_every=None)
            job = replace(self.job, wanted=quietly, run_dir=scratch)
            task = Task(method="fit", job=job, initial_state=self._origin)
            delivered = run_task(task, Coordinator(), lambda _: None)
        report = delivered.get(0)
        if not isinstance(report, ReplayReport):
            raise ConfigurationError(f"The run ended before step {wanted.step}: callbacks stopped it.")
        return report

    @property
    def is_traced(self) -> bool:
        """Whether the steps to be traced were there, and all workers of the group have told what they did in them."""
        members = () if self._loop is None else self._loop.state.members
        return set(members) <= self._traces.keys() and any(each.spans for each in self._traces.values())

    def _set_loop(self, loop: TaskLoop) -> None:
        self._loop = loop

    def _listeners(self) -> Listeners:
        return Listeners(
            ready=self._on_ready,
            progress=self._on_progress,
            epoch=self._on_epoch,
            checkpoint=self._on_checkpoint,
            nonfinite=self._on_nonfinite,
            first_step=self._on_first_step,
            traced=self._on_traced,
            lost=self._on_lost,
            formed=self._on_formed,
            late=self._on_late,
        )

    # -- going on -------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What must be equal to go on with a run, as far as the driver knows it before workers start."""
        settings, wanted, columns = self.job.settings, self.job.wanted, self.job.wanted.columns
        datasets = {"train": self.job.data, "valid": self.job.validation_data}
        return {
            **{name: getattr(wanted, name) for name in _CONFIGURATION},
            "seed": settings.seed,
            "num_microbatches": settings.num_microbatches,
            "threads_per_worker": settings.threads,
            "deterministic": settings.deterministic,
            "gradient_dtype": settings.gradient_dtype,
            "initial_weights": wanted.initial_weights_digest,
            "columns": [str(columns.inputs), str(columns.targets), str(columns.sample_weight)],
            "data": {name: data.fingerprint for name, data in datasets.items() if data is not None},
        }

    def _go_on(self) -> None:
        """Take up an unfinished run where its last good checkpoint is."""
        if not self.folder.resumes or self.store is None:
            return
        found = self.store.latest(self.display.say)
        if found is None:
            self.display.say(f"{self.folder.path} holds a run without a checkpoint: it begins again")
            self.folder.set_epochs([])
            return
        name, manifest = found
        check_identity(manifest.identity, self.identity(), self.folder.path)
        self._take_up(name, manifest)
        where = f"epoch {manifest.epoch + 1}, step {manifest.step}"
        self.display.say(f"going on from checkpoint {name}: {where}")
        self.folder.add_event(Resumed(checkpoint=name, epoch=manifest.epoch, step=manifest.step))

    def _take_up(self, name: str, manifest: CheckpointManifest) -> None:
        self._origin = InitialCheckpoint(location=str(self.job.wanted.checkpoint_dir), name=name)
        self._epochs = [EpochRecord.from_json(line) for line in manifest.history]
        self.folder.set_epochs(self._epochs)

    # -- what happens ---------------------------------------------------------------------------------------------

    def _on_ready(self, ready: Ready) -> str:
        self._model = ready.model
        recorded = self.folder.record.get("model", {})
        if self.folder.resumes and self._origin is not None and recorded:
            check_identity({"model": recorded}, {"model": ready.model}, self.folder.path)
        before = self.folder.record.get("platform")
        if self._origin is not None and before and before != ready.platform:
            self.display.say(f"warning: the run began on {before} and goes on on {ready.platform}: bits may differ")
        for note in ready.notes:
            self.display.say(note)
        self.folder.update(platform=ready.platform, model=ready.model, num_weights=ready.num_weights)
        size = f"{ready.num_weights:,}"
        self.display.say(f"workers are ready, the model has {size} weights; tracing and compiling")
        self._restart_clock()
        return ""

    def _on_progress(self, progress: Progress) -> None:
        if not self._said_traced:
            self._said_traced = True
            self._restart_clock()  # the first step traces and compiles
        self.display.progress(progress, self.job.wanted.epochs, progress.num_workers)
        now_s = time.monotonic()
        if self._loop is not None and now_s - self._regrouped_s > REGROUP_EVERY_S:
            self._regrouped_s = now_s
            self._loop.regroup_if_wanted()

    def _on_epoch(self, record: EpochRecord) -> None:
        if self.job.data.num_skipped:
            record = replace(record, logs={**record.logs, "skipped_rows": self.job.data.num_skipped})
        known = [each for each in self._epochs if each.epoch < record.epoch]
        again = len(known) < len(self._epochs)
        self._epochs = [*known, record]
        if again:  # a chief that was lost had told it, and its successor tells it again
            self.folder.set_epochs(self._epochs)
            return
        self.folder.add_epoch(record)
        self.display.epoch(record, self.job.wanted.epochs, self._restart_clock())

    def _on_checkpoint(self, event: CheckpointWritten | CheckpointFailed) -> None:
        if self.store is None:
            return
        if isinstance(event, CheckpointFailed):
            self._checkpoint_failed(event.name, event.reason)
            return
        history = [record.to_json() for record in self._epochs if record.epoch < event.epoch]
        manifest = CheckpointManifest(
            generation=event.generation,
            epoch=event.epoch,
            step=event.step,
            begun=event.begun,
            identity=self.identity(),
            history=tuple(history),
            extra=event.extra,
            tensors=event.tensors,
        )
        began_s = time.perf_counter()
        try:
            self.store.commit(event.name, manifest)
            self.store.prune(self.job.wanted.keep)
        except CheckpointError as error:
            self._checkpoint_failed(event.name, str(error))
            return
        self._said_failure = False
        self._origin = InitialCheckpoint(location=str(self.job.wanted.checkpoint_dir), name=event.name)
        self.folder.add_event(
            CheckpointCommitted(
                name=event.name,
                epoch=event.epoch,
                step=event.step,
                seconds=round(event.seconds, 6),
                write_s=round(event.write_s, 6),
                commit_s=round(time.perf_counter() - began_s, 6),
            )
        )
        if self._loop is not None:
            self._loop.set_initial_state(self._origin)

    def _checkpoint_failed(self, name: str, reason: str) -> None:
        self.folder.add_event(CheckpointNotMade(name=name, reason=reason))
        if not self._said_failure:
            self._said_failure = True
            self.display.say(f"warning: no checkpoint {name}: {reason} Training goes on; it is tried again when due.")

    def _on_nonfinite(self, worker: int, event: Nonfinite) -> None:
        host = self._host(worker)
        error = NonfiniteGradientError(
            epoch=event.epoch,
            step=event.step,
            num_steps=self._steps(),
            microbatch=event.microbatch,
            variables=event.variables,
        )
        self.folder.add_event(
            GradientNotFinite(
                worker=worker,
                host=host,
                epoch=event.epoch,
                step=event.step,
                microbatch=event.microbatch,
                variables=tuple(event.variables),
                skipped=event.skipped,
            )
        )
        if event.skipped:
            self.display.say(f"step left out (worker {worker} on {host}): {error}")

    def _on_first_step(self, worker: int, event: FirstStep) -> None:
        """How long it took until then is recorded for every worker, and said once."""
        after_s = time.monotonic() - self.began_s
        self.folder.add_event(FirstStepDone(worker=worker, after_s=round(after_s, 4), seconds=event.seconds))
        if not self._said_start:
            self._said_start = True
            driver = self.start.rounded()
            self.folder.update(start_s={"first_step": round(after_s, 4), "driver": driver, "worker": event.seconds})
            self.display.say(start_line(after_s, driver, event.seconds))

    def _on_traced(self, worker: int, trace: WorkerTrace) -> None:
        self._traces[worker] = trace
        self._end_trace()

    def _end_trace(self) -> None:
        """Pause the run once all that are left have told what they did in the steps to be traced."""
        if self._loop is not None and self._loop.state.members and self.is_traced:
            self._loop.pause(TRACED)

    def _on_lost(self, failure: Failure, num_left: int) -> None:
        self._end_trace()
        host = self._host(failure.worker)
        at = "" if failure.step is None else f" at step {failure.step}"
        self.folder.add_event(
            WorkerLost(worker=failure.worker, host=host, step=failure.step, reason=failure.reason, left=num_left)
        )
        self.display.say(f"lost worker {failure.worker} on {host}{at}: {failure.reason}; {num_left} left")

    def _on_formed(self, formed: Formed) -> None:
        joined = formed.joined
        self.folder.add_event(
            GroupFormed(generation=formed.generation, workers=formed.members, joined=joined, restarted=formed.restarted)
        )
        self.folder.update(workers=self._workers_record())
        if formed.restarted:
            self._restart_history()
        if formed.generation > 0 and joined:
            hosts = ", ".join(f"worker {worker} on {self._host(worker)}" for worker in joined)
            self.display.say(f"joined: {hosts}; {len(formed.members)} worker(s)")

    def _restart_history(self) -> None:
        """All workers were lost, and new ones have begun at the last checkpoint, or at the beginning."""
        if self._origin is None or self.store is None:
            self._epochs = []
            self.folder.set_epochs([])
            self.display.say("all workers were lost before a checkpoint: the run begins again")
            return
        self._take_up(self._origin.name, self.store.manifest(self._origin.name))
        self.display.say(f"all workers were lost: going on from checkpoint {self._origin.name}")

    def _on_late(self, worker: int, heartbeat: Heartbeat, stacks: str) -> None:
        host = self._host(worker)
        self.folder.add_event(
            WorkerLate(
                worker=worker,
                host=host,
                step=heartbeat.step,
                activity=heartbeat.activity,
                activity_s=round(heartbeat.activity_s, 3),
                stacks=stacks,
            )
        )
        self.display.say(
            f"waiting for worker {worker} on {host}: at '{heartbeat.activity}' of step {heartbeat.step} for "
            f"{heartbeat.activity_s:.1f} s\n{stacks}".rstrip()
        )

    def _host(self, worker: int) -> str:
        info = self.workers.seen.get(worker)
        return "an unknown host" if info is None else info.host

    def _steps(self) -> int:
        return self.job.wanted.num_steps(len(self.job.data))

    def _restart_clock(self) -> float:
        """Seconds since the last start; begins anew."""
        now = time.monotonic()
        elapsed, self._clock_s = now - self._clock_s, now
        return elapsed

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self, delivered: Mapping[int, Any], coordinator: Coordinator) -> Result:
        report = next(iter(delivered.values()), None)
        if not isinstance(report, FitReport):
            raise self._paused(report)
        hashes = {tuple(sorted(final.sha256.items())) for final in coordinator.finals.values()}
        if hashes != {tuple(sorted(report.sha256.items()))}:
            raise TrainerError("The workers ended the run with different weights; this is a defect of Heliostat.")
        self.folder.save_model(report.model_file)
        seconds = time.monotonic() - self.began_s
        stopped = bool(self._epochs) and self._epochs[-1].stopped
        self.folder.update(
            state="finished",
            epochs_done=len(self._epochs),
            stopped_early=stopped,
            sha256=report.sha256,
            seconds=round(seconds, 3),
        )
        self._save_trace(None)
        return Result(
            history=history_of(self._epochs),
            run_dir=self.folder.path,
            sha256=report.sha256,
            seconds=seconds,
            epochs=self._epochs,
            in_process=self.job.settings.local,
        )

    def _paused(self, report: PauseReport | None) -> RunPausedError:
        self._save_trace(len(self._epochs) + self.job.wanted.initial_epoch)
        reason = "" if self._loop is None else self._loop.state.pause
        name = None if report is None else report.checkpoint
        self.folder.update(state="paused", reason=reason)
        self.folder.add_event(Paused(reason=reason, checkpoint=name))
        name = name or (self._origin.name if self._origin is not None else None)
        how = (
            f"Its state is in checkpoint {name}. To go on, run the same command again with run_dir="
            f"{str(self.folder.path)!r}, or: heliostat resume {self.folder.path}"
            if name is not None
            else "Nothing of it was saved: it had no checkpoints, or nothing was computed yet."
        )
        return RunPausedError(f"The run was paused: {reason}. {how}", run_dir=self.folder.path)

    def _save_trace(self, next_epoch: int | None) -> None:
        """Write what was traced, if something was; `next_epoch` is the number of the epoch that is not over."""
        if self.job.trace is None or not self.is_traced:
            return
        events, epochs = read_events(self.folder.path), read_epochs(self.folder.path)
        self.folder.save(TRACE_FILE, chrome_trace(self.job.trace, self._traces, events, epochs, next_epoch))

    def _record(self) -> dict[str, Any]:
        """What ``run.json`` says of the run: everything its results depend on."""
        datasets = {"train": self.job.data, "valid": self.job.validation_data}
        return {
            "identity": self.identity(),
            "data": {
                name: {
                    "path": dataset.name,
                    "rows": len(dataset),
                    "skipped_rows": 0,
                    "fingerprint": dataset.fingerprint,
                }
                for name, dataset in datasets.items()
                if dataset is not None
            },
            "command": {"argv": list(sys.argv), "directory": os.getcwd(), "fit": self.number},
            "versions": self.workers.versions(),
            "workers": self._workers_record(),
        }

    def _workers_record(self) -> list[dict[str, Any]]:
        return [{"worker": i.worker, "host": i.host, "pid": i.pid} for i in self.workers.infos.values()]
