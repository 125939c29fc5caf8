"""``heliostat submit``: a script as a job of a cluster, shown here as if it ran here, and brought here at its end.

A folder on this machine stands for the run (``RUN``): the handle is in it before the job is made (`remote.handle`), the
run folder after its end. The same command with the same folder finds the handle: a job that lives is not made twice,
and after one that has ended the script is submitted again, changed or not, and goes on with the run folder that it has
on the cluster.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from heliostat.cluster.errors import NoAnswerError, NoSuchJobError
from heliostat.cluster.head.api import Head
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.run_folder import RUN_FILE
from heliostat.trainer.driver.run_paths import make_new, new_run_path
from heliostat.trainer.driver.shown_text import masked_arguments
from heliostat.trainer.environment import Command
from heliostat.trainer.remote.alone import alone_in
from heliostat.trainer.remote.follow import follow
from heliostat.trainer.remote.handle import NEXT, Handle, new_submission_id
from heliostat.trainer.remote.job_wanted import MODULE, JobWanted
from heliostat.trainer.remote.packing import Packing, pack_folder
from heliostat.trainer.remote.submitting import Shipment, submit_shipment
from heliostat.trainer.storage_thread import telling

from ..endings import INTERRUPTED, Ending, LeftAlone
from ..errors import ScriptError
from .submitted import ending_of, watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is to be run where.

    Attributes:
        script: the script; `arguments` are its own.
        address: of the cluster's job server.
        workers: how many workers its trainers have, whatever it says; None for those that it says.
        run_dir: the folder here that stands for the run; None for a new one.
    """

    script: Path
    arguments: tuple[str, ...]
    address: str
    workers: int | None = None
    run_dir: Path | None = None


def submit(wanted: Submission, screen: Display) -> int:
    """Submit a script and follow it; returns the exit status of the run.

    Raises:
        ScriptError: the folder for the run is another run's, or its job lives.
        ConfigurationError: the script's folder is too large.
        ClusterError: the cluster does not answer, or refuses.
        StorageError: the folder cannot be written.
    """
    head = Head(wanted.address)
    version = head.check()
    with nullcontext() if wanted.run_dir is None else alone_in(wanted.run_dir, screen.say):
        handle, run = _submitted(wanted, head, version, screen)
    return watch(head, handle, run, screen)


def plan(wanted: Submission, screen: Display) -> int:
    """Say what is sent, and let a job say how the script's first task would be computed; nothing of it is kept.

    Returns:
        the exit status of the job.

    Raises:
        Ending: the script has failed before its first task, or has none; or Ctrl-C.
        ScriptError, ConfigurationError, ClusterError: what `submit` raises.
    """
    head = Head(wanted.address)
    version = head.check()
    earlier = None if wanted.run_dir is None else earlier_handle(wanted.run_dir, wanted.script)
    packing = _packed(wanted.script, head, version, screen)
    handle = _handle(wanted, head, earlier)
    shipment = _shipment(wanted, handle, packing, screen, plan=True)
    screen.say(f"job {handle.submission_id} at {head.address} makes the plan, and trains nothing")
    submit_shipment(head, handle, shipment, None, screen.say)
    try:
        outcome = follow(head, handle, screen, lambda news: None)
    except KeyboardInterrupt:
        head.stop(handle.submission_id)
        raise Ending("The plan was given up; its job is stopped.", INTERRUPTED) from None
    if (ending := ending_of(outcome, None)) is not None:
        raise ending
    return outcome.exit_status


def _submitted(wanted: Submission, head: Head, version: str, screen: Display) -> tuple[Handle, Path]:
    """Make the job; its handle, and the folder that stands for it.

    Args:
        wanted: what is to be run where.
        head: the cluster.
        version: of Ray there.
        screen: what the user sees.
    """
    earlier = None if wanted.run_dir is None else earlier_handle(wanted.run_dir, wanted.script)
    packing = _packed(wanted.script, head, version, screen)
    handle = _handle(wanted, head, earlier)
    run = make_new(new_run_path(wanted.script.stem)) if wanted.run_dir is None else wanted.run_dir
    shipment = _shipment(wanted, handle, packing, screen)
    screen.say(f"job {handle.submission_id} at {head.address}; it is {run} here, for attach, logs, stop and fetch")
    try:
        submit_shipment(head, handle, shipment, run, screen.say)
    except KeyboardInterrupt:
        if not Handle.is_in(run) or Handle.read(run).submission_id != handle.submission_id:
            raise  # there is no job
        raise LeftAlone(run, NEXT) from None
    finally:
        with suppress(OSError):
            run.rmdir()  # if it is empty: nothing was submitted
    return handle, run


