"""How a worker comes into its group: it tells which model it has, waits for a place, and gets the state to begin with.

That state is a checkpoint, or what another worker has parked; a member of a group that begins has its own. Of a run and
of a pass it is told alike whether the model is in the state that the fit before has left: whoever lacks it must get it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.group.liveness import Activity
from heliostat.cluster.group.member import Member

from ..checkpoints.snapshot import Snapshot, make_snapshot, model_identity, model_settings, restore_state
from ..checkpoints.store import CheckpointStore, InitialCheckpoint
from ..engine.model import BuiltModel
from ..engine.runtime import platform_of
from ..engine.state import shapes_digest, state_digest
from ..errors import StateNotKeptError, WorkersDisagreeError
from ..jobs import Ready
from .session import Session


def announce(
    built: BuiltModel, member: Member, notes: tuple[str, ...] = (), memory: Mapping[str, int] | None = None
) -> None:
    """Tell the driver what model this is and where it is computed; it must be the same on all workers.

    Args:
        built: the model.
        member: this worker's membership.
        notes: what the user should know besides.
        memory: bytes of what this worker holds, by name; None if it is not to train.
    """
    ready = Ready(
        shapes=shapes_digest(built).hex(),
        num_weights=sum(int(np.prod(v.shape)) for v in built.trainable),
        platform=platform_of(built.runtime),
        model=model_identity(built),
        settings=model_settings(built),
        notes=(*built.notes, *built.runtime.notes, *notes),
        memory=dict(memory or {}),
    )
    refused = member.request(ready)
    if refused:
        raise WorkersDisagreeError(refused)
    member.note_activity(Activity.SET_UP)  # it goes on to compile


def join_pass(built: BuiltModel, member: Member, lacking: str, reach: Reach) -> None:
    """Join the group of a pass; who lacks the state that is wanted gets it from the others, or gives up.

    Args:
        built: the model.
        member: this worker's membership.
        lacking: why the model is not in the state that is wanted; empty if it is.
        reach: how this machine reaches the driver's disk.
    """
    announce(built, member)
    member.take_state = lambda: make_snapshot(built, epoch=0, step=0, begun=False, totals={}, extra={})
    initial_state = member.join(digest=state_digest(built), fresh=bool(lacking))
    if initial_state is not None:
        restore_state(built, _fetched(initial_state, member, reach))
    elif lacking:
        raise StateNotKeptError(lacking)


def join_run(session: Session, built: BuiltModel, member: Member, lacking: str, reach: Reach) -> None:
    """Join the group of a run: from its beginning, from a checkpoint, or with the state of those who are at it.

    Args:
        session: of the run.
        built: its model.
        member: this worker's membership.
        lacking: why the model is not in the state of the fit before; empty if it is.
        reach: how this machine reaches the driver's disk.
    """
    began_s = time.perf_counter()
    digest = state_digest(built)
    member.copy_s = time.perf_counter() - began_s  # it reads all of the state, as a copy does
    origin = member.join(digest=digest, fresh=bool(lacking))
    if origin is not None:
        session.restore(_fetched(origin, member, reach))
    elif lacking:
        raise StateNotKeptError(lacking)


def _fetched(initial_state: object, member: Member, reach: Reach) -> Snapshot:
    """The state to begin with: a checkpoint, or what another worker has parked."""
    if not isinstance(initial_state, InitialCheckpoint):
        found: Snapshot = member.mailbox.fetch(initial_state)
        return found
    manifest, tensors = CheckpointStore(reach.uri(initial_state.location)).load(initial_state.name)
    return Snapshot(
        epoch=manifest.epoch, step=manifest.step, begun=manifest.begun, tensors=tensors, extra=manifest.extra
    )
