"""A task as one machine has it: what lies on the driver's disk is opened in place, or through the driver."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import SCHEME
from heliostat.data.remote.filesystem import open_with

from ..beginning import ModelState
from ..checkpoints.manifest import manifest_to_bytes
from ..checkpoints.store import CheckpointStore
from ..errors import CheckpointError
from ..jobs import FitJob, PassJob

if TYPE_CHECKING:
    from heliostat.cluster.disk.disk import Disk  # which loads Ray


def reach_of(disk: Disk | None) -> Reach:
    """How this machine reaches the driver's disk; URIs of it can be opened in this process from now on."""
    reach = Reach(disk)
    if disk is not None:
        open_with(SCHEME, reach.filesystem)
    return reach


def fit_here(job: FitJob, reach: Reach) -> FitJob:
    """A run, with data, checkpoints and states where this machine finds them; the run folder stays the driver's."""
    place = job.wanted.checkpoint_dir
    valid = job.validation_data
    return replace(
        job,
        data=job.data.reached(reach.uri),
        validation_data=None if valid is None else valid.reached(reach.uri),
        wanted=replace(job.wanted, checkpoint_dir=None if place is None else reach.uri(str(place))),
        final_dir=None if job.final_dir is None else reach.uri(job.final_dir),
        begins=replace(job.begins, state=_state_here(job.begins.state, reach)),
    )


def pass_here(job: PassJob, reach: Reach) -> PassJob:
    """A pass, with data and the state that answers where this machine finds them."""
    return replace(job, data=job.data.reached(reach.uri), model=_state_here(job.model, reach))


def _state_here(state: ModelState, reach: Reach) -> ModelState:
    """The state of an earlier fit, beside which no token lies: opened in place where this machine has the same."""
    if not state.location:
        return state
    uri = reach.uri(state.location)
    return state if uri == state.location or _has_same(state, uri) else replace(state, location=uri)


def _has_same(state: ModelState, uri: str) -> bool:
    """Whether a state lies here as it lies at a URI: its manifest holds the hashes of all of it."""
    try:
        here = CheckpointStore(state.location).manifest_of_whole(state.name)  # before anybody is asked
        return manifest_to_bytes(here) == manifest_to_bytes(CheckpointStore(uri).manifest(state.name))
    except CheckpointError:  # what is wrong with it is told by whoever loads it
        return False
