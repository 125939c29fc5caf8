"""The life of the driver, the process that called `fit`, in the order in which things happen.

**Commands go down, events come up, and nothing is called back.** The driver is one loop over one queue. Workers,
timers, signals and the storage thread only put events into it; the group's loop takes them one after another, looks at
the clock between them, decides (`controller.decide`, a pure function) and carries out what it decided, and hands on
what concerns the task. From those events the `Coordinator` makes the workers' answers (it touches neither files nor
network), and the `Record` whatever is kept of the run. So whoever asks why a run did something finds one event and two
functions; and whoever debugs a hanging run finds the driver in `TaskLoop.events`, not in a callback of a callback.

**The loop waits for its queue, and never for storage.** Workers whose driver is silent leave, so disks and object
stores are worked on by a thread (`record`), and the terminal by another (`screen`). When `fit` returns or raises, the
first has ended and everything is on the disk, unless the disk is what failed.

What was not done: an event loop of `asyncio` (one queue needs none, and a user's notebook may run one), a process of
its own for the driver (the laptop's script is the driver; it must be seen to end when that ends), and another loop for
workers of this process (they have threads of their own, and talk to the queue like any others).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from heliostat.cluster.group.controller_state import WorkerDeath
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.messages import Failure, TaskEvent
from heliostat.cluster.group.task import GroupEvent, Task, WorkerNotStarted
from heliostat.cluster.group.worker_process import host_name
from heliostat.data import Dataset, DatasetError
from heliostat.data.views.arriving import ArrivingDataset

from ..checkpoints.manifest import CheckpointManifest
from ..checkpoints.store import CheckpointStore, InitialCheckpoint
from ..config import FitConfig
from ..engine.times import StartTimes
from ..errors import (
    ConfigurationError,
    MemoryExhaustedError,
    RunPausedError,
    StateNotKeptError,
    StorageError,
    TrainerError,
    TrainingFailedError,
)
from ..events import EpochRecord, Paused, Resumed, history_of
from ..jobs import MODEL_FILE, FitJob, FitReport, Progress, Ready
from ..storage_thread import telling
from .coordinator import Coordinator
from .data_notes import notes_on_data
from .display import Display
from .doing import Doing
from .failures import explained, pausing
from .finished import finished_result, say_changed_callbacks, say_changed_code
from .kills import killing
from .plan import Run, dealing_of, stored_share
from .record import Record
from .reports import report_end
from .result import Result
from .run_folder import TRACE_FILE, RunFolder, read_epochs, read_events, read_record
from .run_record import check_run, run_record, workers_record
from .start_lines import start_lines
from .streams import Stream
from .supply import Supply, supply_of
from .trace_file import chrome_trace
from .trained import end_of_fit
from .uncaught import show_errors_shortly
from .workers import Workers


def fit(run: Run, workers: Workers, screen: Display) -> Result | None:
    """Make a run, or go on with it, or take the result of one that is finished.

    Args:
        run: what is wanted.
        workers: of the trainer; started unless they run, stopped if the run fails or is paused.
        screen: what the user sees.

    Returns:
        The result, which the run folder holds as well; None after a trace: its steps are recorded.

    Raises:
        RunPausedError: the run was paused.
        TrainingFailedError: a worker raised, or workers were lost in a way that cannot be made good.
        TrainerError, DatasetError: a mistake in arguments, data or model; or the run folder cannot be written.
    """
    began_s, times = time.monotonic(), StartTimes()
    kills = None if run.command is None else run.command.kills
    if kills is not None and run.settings.workers == 0:
        raise ConfigurationError(
            "The script trains with workers=0, in its own process, so no worker can be killed. Give it workers=2 or "
            "more."
        )
    screen.doing(Doing(what="opening the data"))
    with times.part("data"):
        run = run.opened()  # before there is a folder
    folder = run.open_folder()
    if folder.is_finished(run.wanted):
        screen.run_folder(folder.path)
        return _fit(run, folder, workers, screen, times, began_s)
    with folder.held(take_over=run.wanted.take_over), _end_told(folder, screen):
        screen.run_folder(folder.path)
        run = _with_data(run, folder, workers, screen, times)  # once, however many numbers of microbatches are tried
        while True:
            try:
                return _fit(run, folder, workers, screen, times, began_s)
            except MemoryExhaustedError as error:
                smaller = run.smaller(error, folder)
                if smaller is None:
                    raise
                screen.say(f"num_microbatches='auto' tries more than {error.num_microbatches}: {error.account}")
                run = smaller


def _fit(
    run: Run, folder: RunFolder, workers: Workers, screen: Display, times: StartTimes, began_s: float
) -> Result | None:
    """Make the run in a folder that is ours, or take the result out of it."""
    store, finished = run.open_store(folder), folder.is_finished(run.wanted)
    final = run.final_store(folder)
    with times.part("data"):
        data = run.open_data(folder)
    with _failure_noted(folder):
        if not finished and run.begins.sha256 is not None and not run.begins.state.name:
            raise StateNotKeptError("it was not kept")
        if not finished:
            workers.start(screen, times, run.threads(folder))
        share = stored_share(run.settings, folder) if finished else workers.share
        disk = None if finished else workers.serve(run.roots(data, folder, final))
        job = replace(run.job(share, data, folder, store, final), disk=disk)
        if finished:
            result = finished_result(run, job, folder, workers, screen)
            run.model.end = end_of_fit(job, folder, store, None, folder.record.get("final") or "", recorded=True)
            return result

        record = Record(job, folder, screen, store, final, workers.group, times, began_s)
        manifest = _go_on(record, store, run.shared_store(), screen)  # None: from the seed
        _announce(run, record, manifest, workers, screen)
        task = Task(
            method="fit",
            job=job,
            initial_state=_state_at(store, manifest),
            log_dir=None if job.settings.local else folder.log_dir,
            dealing=dealing_of(job.settings),
        )
        supply = supply_of(run.stream, job, manifest, screen.say)
        with contextlib.nullcontext() if supply is None else contextlib.closing(supply):
            return _train(run, task, record, store, workers, supply)


def _train(
    run: Run, task: Task, record: Record, store: CheckpointStore | None, workers: Workers, supply: Supply | None
) -> Result | None:
    """Have the workers do the task, follow what happens, and leave with the trainer what its next fit goes on from."""
    job, folder = record.job, record.folder
    kills = None if run.command is None else run.command.kills
    can_shrink = run.can_shrink(folder) and job.rows_per_microbatch > 1
    coordinator, loop = Coordinator(job.settings.mixed_hardware), TaskLoop(workers.group, task)
    if run.dialogue is not None:
        run.dialogue.open(loop)
    try:
        with explained(workers, folder.path), record, pausing(loop, run.wanted.max_time_s):
            with killing(kills, workers.group, loop, record):
                for event in loop.events():
                    loop.answer(coordinator.take(event))
                    if run.dialogue is not None:
                        loop.answer(run.dialogue.take(event))
                    _steer(loop, event, coordinator, record, can_shrink)  # refuses another model before it is noted
                    if supply is not None:
                        supply.take(event)
                    record.take(event, coordinator)
        result = _finish(loop, coordinator, record, workers)
        if supply is not None:
            supply.close(sum(epoch.rows for epoch in record.epochs))
        return result
    except (TrainingFailedError, DatasetError) as error:
        if supply is not None and supply.error is not None:
            raise error from supply.error
        if isinstance(error, TrainingFailedError):
            _advise_on_memory(error, coordinator, job, run.settings.num_microbatches == "auto")
        raise
    finally:
        if loop.state.generation >= 0:  # before the first the model was as it had been
            commits, ended_in = record.commits, None
            if record.ended:
                ended_in = commits.final or ""
            run.model.end = end_of_fit(job, folder, store, commits.checkpoint, ended_in, recorded=record.recorded)


def _with_data(run: Run, folder: RunFolder, workers: Workers, screen: Display, times: StartTimes) -> Run:
    """The run on what it will read: arrays and streams are in the folder, which is ours."""
    stream = run.data if isinstance(run.data, Stream) else None
    streams = stream is not None or isinstance(run.validation_data, Stream)
    if streams:
        workers.launch(screen, times, run.threads(folder))  # they start while the stream is written
    screen.doing(Doing(what=_opening(run, streams)))
    with times.part("data"), telling(partial(_tell_reading, screen)) if streams else contextlib.nullcontext():
        data, valid = run.open_data(folder)
    if streams and folder.began and not isinstance(data, ArrivingDataset):
        screen.say("streams are not read again: their rows are in the run folder, from when the run began")
    return replace(run, data=data, validation_data=valid, stream=stream)


def _opening(run: Run, streams: bool) -> str:
    if streams:
        return "reading the stream"
    return "opening the data" if isinstance(run.data, Dataset) else "writing the arrays into the run folder"


def _tell_reading(screen: Display, seconds: float) -> None:
    screen.say(
        f"the stream has been read for {seconds:.0f} s; one that never ends needs steps_per_epoch= (to validate on, "
        "validation_steps=)"
    )


# -- before the first step --------------------------------------------------------------------------------------------


def _go_on(
    record: Record, store: CheckpointStore | None, shared: CheckpointStore | None, screen: Display
) -> CheckpointManifest | None:
    """Take up an unfinished run where its last good checkpoint is; None where there is none."""
    folder = record.folder
    with contextlib.suppress(TrainerError):  # the folder of the fit before may be elsewhere by now
        if before := record.job.begins.run_dir:
            record.follow(read_record(Path(before)).get("platform", {}))
    if not folder.resumes:
        return None
    manifest = None if store is None else _last_checkpoint(folder, store, shared, screen)
    if manifest is None or store is None:
        if folder.has_epochs:  # what they were computed with is what is to be computed again
            check_run(folder.record.get("identity", {}), record.job, folder.path)
            record.begin_again()
        screen.say(f"{folder.path} holds a run without a checkpoint: it begins again")
        return None
    check_run(manifest.identity, record.job, folder.path)
    record.take_up(manifest)
    screen.say(f"going on from checkpoint {manifest.name}: epoch {manifest.epoch + 1}, step {manifest.step}")
    return manifest


def _last_checkpoint(
    folder: RunFolder, store: CheckpointStore, shared: CheckpointStore | None, screen: Display
) -> CheckpointManifest | None:
    """The last good checkpoint of a run; one that an earlier version left among others' is copied to its own."""
    manifest, skipped = store.latest()
    if manifest is None and shared is not None:
        manifest, more = shared.latest(folder.record.get("identity", {}))
        skipped += more
        if manifest is not None:
            store.copy(shared, manifest.name)
    for line in skipped:
        screen.say(line)
    return manifest