def _packed(script: Path, head: Head, version: str, screen: Display) -> Packing:
    """The folder of a script as it is sent; arguments as for `_submitted`."""
    folder = script.resolve().parent
    screen.say(f"Ray {version} answers at {head.address}; packing {folder}")
    with telling(lambda seconds: screen.say(f"packing {folder}, for {seconds:.0f} s")):
        packing = pack_folder(folder)
    num_bytes = len(packing.code) + sum(map(len, packing.data))
    screen.say(f"{packing.num_files} files, {num_bytes / 1e6:,.1f} MB packed{packing.said and f'; {packing.said}'}")
    return packing


def _handle(wanted: Submission, head: Head, earlier: Handle | None) -> Handle:
    """The handle of a new job; what an `earlier` one has opened on the cluster is known to it."""
    return Handle(
        address=head.address,
        submission_id=new_submission_id(wanted.script.stem),
        what="script",
        script=str(wanted.script),
        arguments=tuple(masked_arguments(wanted.arguments)),
        workers=wanted.workers,
        runs=() if earlier is None else earlier.runs,
        last_run="" if earlier is None else earlier.last_run,
        fit=0 if earlier is None else earlier.fit,
    )


def _shipment(wanted: Submission, handle: Handle, packing: Packing, screen: Display, *, plan: bool = False) -> Shipment:
    """What the job consists of.

    Args:
        wanted: what is to be run where.
        handle: of the job.
        packing: the folder of the script.
        screen: what the user sees.
        plan: whether its first task is only to be told.
    """

    def argument(data: tuple[str, ...]) -> str:
        return JobWanted(
            what="script",
            job=handle.submission_id,
            script=wanted.script.resolve().name,
            arguments=wanted.arguments,
            data=data,
            workers=wanted.workers,
            plan=plan,
        ).to_text()

    return Shipment(
        module=MODULE, argument=argument, code=packing.code, data=packing.data, variables=_going_on(handle, screen)
    )


def earlier_handle(run: Path, script: Path) -> Handle | None:
    """The handle of the job that a folder had until now; None if it is free for a run.

    Args:
        run: the folder.
        script: that is to be submitted.

    Raises:
        ScriptError: the folder is another run's, or its job lives.
        HandleError: its handle cannot be read.
        ClusterError: it cannot be known whether its job lives.
    """
    if not Handle.is_in(run):
        if (run / RUN_FILE).exists():
            raise ScriptError(f"{str(run)!r} holds a run of this machine. Give another --run-dir.")
        return None
    handle = Handle.read(run)
    if handle.what != "script" or Path(handle.script).name != script.name:
        made_by = handle.script or "a notebook"
        raise ScriptError(f"{str(run)!r} holds a run of {made_by}, not of {script}. Give another --run-dir.")
    try:
        lives = not handle.ended and not Head(handle.address).job(handle.submission_id).is_over
    except NoSuchJobError:
        return handle
    except NoAnswerError as error:
        error.add_note(f"Whether the job lives that {run} stands for is not known. Give another --run-dir.")
        raise
    if lives:
        raise ScriptError(
            f"The job {handle.submission_id} of {str(run)!r} lives: heliostat attach {run} shows it, heliostat stop "
            f"{run} pauses it; then the same command goes on with it."
        )
    return handle


def _going_on(handle: Handle, screen: Display) -> dict[str, str]:
    """What lets a script go on with the run folder that it has opened last on the cluster, in the fit that did."""
    if not handle.last_run:
        return {}
    screen.say(f"going on with the run folder {handle.last_run} on the cluster")
    return Command(run_dir=Path(handle.last_run), fit=handle.fit).variables()
