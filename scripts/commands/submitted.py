"""``heliostat status``, ``logs``, ``attach``, ``stop`` and ``fetch`` for a submitted run, through its handle."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.cluster.errors import JobServerError, NoAnswerError, NoSuchJobError
from heliostat.cluster.head.api import Head, Job
from heliostat.trainer.driver.display import Display, PlainDisplay, epoch_line
from heliostat.trainer.errors import RunPausedError
from heliostat.trainer.remote.fetch import fetch as fetch_folders
from heliostat.trainer.remote.follow import Outcome, Told, follow, log_until_now, outcome_of, told_until_now
from heliostat.trainer.remote.handle import NEXT, Handle
from heliostat.trainer.remote.listing import list_folders
from heliostat.trainer.remote.wire import Failed, show, split
from heliostat.trainer.storage_thread import telling

from ..endings import INTERRUPTED, Ending, LeftAlone
from ..errors import ScriptError


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedRun:
    """How a submitted run stands.

    Attributes:
        run: its folder here.
        handle: in there.
        job: what the cluster knows of it; None if it does not answer, or knows nothing (any more).
        told: what the job's log has told.
        problem: why there is no `job`.
    """

    run: Path
    handle: Handle
    job: Job | None
    told: Told = field(default_factory=Told)
    problem: str = ""

    def lines(self) -> list[str]:
        """The same for the screen."""
        handle, job, told = self.handle, self.job, self.told
        lines = [f"{self.run}: {self._state()}", f"job {handle.submission_id} at {handle.address}"]
        for path in dict.fromkeys([*handle.runs, *told.folders]):
            host = f" on {told.folders[path].host}" if path in told.folders else ""
            lines.append(f"run folder {path}{host}")
        if told.epoch is not None:
            lines.append(epoch_line(told.epoch.record, told.epoch.epochs, told.epoch.seconds))
        if job is not None and job.is_over and (ending := ending_of(outcome_of(job, told), self.run)) is not None:
            lines.append(ending.message)
        is_over = bool(handle.ended) if job is None else job.is_over
        return [*lines, f"next: heliostat {'fetch' if is_over else 'attach'} {self.run}"]

    def _state(self) -> str:
        if self.job is None:
            heard = f"it had {self.handle.ended.lower()} when it was last heard of. " if self.handle.ended else ""
            return f"not known: {heard}{self.problem}"
        since_s = max(0.0, time.time() - (self.job.ended_s or self.job.started_s or self.handle.created_s))
        when = f"{since_s:.0f} s ago" if self.job.is_over else f"for {since_s:.0f} s"
        return f"{self.job.state.lower()} {when}. {_first_words(self.job.message)}".rstrip()


def look(run: Path) -> SubmittedRun:
    """How the run that a folder stands for stands.

    Raises:
        HandleError: its handle cannot be read.
        PlacementError: what answers at its address is no cluster's job server, or refuses this machine's token.
    """
    handle = Handle.read(run)
    try:
        job, told = told_until_now(Head(handle.address), handle)
        return SubmittedRun(run=run, handle=handle, job=job, told=told)
    except (NoAnswerError, NoSuchJobError) as error:
        return SubmittedRun(run=run, handle=handle, job=None, problem=str(error))


def log_pieces(run: Path, worker: int | None) -> Iterator[bytes]:
    """What the script of a job has printed until now, with what was shown of its runs; or what a worker has printed.

    Args:
        run: the folder that stands for the run.
        worker: of the last run folder; None for the script.

    Raises:
        ScriptError: there is no such log.
        ClusterError: the cluster does not answer, or knows nothing of the job.
    """
    handle = Handle.read(run)
    head = Head(handle.address)
    job, told = told_until_now(head, handle)
    if worker is not None:
        yield from _log_of_worker(head, handle, job, told, worker)
    elif job.node_id:
        shown = io.StringIO()
        screen = PlainDisplay(shown)
        for line in log_until_now(head, job):
            printed, message = split(line)
            if printed or message is None:
                screen.say(printed)
            if message is not None:
                show(message, screen)
        yield shown.getvalue().encode()


def attach(run: Path, screen: Display) -> int:
    """Show a job from its beginning until it ends, and bring its run folders here; see `watch`."""
    handle = Handle.read(run)
    head = Head(handle.address)
    head.check()
    return watch(head, handle, run, screen)


def watch(head: Head, handle: Handle, run: Path, screen: Display) -> int:
    """Show a job until it ends, then bring its run folders here; returns its exit status.

    Args:
        head: the cluster.
        handle: the job; what more is known of it is written into `run`.
        run: the folder that stands for it here.
        screen: what the user sees.

    Raises:
        LeftAlone: Ctrl-C.
        Ending: the run has failed, or was paused; or Ctrl-C has ended the fetching.
        FetchError, ClusterError, StorageError: its run folders cannot be brought here.
    """
    known = [handle]

    def note(new: Handle) -> None:
        known[0] = new
        new.write_news(run)

    try:
        outcome = follow(head, handle, screen, note)
    except KeyboardInterrupt:
        raise LeftAlone(run, NEXT) from None
    ending = ending_of(outcome, run)
    try:
        if known[0].runs:
            fetch_folders(head, known[0], run, screen, Told(folders=outcome.folders, files=outcome.files))
    except KeyboardInterrupt:
        raise Ending(f"The run is over; not all of it is here: heliostat fetch {run} goes on.", INTERRUPTED) from None
    except Exception as error:
        if ending is not None:
            error.add_note(ending.message)
        raise
    if ending is not None:
        raise ending
    return outcome.exit_status


def ending_of(outcome: Outcome, run: Path | None) -> Ending | None:
    """What is to be said of a job that did not end well; None if it did. `run` stands for it, None if nothing does."""
    status, failed = outcome.exit_status, outcome.failed
    go_on = "" if run is None else f" The same heliostat submit with --run-dir {run} goes on from the last checkpoint."
    if failed is not None:
        if status == RunPausedError.exit_status:
            return Ending(f"{_pause_of(failed)}{go_on}", status)
        return Ending(
            f"Error: {failed.message}" if failed.is_ours else (failed.traceback or failed.message).rstrip(), status
        )
    if outcome.is_killed:
        return Ending(
            f"Error: The driver of the job has ended without a word: it was killed (by hand, or for want of memory), "
            f"or its machine went down.{go_on}\nRay says: {_first_words(outcome.message)}",
            status,
        )
    if outcome.state == "STOPPED":
        return Ending("The job was stopped before its script could pause a run.", status)
    return Ending(f"Error: The job has failed. Ray says: {_first_words(outcome.message)}", status) if status else None


def stop(run: Path, screen: Display) -> int:
    """Let a job's run pause with a checkpoint, and wait until it has; returns 0 if the job has ended by that.

    Raises:
        ScriptError: the job is over.
        ClusterError: the cluster does not answer, or knows nothing of the job.
    """
    handle = Handle.read(run)
    head = Head(handle.address)
    job = head.job(handle.submission_id)
    if job.is_over:
        raise ScriptError(f"Nothing is to stop: the job {handle.submission_id} has {job.state.lower()}.")
    head.stop(handle.submission_id)
    screen.say(f"asked the job {handle.submission_id} to pause; it ends its step and writes a checkpoint")
    with telling(lambda seconds: screen.say(f"the job has not ended for {seconds:.0f} s")):
        outcome = follow(head, handle, Display(), lambda new: new.write_news(run))
    ending = ending_of(outcome, run)
    screen.say(f"it has {outcome.state.lower()}" if ending is None else ending.message)
    if outcome.folders:
        screen.say(f"heliostat fetch {run} brings its run folder here")
    return 0 if outcome.state in ("STOPPED", "SUCCEEDED") else 1


def fetch(run: Path, screen: Display) -> None:
    """Bring the run folders of a job here, as they are now; raises FetchError, ClusterError, StorageError."""
    handle = Handle.read(run)
    head = Head(handle.address)
    head.check()
    fetch_folders(head, handle, run, screen)


def _pause_of(failed: Failed) -> str:
    """A sentence or two on a pause of a run on a cluster, without paths of there."""
    reason, checkpoint = failed.details.get("reason"), failed.details.get("checkpoint")
    kept = "Nothing of it was saved." if checkpoint is None else f"Its state is in checkpoint {checkpoint}."
    return failed.message if reason is None else f"The run was paused: {reason}. {kept}"


def _first_words(message: str) -> str:
    """What Ray says of a job, without the end of the log that it adds."""
    return message.partition(", last available logs")[0].partition("\n")[0]


def _log_of_worker(head: Head, handle: Handle, job: Job, told: Told, worker: int) -> Iterator[bytes]:
    """What a worker has printed into the run folder that was opened last."""
    if not told.folders:
        raise ScriptError(f"The job {handle.submission_id} has no run folder yet, and so no logs of workers.")
    opened, name = list(told.folders.values())[-1], f"logs/worker-{worker}.log"
    files = told.files.get(opened.path)
    node_id, link = (job.node_id, opened.link) if files is None or not files.link else (files.node_id, files.link)
    try:
        yield from head.read(node_id, f"{link}/{name}")
    except JobServerError:  # no such file, or no such link any more
        found = list_folders(head, handle, [opened.path], Display()).get(opened.path)
        names = [] if found is None else [each for each in found.files if each.startswith("logs/")]
        if found is None or name not in names:
            there = f"It has {', '.join(names)}." if names else "No worker has printed anything."
            raise ScriptError(f"{opened.path!r} has no logs of worker {worker}. {there}") from None
        yield from head.read(found.node_id, f"{found.link}/{name}")