def _state_at(store: CheckpointStore | None, manifest: CheckpointManifest | None) -> InitialCheckpoint | None:
    return None if store is None or manifest is None else InitialCheckpoint(location=store.location, name=manifest.name)


def _announce(run: Run, record: Record, manifest: CheckpointManifest | None, workers: Workers, screen: Display) -> None:
    """Write down how the run is computed, with everything its results depend on, and say it."""
    job, folder = record.job, record.folder
    if folder.resumes and folder.has_epochs:
        say_changed_code(run, folder, screen)
    if folder.resumes:
        say_changed_callbacks(job, folder, screen)
    codes = {"code": dict(run.code), "fit_code": dict(job.wanted.code_digests)}
    fields = {
        "state": "running",
        "error": None,
        **run_record(job, run.program),
        **codes,
        "workers": workers_record(workers.group),
    }
    if run.tried:
        fields["microbatches_tried"] = list(run.tried)
    resumed = None
    if manifest is not None:
        resumed = Resumed(checkpoint=manifest.name, epoch=manifest.epoch, step=manifest.step)
    notes = list(notes_on_data(job, run.stream))
    record.begin({**fields, "data_notes": notes}, resumed)
    if job.begins.sha256 is not None:
        screen.say(
            f"going on from the end of the fit in {job.begins.run_dir}, after {job.begins.epochs} epochs; "
            "initial_weights='new' or a new Trainer begins anew"
        )
    for line in [*start_lines(job, workers.hosts, host_name()), *notes]:
        screen.say(line)
    for name, data in (("training", job.data), ("validation", job.validation_data)):
        if data is not None and data.num_skipped:
            screen.say(f"{data.num_skipped:,} damaged rows of the {name} data are left out, on all workers")


