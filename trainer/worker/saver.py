"""Makes checkpoints on the chief: a copy in memory between two steps, written by a thread while steps go on.

A checkpoint that cannot be made ends nothing: whatever went wrong is told, and the next one is tried when it is due.
The last state that could not be written is kept, and tried again when the run ends.

At the end of a run, or where it pauses, the state is only in memory, so that its writing is waited for without a limit:
as the activity that is never cut short, and the driver hears every ten seconds where it goes (`saving_told`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from heliostat.cluster import instruments
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..checkpoints.manifest import CheckpointManifest, CheckpointWritten, checkpoint_name
from ..checkpoints.snapshot import Snapshot
from ..checkpoints.store import CheckpointStore
from ..config import EverySeconds, EverySteps, FitConfig
from ..engine.times import TimeSplit
from ..errors import CheckpointError
from ..events import CheckpointNotMade
from ..jobs import StillSaving
from ..storage_thread import telling


@dataclass(frozen=True, slots=True)
class _Copy:
    """A state that is to be written; `copy_s` is how long the steps waited for the copy, in seconds."""

    snapshot: Snapshot
    copy_s: float


class Saver:
    """Decides when a checkpoint is due, and writes it.

    Args:
        wanted: when checkpoints are due, and where they go.
        member: this worker's membership; only the chief makes checkpoints.
        first_generation: added to the generation in names.
        take: copies the state to memory.
        times: where this worker's time goes.
    """

    def __init__(
        self,
        wanted: FitConfig,
        member: Member,
        first_generation: int,
        take: Callable[[], Snapshot],
        times: TimeSplit,
    ) -> None:
        location = wanted.checkpoint_dir if wanted.checkpoint_every is not None else None
        self._store = None if location is None else CheckpointStore(location)
        self._every, self._member, self._take, self._times = wanted.checkpoint_every, member, take, times
        self._first_generation = first_generation
        self._saved_s = time.monotonic()
        self._saved_step = -1
        self._thread: threading.Thread | None = None
        self._next: _Copy | None = None
        self._unwritten: _Copy | None = None  # could not be written, and no later one was
        self._lock = threading.Lock()
        self._recorder: instruments.Recorder | None = None

    def before_step(self, position: int) -> None:
        """Between two steps: make a checkpoint if one is due."""
        if isinstance(self._every, EverySteps):
            due = position % self._every.num == 0 and position > 0
        elif isinstance(self._every, EverySeconds):
            due = time.monotonic() - self._saved_s >= self._every.seconds
        else:
            return
        if due:
            self.save(position)

    def after_epoch(self, position: int, *, last: bool) -> None:
        """After an epoch: make a checkpoint if one is due. The run's last state is always saved."""
        if last or self._every == "epoch":
            self.save(position)
        else:
            self.before_step(position)

    def save(self, position: int) -> None:
        """Copy the state now and write it beside the steps; a copy that still waits to be written is replaced."""
        if self._store is None or not self._member.is_chief or position == self._saved_step:
            return
        began = time.perf_counter()
        self._member.note_activity(Activity.COPY)
        with self._times.part("save", in_traces=False):
            snapshot = self._taken(position)
        if snapshot is None:
            return
        self._member.copy_s = time.perf_counter() - began  # peers wait that much longer for the next one
        instruments.note("checkpoint copy", began)
        self._recorder = instruments.current()
        self._saved_s, self._saved_step = time.monotonic(), position
        with self._lock:
            self._next = _Copy(snapshot, time.perf_counter() - began)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="heliostat-checkpoint", daemon=True)
                self._thread.start()

    def save_now(self, position: int) -> None:
        """Save the state and wait for it, on any worker, unless it is saved."""
        if self._store is None:
            return
        with self._times.part("save", in_traces=False), saving_told(self._member, self._store.shown):
            self._wait()
            if position != self._saved_step and (snapshot := self._taken(position)) is not None:
                self._saved_step, self._unwritten = position, _Copy(snapshot, 0.0)
            self._write_unwritten()

    def finish(self) -> None:
        """Wait until everything is written; what could not be written is tried once more."""
        if self._store is None:
            return
        with self._times.part("save", in_traces=False), saving_told(self._member, self._store.shown):
            self._wait()
            self._write_unwritten()

    def _taken(self, position: int) -> Snapshot | None:
        """A copy of the state; None where memory has no room for it, which the driver is told."""
        try:
            return self._take()
        except MemoryError as error:
            self._member.send(CheckpointNotMade(name=f"of step {position}", reason=reason_of(error)))
            return None

    def _wait(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()

    def _write_unwritten(self) -> None:
        if self._unwritten is not None:
            self._write(self._unwritten)

    def _write_all(self) -> None:
        try:
            while (copy := self._take_next()) is not None:
                self._write(copy)
        finally:
            with self._lock:  # without its thread the next checkpoint starts another, whatever has ended this one
                if self._thread is threading.current_thread():
                    self._thread = None

    def _take_next(self) -> _Copy | None:
        """What is to be written next; where there is nothing, this thread is none any more."""
        with self._lock:
            copy, self._next = self._next, None
            if copy is None:
                self._thread = None
            return copy

    def _write(self, copy: _Copy) -> None:
        """Write a checkpoint and tell the driver, or tell what went wrong."""
        if self._store is None:
            return
        self._unwritten, began = copy, time.perf_counter()
        manifest = written(self._store, copy.snapshot, self._first_generation, self._member)
        if manifest is None:
            return
        self._unwritten = None
        if self._recorder is not None:
            self._recorder.add("checkpoint write", began, time.perf_counter(), lane=instruments.CHECKPOINTS)
        write_s = time.perf_counter() - began
        self._member.send(CheckpointWritten(manifest=manifest, seconds=copy.copy_s, write_s=write_s))


def saving_told(member: Member, location: str) -> contextlib.AbstractContextManager[None]:
    """While the block waits until a state is written, this worker is "saving", and the driver hears of it now and then.

    Args:
        member: this worker's membership.
        location: where the state is written, as it may be shown.
    """
    member.note_activity(Activity.SAVE)
    return telling(lambda seconds: member.send(StillSaving(location=location, seconds=seconds)))


def written(
    store: CheckpointStore, snapshot: Snapshot, first_generation: int, member: Member, *, is_final: bool = False
) -> CheckpointManifest | None:
    """Write the tensors of a snapshot as a checkpoint that the driver may commit.

    Args:
        store: where to.
        snapshot: the state.
        first_generation: added to the generation in the name.
        member: this worker's membership; the driver is told if it cannot be written, whatever the reason is.
        is_final: whether it is the state in which the run ends.

    Returns:
        What this worker knows of the manifest; None if it cannot be written.
    """
    generation = first_generation + member.generation
    name = checkpoint_name(snapshot.epoch, snapshot.step, generation)
    try:
        instruments.fault_point("checkpoint", member.step)
        tensors = store.write(name, snapshot.tensors)
    except Exception as error:  # MemoryError as well: in a thread of its own nobody else would hear of it
        member.send(CheckpointNotMade(name=name, reason=reason_of(error), is_final=is_final))
        return None
    return CheckpointManifest(
        epoch=snapshot.epoch,
        step=snapshot.step,
        begun=snapshot.begun,
        generation=generation,
        identity={},
        history=(),
        extra=snapshot.extra,
        tensors=tensors,
    )


def reason_of(error: Exception) -> str:
    """Why a checkpoint was not made, for users."""
    return str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}."
