"""What the model of a trainer is at present: new, or as the last fit has left it, here or in an earlier process."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..beginning import Beginning, ModelState
from ..checkpoints.store import CheckpointStore
from ..jobs import FitJob
from ..shipping import Shipped
from .run_folder import CHECKPOINTS, FINAL_FOLDER, RunFolder, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class FitEnd:
    """How a fit has left the model.

    Attributes:
        path: its run folder.
        finished: whether it came to its end, and its folder says so.
        state: the state of the model: the final one, or that of the last checkpoint.
        begins: where a fit begins that follows: here, or where this one did if it has not finished, since then it is
            tried again.
        num_microbatches: V of the run; `threads` TensorFlow's per worker.
    """

    path: Path
    finished: bool
    state: ModelState
    begins: Beginning
    num_microbatches: int
    threads: int


@dataclass(slots=True)
class TrainedModel:
    """The model of one trainer, which outlives its workers.

    Attributes:
        end: how the last fit has left it; None while no fit has begun.
    """

    end: FitEnd | None = None


def end_of_fit(
    job: FitJob,
    folder: RunFolder,
    store: CheckpointStore | None,
    checkpoint: str | None,
    final: str | None,
    *,
    recorded: bool,
) -> FitEnd:
    """How a fit has left the model, as far as its folder tells.

    Args:
        job: the run.
        folder: the run folder.
        store: the run's checkpoints, None without.
        checkpoint: the last that counts, None without.
        final: name of the final state, empty if it is not kept; None if the run did not come to its end.
        recorded: whether the folder says that it came to its end.
    """
    if final is not None:
        location, name, key = job.final_dir or "", final, job.key
    else:  # workers that have gone further may live: theirs is another state
        location, name, key = "" if store is None else store.location, checkpoint or "", f"{job.key}, unfinished"
    state = ModelState(key=key, location=location, name=name, prepared=job.prepared)
    begins = job.begins
    if recorded:  # else it is tried again, also if it came to its end and that could not be recorded
        numbering, done = job.numbering, folder.record["epochs_done"]
        begins = Beginning(
            state=state,
            epochs=numbering.first_pass + done,
            steps=numbering.first_step + done * job.num_steps,
            sha256=folder.record["sha256"],
            run_dir=str(folder.path),
        )
    return FitEnd(
        path=folder.path,
        finished=recorded,
        state=state,
        begins=begins,
        num_microbatches=job.settings.total_microbatches,
        threads=job.settings.threads,
    )


def end_in_folder(path: Path, prepared: tuple[Shipped, ...], shared: CheckpointStore | None) -> FitEnd:
    """How a fit of another process has left the model, by its run folder.

    Args:
        path: the run folder.
        prepared: the user's functions that have changed the model up to then, in their order.
        shared: where that fit kept its checkpoints, among others'; None for the run folder.

    Raises:
        ConfigurationError: there is no run.
    """
    record = read_record(path)
    store = CheckpointStore(path / CHECKPOINTS) if shared is None else shared.below(str(record["id"]))
    finished, identity = record["state"] == "finished", record.get("identity", {})
    if finished:
        store, name = store.below(FINAL_FOLDER), str(record.get("final") or "")
    else:
        latest, _ = store.latest()
        name = "" if latest is None else latest.name
    state = ModelState(key=uuid.uuid4().hex, location=store.location, name=name, prepared=prepared)
    return FitEnd(
        path=path,
        finished=finished,
        state=state,
        begins=_beginning_after(path, record, state) if finished else Beginning(),
        num_microbatches=identity["num_microbatches"],
        threads=identity["threads_per_worker"],
    )


def _beginning_after(path: Path, record: Mapping[str, Any], state: ModelState) -> Beginning:
    """Where a fit begins that follows a finished one, by the record of that."""
    identity, done = record["identity"], record["epochs_done"]
    per_pass = -(-record["data"]["train"]["rows"] // identity["global_batch_size"])
    steps = min(identity["steps_per_epoch"] or per_pass, per_pass)
    before = identity["begins_from"] or {
        "epochs": identity["initial_epoch"],
        "steps": identity["initial_epoch"] * steps,
    }
    return Beginning(
        state=state,
        epochs=before["epochs"] + done,
        steps=before["steps"] + done * steps,
        sha256=record["sha256"],
        run_dir=str(path),
    )
