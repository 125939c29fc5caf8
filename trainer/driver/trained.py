"""What the model of a trainer is at present: new, or as the last fit has left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.store import CheckpointStore
from ..jobs import Beginning, FitJob, ModelState
from .run_folder import RunFolder


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
