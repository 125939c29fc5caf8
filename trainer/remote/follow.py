"""Following a job: its log is the one line between it and whoever submitted it.

What runs in the job says everything in its log: lines of the user's own, and messages of ours (`wire`). Here they are
read and shown as if the run were in this process. Three things can go wrong with that line, and none ends a run:

- **the tail ends early**, without a word, while the job goes on (ray#57037, ray#60665). So an end is believed only from
  the job's status. After every other one the log is asked for anew; it comes from the beginning, and as many lines are
  passed over as were seen;
- **the cluster does not answer**: a laptop's lid was closed, or its network is another one. That is said, with how long
  it has been. There is no limit, for the job does not depend on who looks, and Ctrl-C leaves at any moment;
- **nothing comes**, since the job waits for its environment, or for Python to load. Until its first line its state is
  said every few seconds; later the driver says what it waits for.

What a log has told is a value (`Told`) that knows nothing of connections.

What was not done: a connection to the driver itself (another port, which no firewall lets through), asking for the
whole log again and again (it grows, and everything would come late), and events in files (the log is kept, in order,
and there).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from heliostat.cluster.errors import ClusterError, NoAnswerError, NoSuchJobError
from heliostat.cluster.head.api import Head, Job

from ..driver.display import Display
from ..storage_thread import telling
from .handle import Handle
from .wire import Done, EpochDone, Failed, Files, FolderOpened, Message, StageBegun, lines_of, show, split

SILENT_S = 8.0  # so that nothing is silent for ten
AGAIN_S = 1.0
_TRIES = 5  # to read the log of a job that is over to its end
_ENDED_BY_SIGTERM = 143


@dataclass(slots=True)
class Told:
    """What the log of a job has told until now.

    Attributes:
        num_lines: how many lines were seen.
        folders: the run folders by their paths, in the order in which they were opened.
        files: what is in a run folder, by its path.
        epoch: the last one that ended.
        failed: how the script or call failed.
        done: that it came to its end.
    """

    num_lines: int = 0
    folders: dict[str, FolderOpened] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    epoch: EpochDone | None = None
    failed: Failed | None = None
    done: Done | None = None

    def take(self, line: str) -> tuple[str, Message | None]:
        """Count a line, and note what it says; what somebody has printed in it, and the message in it."""
        self.num_lines += 1
        printed, message = split(line)
        match message:
            case FolderOpened(path=path):
                self.folders[path] = message
            case Files(path=path):
                before = self.files.get(path, message)
                known = before.files if before.link == message.link else {}
                self.files[path] = replace(message, files={**known, **message.files})
            case EpochDone():
                self.epoch = message
            case Failed():
                self.failed = message
            case Done():
                self.done = message
        return printed, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job has ended.

    Attributes:
        state: "SUCCEEDED", "FAILED" or "STOPPED", as Ray says.
        exit_status: as that of the same script on this machine: 0, 1 after an error, 75 after a pause.
        message: what Ray says of it.
        is_killed: whether its driver ended without a word, as a process does that is killed.
        folders: see `Told`; likewise `files`, `failed` and `done`.
    """

    state: str
    exit_status: int
    message: str = ""
    is_killed: bool = False
    folders: dict[str, FolderOpened] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    failed: Failed | None = None
    done: Done | None = None


def outcome_of(job: Job, told: Told) -> Outcome:
    """How a job has ended that is over, by what Ray and its log say."""
    is_silent, code = told.failed is None and told.done is None, job.exit_code
    state = "SUCCEEDED" if job.state == "STOPPED" and told.done is not None else job.state  # it had done all by then
    return Outcome(
        state=state,
        exit_status=exit_status_of(state, job.exit_code, told.failed),
        message=job.message,
        is_killed=is_silent and job.state == "FAILED" and (code is None or code < 0),
        folders=dict(told.folders),
        files=dict(told.files),
        failed=told.failed,
        done=told.done,
    )


def exit_status_of(state: str, exit_code: int | None, failed: Failed | None) -> int:
    """The exit status of a job that is over.

    Args:
        state: of the job.
        exit_code: of its driver, the negative number of a signal that ended it; None if Ray does not know.
        failed: what the job said of a failure, None if nothing.
    """
    if failed is not None:
        return failed.exit_status
    if state == "SUCCEEDED":
        return 0
    if exit_code:
        return exit_code if exit_code > 0 else 128 - exit_code
    return _ENDED_BY_SIGTERM if state == "STOPPED" else 1