# -- while it runs ----------------------------------------------------------------------------------------------------


def _steer(loop: TaskLoop, event: GroupEvent, coordinator: Coordinator, record: Record, can_shrink: bool) -> None:
    """What the run itself wants of its group; `can_shrink`: whether smaller microbatches may be tried."""
    match event:
        case TaskEvent(content=Ready() as ready):
            record.check(ready, before_training=loop.state.generation < 0)
        case WorkerDeath(failure=failure) | WorkerNotStarted(failure=failure) if can_shrink:
            _look_at_memory(failure, coordinator, record.job)
        case TaskEvent(content=Progress()):
            loop.regroup_if_wanted()  # in the middle of steps all workers stand at the same call: nobody waits long
    if record.job.trace is not None and coordinator.is_traced and not loop.state.pause:
        loop.pause("the steps to be traced are over")


def _look_at_memory(failure: Failure, coordinator: Coordinator, job: FitJob) -> None:
    """Raise MemoryExhaustedError if a worker was killed for want of memory in the first step that it tried."""
    if failure.evidence == "out of memory" and coordinator.is_before_first_step:
        cause = f"worker {failure.worker} was killed, as there was no memory left: {failure.reason}"
        raise _memory_exhausted(cause, coordinator, job)


def _advise_on_memory(error: TrainingFailedError, coordinator: Coordinator, job: FitJob, auto: bool) -> None:
    """Say in the error what memory goes to, and what needs less; `auto`: whether the number was to be found."""
    if error.evidence == "out of memory":
        exhausted = _memory_exhausted("workers were killed, again and again", coordinator, job)
        error.advice = f"{exhausted.account} {exhausted.remedy} Fewer workers per machine need less, too."
        if auto:
            error.advice += " 'auto' has found a number for the first step; this one needs more."


