"""What a run leaves: run folder, screen, history, checkpoints that count; written down beside the training.

The driver's loop must look at its workers without a pause: a worker whose driver does not answer for some seconds
leaves, and events of a worker that has died are lost if nobody has read them. Disks, object stores and terminals take
any time they like. So `Record.take` only puts what happened into a queue, and a thread of the record's own works
through it, in order: it commits checkpoints and prunes old ones, appends lines, redraws the screen. What the loop needs
to know of that, that there is a new checkpoint to begin from, comes back as an event in the loop's own queue.

Three things follow. Progress is replaced by later progress while it waits, so that the queue does not grow. An error of
storage is nobody's fault in the group: it is told once, training goes on, what could not be written is written when it
can be, and what still cannot be when the run ends is the error that `fit` raises (`StorageError`). And since a commit
may be late, old checkpoints are deleted only when the loop has heard of the new one, and never the one that a restarted
group is loading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from heliostat.cluster.errors import PlacementError
from heliostat.cluster.group.controller_state import Formed
from heliostat.cluster.group.messages import InitialStateChanged, PauseWanted, TaskEvent
from heliostat.cluster.group.task import GroupEvent, WorkerNotStarted, WorkersSeen
from heliostat.cluster.group.worker_group import WorkerGroup

from ..checkpoints.manifest import CheckpointManifest, CheckpointWritten, FinalStateWritten
from ..checkpoints.store import CheckpointStore, InitialCheckpoint
from ..engine.times import StartTimes
from ..errors import LeaseLostError, StorageError
from ..events import CheckpointNotMade, EpochRecord, Event, FirstStepDone, GroupFormed, Resumed, StepProbed
from ..hardware import Platform
from ..jobs import (
    EpochLogs,
    FitJob,
    Printed,
    Progress,
    Ready,
    StillSaving,
)
from ..quiet_load import kept
from ..samples import Sample
from ..step_states import StepSeen
from ..storage_thread import Newest, StorageThread
from .commits import Commits
from .computers import Computers
from .coordinator import Coordinator
from .display import Display
from .doing import Doing, doing_of
from .event_lines import EventLines, saving_line
from .expected_time import ExpectedTime
from .group_events import event_of_run
from .printed_once import PrintedOnce
from .run_folder import SETTINGS_FILE, RunFolder, num_samples
from .run_record import check_ready, workers_record
from .sampling import Sampling, Taken
from .start_lines import first_step, model_built


@dataclass(frozen=True, slots=True)
class _OriginHeard:
    """The group's loop would begin from checkpoint `name` now: older ones may go. None: from nothing any more."""

    name: str | None


@dataclass(frozen=True, slots=True)
class _Said:
    """An event that the screen has shown already."""

    event: Event


@dataclass(frozen=True, slots=True)
class _Line:
    """A line for the screen alone."""

    text: str


@dataclass(frozen=True, slots=True)
class _Logged:
    """What TensorFlow has said when this process loaded it."""

    text: str


@dataclass(frozen=True, slots=True)
class _SampleWaits:
    """There is a sample for who watches."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A group trains: what ``run.json`` says holds."""


@dataclass(frozen=True, slots=True)
class _Rewound:
    """These epochs are done; whatever came after them is computed again."""

    epochs: tuple[EpochRecord, ...]


# What waits to be written down. A mapping: fields of ``run.json``.
_Item = (
    Event
    | _Said
    | _Line
    | _Logged
    | _Begun
    | _Rewound
    | EpochRecord
    | Sample
    | _SampleWaits
    | StepSeen
    | Ready
    | Progress
    | Printed
    | CheckpointWritten
    | FinalStateWritten
    | _OriginHeard
    | Mapping[str, object]
)


