"""What a call does in a folder here in which there is a handle already: attach, take the result, or submit again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import xxhash
from heliostat.cluster.errors import NoSuchJobError
from heliostat.cluster.head.api import Head

from ..code_digests import changed_code
from ..driver.display import Display
from ..driver.finished import MAX_CHANGED
from ..driver.run_folder import RUN_FILE, read_record
from ..driver.runs import FitCall
from ..errors import ConfigurationError
from ..errors.texts import listed
from ..trainer_config import TrainerConfig
from .call_folder import plain_columns
from .enclosed import Rows
from .handle import Handle

ARGUMENTS = "arguments of the call"  # among the hashes of a handle
# What of the settings decides the result.
_SETTINGS = ("num_microbatches", "threads_per_worker", "seed", "deterministic", "gradient_dtype")
_WANTED = (
    *("loop", "epochs", "initial_epoch", "global_batch_size", "steps_per_epoch", "shuffle"),
    *("validation_sample_weight", "validation_freq", "validation_steps", "validation_batch_size"),
)
Step = Literal["submit", "attach", "take"]


def hashes_of(settings: TrainerConfig, call: FitCall, rows: Sequence[Rows], begins: Path | None) -> dict[str, str]:
    """Hashes of all that decides the result of a fit: of its arguments, and of the user's code by name.

    Args:
        settings: the trainer's.
        call: what is asked for.
        rows: its data.
        begins: the run folder here of the fit that it goes on from; None for a new model.
    """
    arguments = [
        *(getattr(settings, name) for name in _SETTINGS),
        *(getattr(call.wanted, name) for name in _WANTED),
        plain_columns(call.wanted.columns),
        [each.identity for each in rows],
        call.begins_with,
        None if begins is None else read_record(begins).get("sha256"),
    ]
    digest = xxhash.xxh3_128_hexdigest(msgspec.json.encode(arguments))
    return {ARGUMENTS: digest, **call.code, **call.wanted.code_digests}


def handle_in(path: Path, head: Head, call: FitCall) -> Handle | None:
    """The handle in a folder here; None without.

    Raises:
        ConfigurationError: it is one of another cluster, or there must be no run in the folder.
    """
    if not Handle.is_in(path):
        return None
    handle = Handle.read(path)
    if handle.what != "call" or handle.address.rstrip("/") != head.address:
        raise ConfigurationError(
            f"{str(path)!r} holds a run that was submitted to {handle.address} as a {handle.what}. Give another "
            f"run_dir; 'heliostat status {path}' tells of that one."
        )
    if call.wanted.resume is False:
        raise ConfigurationError(
            f"{str(path)!r} holds a run already. Give another run_dir, leave it out to get a new one, or leave out "
            "resume=False to go on with that run."
        )
    return handle


def step_for(handle: Handle, path: Path, hashes: Mapping[str, str], head: Head, screen: Display) -> Step:
    """What is to be done about a job that was submitted before.

    Args:
        handle: of the job.
        path: the run folder here.
        hashes: of what is wanted now, from `hashes_of`.
        head: the cluster.
        screen: what the user sees.
    """
    changed = changed_code(handle.code, hashes)
    names = listed(changed, MAX_CHANGED)
    if handle.ended == "SUCCEEDED" and not changed:
        is_here = (path / RUN_FILE).exists() and read_record(path)["state"] == "finished"
        return "take" if is_here else "attach"
    if handle.ended:
        return "submit"
    try:
        job = head.job(handle.submission_id)
    except NoSuchJobError:
        screen.say(f"the cluster has forgotten the job {handle.submission_id}; the run goes on from what is there")
        return "submit"
    if not job.is_over:
        screen.say(f"attaching to the job {handle.submission_id}, which runs already")
        if changed:
            screen.say(
                f"warning: {names} have changed since; the job runs with those of then. Stop it (heliostat stop "
                f"{path}) and call again to go on with those of now, or give another run_dir"
            )
        return "attach"
    if job.state == "SUCCEEDED" and not changed:
        return "attach"
    screen.say(f"the job {handle.submission_id} has ended meanwhile ({job.state.lower()}); the run goes on in another")
    return "submit"