def _memory_exhausted(cause: str, coordinator: Coordinator, job: FitJob) -> MemoryExhaustedError:
    return MemoryExhaustedError(job.settings.total_microbatches, job.rows_per_microbatch, cause, coordinator.memory)


@contextlib.contextmanager
def _failure_noted(folder: RunFolder) -> Iterator[None]:
    """Note in the run's record that the block fails; mistakes that are found before it begins leave it as it is."""
    try:
        yield
    except RunPausedError:
        raise
    except BaseException as error:
        if folder.record["state"] == "running" or (not folder.resumes and folder.has_logs):
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            try:
                with folder.files.all_tried():
                    folder.update(state=state, error=f"{type(error).__name__}: {error}")
            except StorageError as unwritten:  # the error that is raised is the one to tell
                if not isinstance(error, StorageError):
                    error.add_note(f"The record of the run is not complete: {unwritten}")
        raise


@contextlib.contextmanager
def _end_told(folder: RunFolder, screen: Display) -> Iterator[None]:
    """Report how the run in the block has ended, and tell who watches, unless it has changed nothing in its folder."""
    before = folder.record
    try:
        yield
    finally:
        if folder.record is not before:
            report_end(folder, screen)
            screen.end(folder.record)


# -- the end ----------------------------------------------------------------------------------------------------------


def _finish(loop: TaskLoop, coordinator: Coordinator, record: Record, workers: Workers) -> Result | None:
    """What came out; None after a trace. Raises RunPausedError, or TrainerError if workers differ."""
    record.screen.doing(Doing(what="writing the end of the run"))
    job, folder, epochs = record.job, record.folder, record.epochs
    report = next(iter(loop.results.values()), None)
    traced = job.trace is not None and coordinator.is_traced
    if not isinstance(report, FitReport):
        workers.close()  # they may be a step apart, so no model is left to evaluate
        paused = _note_pause(loop.state.pause, record)
        if traced:
            _save_trace(coordinator, record, next_epoch=job.wanted.initial_epoch + len(epochs))
            return None
        show_errors_shortly()
        raise paused
    hashes = {tuple(sorted(final.sha256.items())) for final in coordinator.finals.values()}
    if hashes != {tuple(sorted(report.sha256.items()))}:
        raise TrainerError("The workers ended the run with different weights; this is a defect of Heliostat.")
    seconds, record.ended = time.monotonic() - record.began_s, True
    with telling(partial(record.tell_waiting, f"the model to be written in {folder.path}")):
        if report.not_written is not None:
            raise StorageError(folder.path / MODEL_FILE, report.not_written)
        with folder.files.all_tried():  # a run of which not all is written is none that is finished
            folder.take_model(report.model_file)
        with folder.files.all_tried():
            folder.update(
                state="finished",
                epochs_done=len(epochs),
                stopped_early=_is_short(job.wanted, epochs),
                sha256=report.sha256,
                final=record.commits.final,
                seconds=round(seconds, 3),
            )
    record.recorded = True
    if traced:
        _save_trace(coordinator, record, next_epoch=None)
        return None
    return Result(
        history=history_of(epochs),
        run_dir=folder.path,
        sha256=report.sha256,
        seconds=seconds,
        epochs=epochs,
        in_process=job.settings.local,
        data=job.data,
        columns=job.wanted.columns,
    )


def _is_short(wanted: FitConfig, epochs: Sequence[EpochRecord]) -> bool:
    """Whether callbacks, or a session's caller, have ended the run before all epochs that it was to have."""
    left_early = wanted.initial_epoch + len(epochs) < wanted.epochs and not wanted.is_open
    return bool(epochs) and (epochs[-1].stopped or left_early)


def _note_pause(reason: str, record: Record) -> RunPausedError:
    folder, name = record.folder, record.commits.last()
    paused = RunPausedError(reason, folder.path, name)
    waiting = partial(record.tell_waiting, f"the run's last lines to be written in {folder.path}")
    try:
        with telling(waiting), folder.files.all_tried():
            if folder.record["state"] == "running":  # else no group has trained, and the folder stays what it was
                event = Paused(reason=reason, checkpoint=name)
                record.screen.event(event)
                folder.add_event(event)
                folder.update(state="paused", reason=reason)
    except StorageError as unwritten:
        paused.add_note(f"The record of the run is not complete: {unwritten}")
    return paused


def _save_trace(coordinator: Coordinator, record: Record, next_epoch: int | None) -> None:
    """Write what was traced; `next_epoch` is the number of the epoch that is not over."""
    if record.job.trace is not None:
        events, epochs = read_events(record.folder.path), read_epochs(record.folder.path)
        trace = chrome_trace(record.job.trace, coordinator.traces, events, epochs, next_epoch)
        record.folder.save(TRACE_FILE, trace)
