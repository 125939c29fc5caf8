"""Which of a run's checkpoints count: the workers write them, the driver alone commits and prunes.

To commit is to write the manifest beside the tensors that a worker has written (`Saver` in ``worker/saver.py``), by
`CheckpointStore.commit`; nothing counts before. All of it is done in the thread of the `Record`, one thing after
another; what the driver's loop needs to know, that there is a newer checkpoint to begin from, comes to it as an event
in its own queue.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from heliostat.cluster.group.messages import InitialStateChanged
from heliostat.cluster.group.worker_group import WorkerGroup

from ..checkpoints.manifest import CheckpointManifest, CheckpointWritten, FinalStateWritten
from ..checkpoints.store import CheckpointStore, InitialCheckpoint
from ..errors import CheckpointError
from ..events import CheckpointCommitted, CheckpointNotMade, EpochRecord, Event
from ..jobs import FitJob
from .display import Display
from .event_lines import line_of
from .run_folder import RunFolder
from .run_record import identity_of


class Commits:
    """The checkpoints of one run, and the state in which it ends.

    Attributes:
        checkpoint: the name of the last one that counts, None without.
        final: that of the state in which the run ended, None where it is not kept.

    Args:
        job: the run.
        folder: the run folder.
        screen: what the user sees.
        store: the run's checkpoints, None without.
        final_store: where the state is kept in which the run ends.
        group: the workers; their queue gets `InitialStateChanged` when a checkpoint counts.
    """

    def __init__(
        self,
        job: FitJob,
        folder: RunFolder,
        screen: Display,
        store: CheckpointStore | None,
        final_store: CheckpointStore,
        group: WorkerGroup,
    ) -> None:
        self._folder, self._screen, self._store, self._final_store = folder, screen, store, final_store
        self._identity, self._keep, self._group = identity_of(job), job.wanted.keep, group
        self.checkpoint: str | None = None
        self.final: str | None = None
        self._loading: str | None = None  # the checkpoint that the group begins from, until it has written another
        self._manifests: dict[str, CheckpointManifest] = {}  # of all that a group that is lost may begin from
        self._said_not_made = False

    @property
    def place(self) -> str | None:
        """Where checkpoints lie, for messages; None without."""
        return None if self._store is None else self._store.shown

    @property
    def final_place(self) -> str:
        """Where the state lies in which the run ends, for messages."""
        return self._final_store.shown

    def begin_from(self, manifest: CheckpointManifest) -> None:
        """The group goes on from this checkpoint, which stays until it has written another."""
        self.checkpoint = self._loading = manifest.name
        self._manifests[manifest.name] = manifest

    def begin_again_from(self, name: str) -> CheckpointManifest:
        """All workers were lost, and the next ones load this checkpoint: one that `begin_from` was given, or `commit`.

        Its manifest is known, so that storage which does not answer now is asked for nothing.
        """
        manifest = self._manifests[name]
        self.begin_from(manifest)
        return manifest

    def last(self) -> str | None:
        """The last checkpoint that the store lists, which the run would go on from; None without."""
        try:
            names = [] if self._store is None else self._store.names()
        except CheckpointError:  # out of reach for now
            return self.checkpoint
        return self.checkpoint if self.checkpoint in names else names[-1] if names else None

    def commit(self, written: CheckpointWritten, epochs: Sequence[EpochRecord]) -> None:
        """Make what the workers have written count, and tell the loop; `epochs` are those that are done."""
        if self._store is None:
            return
        history = tuple(epoch.to_json() for epoch in epochs if epoch.epoch < written.manifest.epoch)
        manifest = replace(written.manifest, identity=self._identity, history=history)
        self._folder.files.check_lease()
        self._loading = None  # the workers have loaded what they began from, and made steps
        began_s = time.perf_counter()
        try:
            self._store.commit(manifest.name, manifest)
        except CheckpointError as error:
            self.not_made(CheckpointNotMade(name=manifest.name, reason=str(error)))
            return
        self._said_not_made = False
        self.checkpoint = manifest.name
        self._manifests[manifest.name] = manifest
        origin = InitialCheckpoint(location=self._store.location, name=manifest.name)
        position = manifest.epoch, manifest.step
        self._group.pool.inbox.put(InitialStateChanged(initial_state=origin, position=position))
        self._note(
            CheckpointCommitted(
                name=manifest.name,
                epoch=manifest.epoch,
                step=manifest.step,
                seconds=round(written.seconds, 6),
                write_s=round(written.write_s, 6),
                commit_s=round(time.perf_counter() - began_s, 6),
            )
        )

    def commit_final(self, written: FinalStateWritten, epochs: Sequence[EpochRecord]) -> None:
        """Make the state count in which the run ended, in place of an earlier one."""
        history = tuple(epoch.to_json() for epoch in epochs)
        manifest = replace(written.manifest, identity=self._identity, history=history)
        self._folder.files.check_lease()
        try:
            self._final_store.commit(manifest.name, manifest)
            self._final_store.prune(1)
        except CheckpointError as error:
            self.not_made(CheckpointNotMade(name=manifest.name, reason=str(error), is_final=True))
            return
        self.final = manifest.name

    def not_made(self, event: CheckpointNotMade) -> None:
        """Note that a checkpoint does not count; said once until one does again."""
        if event.is_final or not self._said_not_made:
            self._said_not_made = True
            self._screen.say(line_of(event, 0))
        self._note(event)

    def _note(self, event: Event) -> None:
        self._screen.event(event)
        self._folder.add_event(event)

    def prune(self) -> None:
        """Delete old checkpoints, but for the one that a restarted group is loading."""
        if self._store is None:
            return
        self._folder.files.check_lease()
        known = self._manifests
        self._manifests = {name: known[name] for name in (self.checkpoint, self._loading) if name is not None}
        try:
            self._store.prune(self._keep, spare=self._loading)
        except CheckpointError as error:
            self._screen.say(f"warning: old checkpoints are left: {error}")
