"""Makes checkpoints on the chief: a copy in memory between two steps, written by a thread while steps go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from heliostat.cluster import instruments
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..checkpoints.manifest import CheckpointManifest, CheckpointWritten, checkpoint_name
from ..checkpoints.snapshot import Snapshot
from ..checkpoints.store import CheckpointStore
from ..config import EverySeconds, EverySteps, FitConfig
from ..errors import CheckpointError
from ..events import CheckpointNotMade


class Saver:
    """Decides when a checkpoint is due, and writes it.

    Args:
        wanted: when checkpoints are due, and where they go.
        member: this worker's membership; only the chief makes checkpoints.
        first_generation: added to the generation in names.
        take: copies the state to memory.
    """

    def __init__(
        self,
        wanted: FitConfig,
        member: Member,
        first_generation: int,
        take: Callable[[], Snapshot],
    ) -> None:
        location = wanted.checkpoint_dir if wanted.checkpoint_every is not None else None
        self._store = None if location is None else CheckpointStore(location)
        self._every, self._member, self._take = wanted.checkpoint_every, member, take
        self._first_generation = first_generation
        self._saved_s = time.monotonic()
        self._saved_step = -1
        self._thread: threading.Thread | None = None
        self._next: tuple[Snapshot, float] | None = None
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
        snapshot = self._take()
        self._member.copy_s = time.perf_counter() - began  # peers wait that much longer for the next one
        instruments.note("checkpoint copy", began)
        self._recorder = instruments.current()
        self._saved_s, self._saved_step = time.monotonic(), position
        with self._lock:
            self._next = snapshot, time.perf_counter() - began
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="heliostat-checkpoint", daemon=True)
                self._thread.start()

    def save_now(self, position: int) -> None:
        """Save the state and wait for it, on any worker, unless it is saved."""
        self.flush()
        if position != self._saved_step:
            self._saved_step = position
            self._write(self._take(), 0.0)

    def flush(self) -> None:
        """Wait until everything is written."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _write_all(self) -> None:
        while True:
            with self._lock:
                job, self._next = self._next, None
                if job is None:
                    self._thread = None
                    return
            self._write(*job)

    def _write(self, snapshot: Snapshot, seconds: float) -> None:
        if self._store is None:
            return
        began = time.perf_counter()
        instruments.fault_point("checkpoint", self._member.step)
        manifest = written(self._store, snapshot, self._first_generation, self._member)
        if manifest is None:
            return
        if self._recorder is not None:
            self._recorder.add("checkpoint write", began, time.perf_counter(), lane=instruments.CHECKPOINTS)
        write_s = time.perf_counter() - began
        self._member.send(CheckpointWritten(manifest=manifest, seconds=seconds, write_s=write_s))


def written(
    store: CheckpointStore, snapshot: Snapshot, first_generation: int, member: Member
) -> CheckpointManifest | None:
    """Write the tensors of a snapshot as a checkpoint that the driver may commit.

    Args:
        store: where to.
        snapshot: the state.
        first_generation: added to the generation in the name.
        member: this worker's membership; the driver is told if it cannot be written.

    Returns:
        What this worker knows of the manifest; None if it cannot be written.
    """
    generation = first_generation + member.generation
    name = checkpoint_name(snapshot.epoch, snapshot.step, generation)
    try:
        tensors = store.write(name, snapshot.tensors)
    except CheckpointError as error:
        member.send(CheckpointNotMade(name=name, reason=str(error)))
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
