"""The generic half of a worker: it hosts one object and runs its tasks on one thread, as a member of the group.

What the object computes is none of its business: `trainer/` puts its worker in. Frameworks keep state per thread, so
the object is made and called on the same thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import mmap
import os
import queue
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from ..allreduce.listener import Listener
from ..errors import ClusterError, CollectiveError, Dismissed
from ..links import LinksJob, measure_links, unreached
from ..spec import GroupSpec
from .liveness import Heartbeat
from .mailbox import Mailbox
from .member import Member
from .messages import Address, Failure, FailureKind, TaskEnded
from .user_frames import one_reason, user_frame, user_frames

MEMORY_FOLDER = "/dev/shm"
_DIGITS, _EXIT_DIGITS = 20, 4


class WorkerKilled(BaseException):
    """Raised inside a worker of this process, ends it as a signal ends a process."""


class WorkerProcess:
    """Hosts one object made by `factory(slot)`, whose tasks are methods that take (job, member).

    Args:
        factory: makes the hosted object, called on the thread on which its tasks will run.
        spec: of the worker's group.
        mailbox: the worker's channel to the driver, for what its tasks say and how they end.
        slot: which share of its machine this worker uses.

    Raises:
        whatever the factory raises.
    """

    def __init__(self, factory: Callable[[int], object], spec: GroupSpec, mailbox: Mailbox, slot: int = 0) -> None:
        self.worker, self._spec, self._mailbox = mailbox.worker, spec, mailbox
        self._listener: Listener | None = None
        self._member: Member | None = None
        self._tasks: queue.SimpleQueue[tuple[str, object, Member] | None] = queue.SimpleQueue()
        made: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(factory, slot, made), name=thread_name(self.worker), daemon=True
        )
        self._thread.start()
        made.result()

    def listen(self, interface: str) -> Address:
        """Open this worker's listener on an interface; returns its address."""
        if self._listener is None:
            self._listener = Listener(interface)
        return self._listener.address

    def begin(self, method: str, job: object, note_step: Callable[[int | None], None] = lambda step: None) -> None:
        """Begin a task; the mailbox brings its events to the driver, and at last a `TaskEnded`.

        Args:
            method: of the hosted object; it takes the job and this worker's `Member`.
            job: what to call it with; a `LinksJob` is not the hosted object's, but done by all workers together.
            note_step: called with the number of every step that begins.
        """
        if self._listener is None:
            raise ClusterError(f"worker {self.worker} was given a task before it had an address")
        self._listener.forget_aborts()
        self._member = Member(self.worker, self._mailbox, self._listener, self._spec, note_step)
        self._tasks.put((method, job, self._member))

    def answer(self, number: int, reply: object) -> None:
        """Answer the task's request of this number; from any thread."""
        self._mailbox.answer(number, reply)

    def abort(self, generation: int, reason: str) -> None:
        """Wake the task out of whatever it waits for in this generation; from any thread."""
        if (member := self._member) is not None:
            member.abort(generation, reason)

    def heartbeat(self) -> Heartbeat | None:
        """What the task does, None between tasks; from any thread."""
        return None if (member := self._member) is None else member.heartbeat()

    def close(self, reason: str = "the worker is closed") -> None:
        """Close everything this process opened for the worker; a running task ends at its next call."""
        self._mailbox.close(reason)
        self.abort(1 << 62, reason)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._tasks.put(None)

    def join(self, wait_s: float) -> None:
        """Wait until the thread that computes has ended, for so many seconds at most; after `close`."""
        self._thread.join(wait_s)

    def _serve(self, factory: Callable[[int], object], slot: int, made: Future[None]) -> None:
        try:
            hosted = factory(slot)
        except BaseException as error:  # raised where the worker is made
            made.set_exception(error)
            return
        made.set_result(None)
        while (task := self._tasks.get()) is not None:
            ended = self._run(hosted, *task)
            self._member = None
            self._mailbox.put(ended)

    def _run(self, hosted: object, method: str, job: object, member: Member) -> TaskEnded:
        try:
            if isinstance(job, LinksJob) and self._listener is not None:
                together: dict[str, Callable[[Listener, int, LinksJob], object]] = {
                    "links": measure_links,
                    "unreached": unreached,
                }
                return TaskEnded(worker=self.worker, result=together[method](self._listener, self.worker, job))
            return TaskEnded(worker=self.worker, result=getattr(hosted, method)(job, member))
        except Dismissed as dismissed:
            return TaskEnded(worker=self.worker, result=dismissed.result)
        except BaseException as error:  # sys.exit() in the user's code too; the driver raises it
            return TaskEnded(worker=self.worker, failure=failure_of(error, self.worker, member.step))
        finally:
            member.leave()  # the peers see at once that this worker has left the step


