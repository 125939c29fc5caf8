"""The generic half of a worker: it hosts one object, connects it with its peers and runs its tasks on one thread.

What the object computes is none of its business: `trainer/` puts its worker in. Frameworks keep state per thread, so
every call of the hosted object is made on the same thread.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from .collective import Alone, Collective
from .controller import Failure
from .errors import CollectiveError
from .mesh import Listener, connect


class Channel(Protocol):
    """How a running task talks to the driver."""

    def tell(self, event: Any) -> None:
        """Send an event; nobody answers."""

    def ask(self, event: Any) -> Any:
        """Send an event and wait for the driver's answer."""


class CallNumbers:
    """Numbers the collective calls of one generation, alike on all its workers."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self) -> int:
        """The next number."""
        self._next += 1
        return self._next - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What a task is given: its place in the group and its ways to talk."""

    rank: int
    num_workers: int
    collective: Collective
    numbers: CallNumbers
    channel: Channel


class Hosted(Protocol):
    """An object that a host can run tasks of: its methods take (job, context)."""

    def position(self) -> int | None:
        """The step of the run it is at, for error messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended on one worker: a result, or a failure."""

    result: Any = None
    failure: Failure | None = None


class Host:
    """Hosts one object made by `factory(rank)`.

    Args:
        factory: makes the hosted object, called on the host's own thread.
        rank: rank of this worker.
        in_caller: run tasks on the calling thread instead of one of the host's own (a group of one, for debuggers).
    """

    def __init__(self, factory: Callable[[int], Hosted], rank: int, *, in_caller: bool = False) -> None:
        self._rank = rank
        self._executor = None if in_caller else ThreadPoolExecutor(1, thread_name_prefix=f"heliostat-worker-{rank}")
        self._listener: Listener | None = None
        self._collective: Collective | None = None
        self._numbers = CallNumbers()
        self._hosted: Hosted = self._submit(factory, rank).result()

    def listen(self, interface: str) -> tuple[str, int]:
        """Open this worker's listener on an interface; returns its address."""
        if self._listener is None:
            self._listener = Listener(interface)
        return self._listener.address

    def connect(
        self,
        addresses: Sequence[tuple[str, int]],
        *,
        generation: int,
        secret: bytes,
        timeout_s: float,
        deadline_s: float,
    ) -> None:
        """Join a generation of the group, leaving the one before."""
        self.leave()
        self._numbers = CallNumbers()
        if len(addresses) <= 1 or self._listener is None:
            self._collective = Alone(generation=generation)
            return
        self._collective = connect(
            self._listener,
            rank=self._rank,
            addresses=addresses,
            generation=generation,
            secret=secret,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
        )

    def run(self, method: str, job: Any, channel: Channel, num_workers: int) -> Outcome:
        """Run one task to its end and say how it ended; never raises for what the task does."""
        return self._submit(self._run, method, job, channel, num_workers).result()

    def abort(self, reason: str) -> None:
        """Wake the task out of a collective call; from any thread."""
        if self._collective is not None:
            self._collective.abort(reason)

    def leave(self) -> None:
        """Close the connections to the peers."""
        if self._collective is not None:
            self._collective.close()
            self._collective = None

    def close(self) -> None:
        """Close everything this host opened."""
        self.leave()
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

    def _run(self, method: str, job: Any, channel: Channel, num_workers: int) -> Outcome:
        collective = self._collective or Alone()
        context = TaskContext(
            rank=self._rank,
            num_workers=num_workers,
            collective=collective,
            numbers=self._numbers,
            channel=channel,
        )
        try:
            return Outcome(result=getattr(self._hosted, method)(job, context))
        except Exception as error:  # reported to the driver, which raises it
            collective.close()  # the peers see at once that this worker has left the step
            return Outcome(failure=failure_of(error, self._rank, self._hosted.position()))


def failure_of(error: BaseException, rank: int, step: int | None) -> Failure:
    """Describe an exception that a task raised."""
    return Failure(
        rank=rank,
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


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()
