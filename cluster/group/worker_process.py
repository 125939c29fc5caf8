"""The generic half of a worker: it hosts one object and runs its tasks on one thread, as a member of the group.

What the object computes is none of its business: `trainer/` puts its worker in. Frameworks keep state per thread, so
every call of the hosted object is made on the same thread.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..allreduce.listener import Listener
from ..errors import CollectiveError, Dismissed
from ..links import LinksJob, measure_links
from .controller_state import Failure
from .mailbox import Mailbox
from .membership import Member
from .messages import Heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """How long a member waits.

    Attributes:
        first_deadline_s: for a silent peer, before steps have been timed.
        deadline_s: the same afterwards; None for ten times the median step, at least five seconds.
    """

    first_deadline_s: float
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended on one worker: a result (None for most), or a failure."""

    result: Any = None
    failure: Failure | None = None


class Host:
    """Hosts one object made by `factory(slot)`, whose tasks are methods that take (job, member).

    Args:
        factory: makes the hosted object, called on the host's own thread.
        worker: number of this worker.
        slot: which share of its process or machine this worker uses.
        mailbox: its channel to the driver.
        in_caller: run tasks on the calling thread instead of one of the host's own (for debuggers).
    """

    def __init__(
        self,
        factory: Callable[[int], Any],
        *,
        worker: int,
        slot: int = 0,
        mailbox: Mailbox,
        in_caller: bool = False,
    ) -> None:
        self.worker, self.mailbox = worker, mailbox
        self._executor = None if in_caller else ThreadPoolExecutor(1, thread_name_prefix=thread_name(worker))
        self._listener: Listener | None = None
        self._member: Member | None = None
        try:
            self._hosted: Any = self._submit(factory, slot).result()
        except BaseException:
            self.close()
            raise

    def listen(self, interface: str) -> tuple[str, int]:
        """Open this worker's listener on an interface; returns its address."""
        if self._listener is None:
            self._listener = Listener(interface)
        return self._listener.address

    def run(
        self,
        method: str,
        job: Any,
        limits: TaskLimits,
        note_step: Callable[[int | None], None] = lambda step: None,
    ) -> Outcome:
        """Run one task to its end and say how it ended; never raises for what the task does."""
        if self._listener is not None:
            self._listener.forget_aborts()
        self._member = Member(
            self.worker,
            self.mailbox,
            self._listener,
            first_deadline_s=limits.first_deadline_s,
            deadline_s=limits.deadline_s,
            note_step=note_step,
        )
        return self._submit(self._run, method, job, self._member).result()

    def abort(self, generation: int, reason: str) -> None:
        """Wake the task out of whatever it waits for in this generation; from any thread."""
        if self._member is not None:
            self._member.abort(generation, reason)

    def heartbeat(self) -> Heartbeat | None:
        """What the task does; from any thread."""
        return None if self._member is None else self._member.heartbeat()

    def close(self, reason: str = "the worker is closed") -> None:
        """Close everything this host opened; a running task ends at its next call."""
        self.mailbox.close(reason)
        if self._member is not None:
            self._member.abort(1 << 62, reason)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        if self._executor is not None:
            return self._executor.submit(function, *args)
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _run(self, method: str, job: Any, member: Member) -> Outcome:
        try:
            if isinstance(job, LinksJob) and self._listener is not None:
                return Outcome(result=measure_links(self._listener, self.worker, job))
            return Outcome(result=getattr(self._hosted, method)(job, member))
        except Dismissed as dismissed:
            return Outcome(result=dismissed.result)
        except Exception as error:  # reported to the driver, which raises it
            return Outcome(failure=failure_of(error, self.worker, member.step))
        finally:
            member.leave()  # the peers see at once that this worker has left the step


def failure_of(error: BaseException, worker: int, step: int | None) -> Failure:
    """Describe an exception that a task raised."""
    return Failure(
        worker=worker,
        kind="lost_peer" if isinstance(error, CollectiveError) else "raised",
        reason=f"{type(error).__name__}: {error}".strip(),
        step=step,
        traceback="".join(traceback.format_exception(error)),
        error=error,
        where=user_frame(error),
    )


def user_frame(error: BaseException) -> str:
    """The innermost frame that lies in neither an installed package nor Heliostat: ``file:line in function``."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if _is_users(code.co_filename, frame.f_globals.get("__name__", "")):
            found = f'File "{code.co_filename}", line {line}, in {code.co_name}'
    return found


def _is_users(filename: str, module: str) -> bool:
    installed = f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}lib{os.sep}python3" in filename
    generated = filename.startswith("<") or "__autograph_generated_file" in filename
    return not (installed or generated or module.split(".")[0] == "heliostat")


def thread_name(worker: int) -> str:
    """How the thread begins its name on which a worker computes."""
    return f"heliostat-worker-{worker}"


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()