def failure_of(error: BaseException, worker: int, step: int | None) -> Failure:
    """Describe an exception that a task, or the making of a worker, has raised.

    Args:
        error: what was raised.
        worker: where.
        step: the step of the run that the worker was at, None outside of steps.
    """
    if isinstance(error, WorkerKilled):
        return Failure(worker=worker, kind="died", reason=str(error))
    kind: FailureKind = "lost_peer" if isinstance(error, CollectiveError) else "raised"
    return Failure(
        worker=worker,
        kind=kind,
        reason=one_reason(error),
        step=step,
        traceback="".join(traceback.format_exception(error)),
        error=error,
        where=user_frame(error),
        frames=user_frames(error),
    )


def thread_name(worker: int) -> str:
    """Name of the thread on which a worker computes."""
    return f"heliostat-worker-{worker}"


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()


# -- where a process is killed ----------------------------------------------------------------------------------------


def log_path(folder: str, worker: int) -> str:
    """Where a worker prints, in the folder for all of them."""
    return os.path.join(folder, f"worker-{worker}.log")


class StepMark:
    """The step at which a worker is, where it outlives the worker: a mapped file in its machine's memory.

    The kernel keeps what was written into a map when the process is killed, so a driver on this machine learns the
    exact step of a death; one on another machine has the last heartbeat's, which may be a second old. Writing it costs
    a microsecond and no system call. It is on no disk, for storage that stalls would hold up the step, and heartbeats
    with it. The mark also tells an exit of the user's own (`os._exit`) from a kill, to a driver on another machine too.

    The mark of a worker whose driver is gone as well is removed when this user's next run begins on the machine.

    Args:
        log: the worker's log file, by whose path the driver finds the mark.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, log: str) -> None:
        self._log, self._path = log, _mark_path(log)
        _sweep(self._path)
        for left in (self._path, _last_words_path(log)):  # by a worker of this number that the run had before
            _remove(left)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends: the map holds the file open
            os.write(file, b" " * (_DIGITS + _EXIT_DIGITS))
            self._map = mmap.mmap(file, _DIGITS + _EXIT_DIGITS)
        finally:
            os.close(file)

    def note(self, step: int | None) -> None:
        """This worker is at `step` from now on; None for no step."""
        self._map[:_DIGITS] = b" " * _DIGITS if step is None else b"%020d" % step

    def note_exit(self, status: int) -> None:
        """This process ends itself now: of this the kernel tells nobody but its parent."""
        self._map[_DIGITS:] = b"%04d" % (status & 0xFF)
        with contextlib.suppress(OSError), open(_last_words_path(self._log), "wb") as file:
            file.write(self._map[:])

    def close(self) -> None:
        """The task is over: remove the file."""
        self._map.close()
        _remove(self._path)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a dead worker has left: the last step that it noted, and the status with which it ended itself.

    Either is None where there is none.
    """

    step: int | None = None
    exit_status: int | None = None


def take_mark(log: str | None) -> Mark:
    """What a dead worker with this log noted (None: it has none); removes the files. Reads the run folder."""
    found = Mark()
    for path in () if log is None else (_last_words_path(log), _mark_path(log)):
        try:
            with open(path, "rb") as file:
                step, status = file.read(_DIGITS).strip(), file.read(_EXIT_DIGITS).strip()
            found = Mark(int(step) if step else None, int(status) if status else None)
        except (OSError, ValueError):
            continue
        _remove(path)
    return found


def _last_words_path(log: str) -> str:
    """Where a process that ends itself notes that for a driver on another machine: beside its log."""
    return f"{log.removesuffix('.log')}.step"


def _mark_path(log: str) -> str:
    """Where this machine keeps the mark of the worker with this log: in memory, where a system has such a folder."""
    folder = MEMORY_FOLDER if os.path.isdir(MEMORY_FOLDER) else tempfile.gettempdir()
    run = hashlib.sha256(os.path.dirname(log).encode()).hexdigest()[:16]
    return os.path.join(folder, f"heliostat-{os.getuid()}-{run}-{os.path.basename(_last_words_path(log))}")


def _sweep(path: str) -> None:
    """Remove what dead workers of other runs have left beside a mark; this run's driver may still read its own."""
    folder, name = os.path.split(path)
    user, run = name.split("-")[1:3]
    for other in glob.glob(os.path.join(glob.escape(folder), f"heliostat-{user}-*.step")):
        if f"-{run}-" in other:
            continue
        with contextlib.suppress(OSError), open(other, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it
            os.remove(other)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)