class Record:
    """Writes one run down. Use it as a context manager: at its end all is on the disk that the disk would take.

    Attributes:
        job, folder, screen, began_s: see below.
        epochs: those that are done. To be read before the block, and after it.
        commits: which checkpoints count; likewise.
        ended: whether the workers have come to the end of the run; set by the run.
        recorded: whether the folder says so; likewise.

    Args:
        job: the run.
        folder: the run folder.
        screen: what the user sees.
        store: the run's checkpoints, None without.
        final_store: where the state is kept in which the run ends.
        group: the workers; their queue gets `InitialStateChanged` when a checkpoint counts.
        start: what the driver's time until now went to; the run began at `began_s` (monotonic clock).
    """

    def __init__(
        self,
        job: FitJob,
        folder: RunFolder,
        screen: Display,
        store: CheckpointStore | None,
        final_store: CheckpointStore,
        group: WorkerGroup,
        start: StartTimes,
        began_s: float,
    ) -> None:
        self.job, self.folder, self.screen, self._group = job, folder, screen, group
        self.commits = Commits(job, folder, screen, store, final_store, group)
        self._computers, self._start, self.began_s = Computers(), start, began_s
        self.epochs: list[EpochRecord] = []
        self.ended = self.recorded = False
        self._said_ready = self._said_start = self._said_storage = self._stepped = self._begun = False
        self._clock_s, self._lines = began_s, EventLines(job.num_steps)
        self._at_beginning: list[_Item] = []  # waits until a group trains
        self._progress: Newest[Progress] = Newest()
        self._expected = ExpectedTime(job.wanted.epochs, job.num_steps, validates=job.validation_data is not None)
        self._printed = PrintedOnce()
        self._sampling, self._sample = Sampling(job.num_steps), Newest[Sample]()
        self._lost: LeaseLostError | None = None
        self._thread: StorageThread[_Item] = StorageThread(self._write_down)

    def take_up(self, manifest: CheckpointManifest) -> None:
        """Go on from a checkpoint, before the block."""
        self._computers.look_back(self.folder)
        self.commits.begin_from(manifest)
        self.epochs = _epochs_of(manifest)
        self._sampling.go_on(self.epochs, num_samples(self.folder.path))
        self._at_beginning.append(_Rewound(tuple(self.epochs)))

    def begin_again(self) -> None:
        """Compute again what the folder has epochs of, before the block."""
        self._computers.look_back(self.folder)
        self._sampling.go_on((), num_samples(self.folder.path))
        self._at_beginning.append(_Rewound(()))

    def follow(self, platform: Platform) -> None:
        """Go on from the end of a fit that was computed on this platform, before the block."""
        self._computers.follow(platform)

    def begin(self, fields: Mapping[str, object], resumed: Resumed | None) -> None:
        """Write down how the run is computed, before the block.

        A folder that holds a run stays as it is until a group trains: a model or hardware that is refused, and whatever
        else goes wrong before that, has changed nothing there.

        Args:
            fields: of ``run.json``.
            resumed: from which checkpoint the run goes on, None without.
        """
        if self.folder.resumes:
            self._at_beginning += [fields, *([] if resumed is None else [resumed])]
        else:
            self.folder.update(**fields)

    def check(self, ready: Ready, *, before_training: bool) -> None:
        """Raise `ConfigurationError` if a worker has another model than the run had until now, or other hardware.

        Args:
            ready: what the worker has told.
            before_training: whether no group trains yet; later ones are held against the first (`Coordinator`).
        """
        before = self._computers
        platform = before.platform if before_training else {}
        check_ready(ready, before.model, platform, self.job, self.folder.path, before.where)

    # -- the loop's side: never waits -----------------------------------------------------------------------------

    def take(self, event: GroupEvent, coordinator: Coordinator) -> None:
        """Note what happened; `coordinator` has taken it before."""
        self._note_sample(self._sampling.take(event, time.monotonic()))
        match event:
            case TaskEvent(worker=worker, content=StillSaving() as saving):
                self.screen.say(saving_line(saving, worker, self._host(worker)))  # the storage may be what hangs
            case TaskEvent(content=content):
                self._told(content, coordinator)
            case WorkersSeen(heartbeats=heartbeats):
                hosts = {worker: self._host(worker) for worker in heartbeats}
                self.screen.doing(doing_of(heartbeats, hosts, coordinator.stage, self._validation(coordinator)))
            case InitialStateChanged(initial_state=InitialCheckpoint(name=name)):
                self.note(_OriginHeard(name))
            case Formed():
                for item in self._at_beginning:
                    self.note(item)
                self._at_beginning = []
                if chatter := kept():
                    self.note(_Logged(chatter))
                self._note_event(event)
                self.note({"workers": workers_record(self._group)})
                if not self._begun:
                    self._begun = True
                    self.note(_Begun())
            case _:
                self._note_event(event)

    def _note_event(self, event: GroupEvent) -> None:
        found = event_of_run(event, self._host)
        if found is not None:
            self.note(_Said(found) if isinstance(event, WorkerNotStarted) and event.said else found)

    def _note_line(self, line: str) -> None:
        """Have a line said after what was noted before, unless it is empty."""
        if line:
            self.note(_Line(line))

    def note(self, item: _Item) -> None:
        """Put something into the queue; from any thread."""
        self._thread.put(item)

    def _told(self, content: object, coordinator: Coordinator) -> None:
        match content:
            case Progress():
                if self._progress.put(content):
                    self.note(content)
                self._note_line(self._expected.after_steps(content, time.monotonic()))
            case EpochLogs():
                epoch = coordinator.epoch_of(content)
                self._sampling.end_epoch(epoch)
                self.note(epoch)
                self._note_line(self._expected.after_epoch(content.epoch, time.monotonic()))
            case FirstStepDone():
                after_s = round(time.monotonic() - self.began_s, 4)
                self.note(replace(content, time=time.time(), after_s=after_s))
            case Event():
                self.note(replace(content, time=time.time()))
            case Ready() | CheckpointWritten() | FinalStateWritten() | Printed() | StepSeen():
                self.note(content)

    def _note_sample(self, taken: Taken | None) -> None:
        if taken is not None and taken.is_kept:
            self.note(taken.sample)
        if taken is not None and taken.is_shown and self._sample.put(taken.sample):
            self.note(_SampleWaits())

    def _validation(self, coordinator: Coordinator) -> Doing | None:
        """How far the validation is that is under way."""
        rows, data = coordinator.rows_passed, self.job.validation_data
        if rows is None or data is None:
            return None
        total = self.job.wanted.validation_pass.num_rows(len(data))
        return Doing(what="validation", done=min(rows, total), total=total, unit="rows")

    def _host(self, worker: int) -> str:
        info = self._group.seen.get(worker)
        return "an unknown host" if info is None else info.host

    # -- the thread's side ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._note_sample(self._sampling.last())
        self.note(_OriginHeard(None))  # nobody begins from anything any more
        # Without a limit: what waits is only in memory, and who gave up an old checkpoint's deletion might delete it
        # when the folder is another driver's.
        self._thread.end_telling(self._tell_waiting)
        if isinstance(error, PlacementError):  # there is no Ray any more
            error.add_note(f"The run goes on from {self.commits.last() or 'its beginning: it has no checkpoint'}.")
        failed = self._lost or self._thread.defect
        if error is None and failed is not None:
            raise failed

    def _tell_waiting(self, item: _Item, seconds: float) -> None:
        match item:
            case CheckpointWritten(manifest=manifest) if self.commits.place is not None:
                what = f"checkpoint {manifest.name} to count in {self.commits.place}"
            case FinalStateWritten():
                what = f"the run's final state to count in {self.commits.final_place}"
            case _OriginHeard() if self.commits.place is not None:
                what = f"old checkpoints to be deleted in {self.commits.place}"
            case _:
                what = f"lines to be written in {self.folder.path}"
        self.tell_waiting(what, seconds)

    def tell_waiting(self, what: str, seconds: float) -> None:
        """Say what the end of the run waits for: a network disk may not answer, and raise no error, for hours."""
        self.screen.say(
            f"the run is over and has waited {seconds:.0f} s for {what}. There is no limit: what is not written yet "
            f"is only in memory. Ctrl-C gives it up, and so does kill -9 {os.getpid()} where the disk holds even that "
            "up; the same command then goes on from the last checkpoint"
        )

    def _write_down(self, item: _Item, happened_s: float) -> None:
        if self._lost is not None:
            return
        try:
            with self.folder.files.all_tried():  # an event may go into several files
                self._handle(item, happened_s)
        except LeaseLostError as error:  # the other driver goes on: the group is let go at its next step
            self._lost = error
            self._group.pool.inbox.put(PauseWanted(reason="another driver has taken the run folder"))
        except StorageError as error:
            if not self._said_storage:
                self._said_storage = True
                self.screen.say(f"warning: {error} Training goes on; what is missing is written when it can be.")

    def _handle(self, item: _Item, happened_s: float) -> None:
        match item:
            case Progress():
                self._show_progress(happened_s)
            case Printed():
                for line in self._printed.new_lines(item):
                    self.screen.say(line)
            case EpochRecord():
                self._epoch(item, happened_s)
            case Ready():
                self._ready(item, happened_s)
            case CheckpointWritten():
                self.commits.commit(item, self.epochs)
            case FinalStateWritten():
                self.commits.commit_final(item, self.epochs)
            case CheckpointNotMade():
                self.commits.not_made(item)
            case _OriginHeard(name=name):
                if name in (None, self.commits.checkpoint):  # else the loop has yet to hear of a newer one
                    self.commits.prune()
            case Event():
                self._event(item)
            case _Said(event=event):
                self._note_down(event)
            case _Begun():
                self.screen.begin(self.folder.path, self.folder.record)
            case Sample():
                self.folder.add_sample(item)
            case _SampleWaits():
                if (sample := self._sample.take()) is not None:
                    self.screen.sample(sample)
                    if line := self._lines.line_of_sample(sample):
                        self.screen.say(line)
            case StepSeen():
                self.folder.add_step(item)
            case _Line(text=text):
                self.screen.say(text)
            case _Logged(text=text):
                self.folder.log_here(text)
            case _Rewound(epochs=epochs):
                self.folder.set_epochs(epochs)
            case Mapping():
                self.folder.update(**item)

    def _ready(self, ready: Ready, happened_s: float) -> None:
        may_differ = self.job.settings.mixed_hardware == "allow"
        self._computers.compare(ready.platform, self.folder, self.screen, may_differ=may_differ)
        if self._said_ready:
            return
        self._said_ready = True
        for line in (*self._computers.lines(ready), *ready.notes):
            self.screen.say(line)
        self.screen.say(model_built(ready))
        self._clock_s = happened_s
        platform = self._computers.to_note(ready.platform)
        notes = list(ready.notes)
        self.folder.update(platform=platform, model=ready.model, num_weights=ready.num_weights, notes=notes)
        self.folder.save(SETTINGS_FILE, ready.settings, indent=1)

    def _show_progress(self, happened_s: float) -> None:
        progress = self._progress.take()
        if not self._stepped:
            self._stepped, self._clock_s = True, happened_s  # the first step traces and compiles
        if progress is not None:
            self.screen.progress(progress, self.job.wanted.epochs)

    def _epoch(self, epoch: EpochRecord, happened_s: float) -> None:
        if skipped := self.job.data.num_skipped:
            epoch = replace(epoch, logs={**epoch.logs, "skipped_rows": skipped})
        known = [each for each in self.epochs if each.epoch < epoch.epoch]
        again = len(known) < len(self.epochs)  # a chief that was lost had told it, and its successor tells it again
        self.epochs = [*known, epoch]
        if not again:
            seconds, self._clock_s = happened_s - self._clock_s, happened_s
            self.screen.epoch(epoch, self.job.wanted.epochs, seconds)
        try:
            is_there = self.folder.has_epochs  # somebody may have deleted it
        except StorageError:  # unknown for now: what is written anew holds all epochs in either case, or waits
            is_there = False
        if again or not is_there:
            self.folder.set_epochs(self.epochs)
        else:
            self.folder.add_epoch(epoch)

    def _event(self, event: Event) -> None:
        if line := self._lines.line_of(event):
            self.screen.say(line)
        if isinstance(event, FirstStepDone) and not self._said_start:
            self._said_start = True
            driver = self._start.rounded()
            self.screen.say(first_step(event.after_s))
            self.folder.update(start_s={"first_step": event.after_s, "driver": driver, "worker": event.seconds})
        if isinstance(event, StepProbed):
            self.folder.update(probe={"seconds": event.seconds, "notes": list(event.notes)})
        self._note_down(event)
        if isinstance(event, GroupFormed) and event.restarted:
            self._restart(event)

    def _note_down(self, event: Event) -> None:
        self.screen.event(event)
        self.folder.add_event(event)

    def _restart(self, formed: GroupFormed) -> None:
        """All workers were lost, and new ones have begun at a checkpoint, or at the beginning."""
        if formed.checkpoint is None:
            self.screen.say("all workers were lost before a checkpoint: the run begins again")
            self.epochs = []
            self.folder.set_epochs([])
            return
        self.screen.say(f"all workers were lost: going on from checkpoint {formed.checkpoint}")
        self.epochs = _epochs_of(self.commits.begin_again_from(formed.checkpoint))
        self.folder.set_epochs(self.epochs)
        self._computers.look_back(self.folder)  # at last: it reads a file, which may be out of reach


def _epochs_of(manifest: CheckpointManifest) -> list[EpochRecord]:
    """The epochs that were done when a checkpoint was written."""
    return [EpochRecord.from_json(line) for line in manifest.history]