def follow(head: Head, handle: Handle, screen: Display, note: Callable[[Handle], None] = lambda _: None) -> Outcome:
    """Show what a job says, from its first line, until it has ended.

    Args:
        head: the cluster.
        handle: the job.
        screen: what the user sees.
        note: called with the handle when more is known of the job.

    Raises:
        NoSuchJobError: the cluster does not know the job.
        PlacementError: what answers at the address is another cluster, or takes this machine's token no more.
        KeyboardInterrupt: Ctrl-C; the job goes on.
    """
    follower, tries = _Follower(head, handle, screen, note), 0
    while True:
        ended = follower.ended()
        is_whole = follower.read()
        tries += ended is not None
        if ended is not None and (is_whole or tries == _TRIES):
            return follower.end(ended)
        time.sleep(AGAIN_S)


def told_until_now(head: Head, handle: Handle) -> tuple[Job, Told]:
    """A job, and what its log has told until now, without waiting for more; raises as `follow`."""
    job, told = head.job(handle.submission_id), Told()
    if job.node_id:
        with contextlib.suppress(ClusterError):  # there is no log yet, or its machine is gone
            for line in log_until_now(head, job):
                told.take(line)
    return job, told


def log_until_now(head: Head, job: Job) -> list[str]:
    """The lines that a job has written until now, messages and all; raises ClusterError if there is no log."""
    content = b"".join(head.read(job.node_id, f"job-driver-{job.submission_id}.log"))
    return lines_of(content.decode(errors="replace"))


class _Follower:
    """One that follows a job: what it has seen, and what it says of waits."""

    def __init__(self, head: Head, handle: Handle, screen: Display, note: Callable[[Handle], None]) -> None:
        self._head, self._handle, self._screen, self._note = head, handle, screen, note
        self.told = Told()
        self._began_s, self._stage, self._is_heard = time.monotonic(), "", False
        self._of_ray: list[str] = []  # what stands in the log before the job's own process begins

    def ended(self) -> Job | None:
        """The job if it has ended, None if it has not; waits while the cluster does not answer."""

        def tell(seconds: float) -> None:
            self._screen.say(
                f"{self._handle.address} has not answered for {seconds:.0f} s; the job does not depend on that, and "
                "Ctrl-C leaves it alone"
            )

        with telling(tell):
            while True:
                with contextlib.suppress(NoAnswerError):
                    job = self._head.job(self._handle.submission_id)
                    return job if job.is_over else None
                time.sleep(AGAIN_S)

    def read(self) -> bool:
        """Read the log from where it was left until its tail ends; whether that is known to be the log's end."""
        to_skip, stands_still = self.told.num_lines, False
        lines = self._head.log_lines(self._handle.submission_id, silent_s=SILENT_S)
        try:
            with contextlib.closing(lines):
                for line in lines:
                    if line is None:
                        ended, before = self.ended() is not None, stands_still
                        if ended and before:
                            return False
                        stands_still = ended
                        self._say_waiting()
                    elif to_skip:
                        to_skip -= 1
                    else:
                        self._take(line)
            return True
        except NoSuchJobError:
            raise
        except ClusterError:  # why a tail ends says nothing; the job's status is asked next
            return False

    def end(self, job: Job) -> Outcome:
        """Note how the job has ended."""
        for line in self._of_ray:
            self._screen.say(line)
        outcome = outcome_of(job, self.told)
        self._update(replace(self._handle, ended=outcome.state, exit_status=outcome.exit_status))
        return outcome

    def _take(self, line: str) -> None:
        printed, message = self.told.take(line)
        if isinstance(message, StageBegun):
            if not self._stage:
                self._screen.say("the job has begun: Python loads there what it needs")
                self._of_ray.clear()
            self._stage = message.stage
        elif not self._stage and message is None:
            self._of_ray.append(printed)
            return
        self._is_heard = self._is_heard or not isinstance(message, StageBegun)
        if printed or message is None:
            self._screen.say(printed)
        if isinstance(message, FolderOpened):
            fit = 1 + list(self.told.folders).index(message.path)
            self._update(self._handle.opened(message.path, fit))
        if message is not None:
            show(message, self._screen)

    def _say_waiting(self) -> None:
        """Until the job says something of its own, say how it stands."""
        waited_s = time.monotonic() - self._began_s
        if self._is_heard:
            return
        if self._stage:
            self._screen.say(f"the job is at '{self._stage}', after {waited_s:.0f} s")
        else:
            job = self._head.job(self._handle.submission_id)
            self._screen.say(f"the job is {job.state.lower()} after {waited_s:.0f} s: {job.message}")

    def _update(self, handle: Handle) -> None:
        if handle != self._handle:
            self._handle = handle
            self._note(handle)
