"""Ray is loaded and started, or joined, beside the user's program: from when a trainer is made until it needs workers.

That takes some seconds, in which a program builds arrays and opens data. A thread does it, and then stays as long as
the connection does: the kernel ends what Ray has started when the *thread* that started it ends (`PR_SET_PDEATHSIG`),
not only when the process does. It is the same connection as any other (`ray_session`), used by one more.

- **What goes wrong** is raised where workers are wanted. What went wrong before somebody waited for it is tried again
  there, for it may be well by now: a cluster that was not up yet when the trainer was made.
- **Nobody may want it** in the end. Then it is given up again; if it has not begun to connect, it never does.
- **A program may end meanwhile**: Python must not take itself apart while Ray connects, so its end waits for that.
- **SIGTERM** ends the program by an exception, as Ray means to do (`ray_session`), where nobody has a handler for it.
- **A program may fork meanwhile** (`multiprocessing`): a fork waits until Ray is connected, lest the new process be
  born with a lock of Ray's, or of Python's imports, that nobody in it will ever let go.

A program that has loaded Ray itself may mean to connect it itself: then nothing is done ahead. Nothing here loads Ray
but the thread.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

from .ray_address import Asked

_EXIT_WAIT_S = 60.0  # for a connection that is being made when the program ends


class RayAhead:
    """A connection to Ray that is being made; `begin_ahead` makes one.

    Args:
        asked: as for `join_ray`, and likewise `num_cpus` and `runtime_env`.
        num_cpus: see `asked`.
        runtime_env: see `asked`.
    """

    def __init__(self, asked: Asked | None, num_cpus: int, runtime_env: Mapping[str, Any] | None) -> None:
        self._asked, self._num_cpus, self._runtime_env = asked, num_cpus, runtime_env
        self._lock = threading.Lock()
        self._done = threading.Event()  # it is connected, or has failed, or is not to be made any more
        self._given_up = False
        self._uses_ray: bool | None = None  # whether `leave_ray` must be called; None while there is no connection
        self._error: BaseException | None = None
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="heliostat-ray", daemon=True)

    def take(self) -> bool:
        """Wait for the connection; True when `leave_ray` must be called for it, as for `join_ray`.

        Raises:
            what `join_ray` raises.
        """
        failed_before = self._done.is_set()
        self._done.wait()
        with self._lock:
            uses_ray, self._uses_ray, self._given_up = self._uses_ray, None, True
        atexit.unregister(self.give_up)
        _process.is_used = True
        if uses_ray is not None:
            return uses_ray
        if self._error is not None and not failed_before:
            raise self._error
        return self._join()

    def give_up(self) -> None:
        """Nobody wants the connection: leave nothing of it behind; after `take` this does nothing."""
        if os.getpid() != self._pid:  # a fork of the program ends
            return
        with self._lock:
            self._given_up = True
        self._done.wait(_EXIT_WAIT_S)
        with self._lock:
            uses_ray, self._uses_ray = self._uses_ray, None
        atexit.unregister(self.give_up)
        if uses_ray:
            from .ray_session import leave_ray

            leave_ray()
        if not _process.is_used and _in_main_thread() and signal.getsignal(signal.SIGTERM) is _exit_by_exception:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def wait(self) -> None:
        """Wait until it is connected, or never will be; in its own thread this does nothing."""
        if threading.current_thread() is not self.thread:
            self._done.wait()

    def _run(self) -> None:
        is_connected = False
        try:
            from .ray_session import connection_over

            atexit.register(self.give_up)  # once more: what is registered later is called before, and Ray is loaded
            with self._lock:
                wanted = not self._given_up
            if wanted:
                uses_ray, is_connected = self._join(), True
                with self._lock:
                    self._uses_ray = uses_ray
        except BaseException as error:  # raised where it is waited for
            self._error = error
        finally:
            self._done.set()
        if is_connected:
            connection_over()

    def _join(self) -> bool:
        from .ray_session import join_ray

        return join_ray(self._asked, num_cpus=self._num_cpus, runtime_env=self._runtime_env)


class _Process:
    """Whether this process has loaded Ray ahead, and what is under way in it."""

    def __init__(self) -> None:
        self.loads_ray = self.is_used = False
        self.last: RayAhead | None = None

    def before_fork(self) -> None:
        """Wait for what is under way."""
        if self.last is not None:
            self.last.wait()


_process = _Process()


def begin_ahead(asked: Asked | None, *, num_cpus: int, runtime_env: Mapping[str, Any] | None) -> RayAhead | None:
    """Begin to connect this process to Ray; None where that is left to the program. Arguments: those of `join_ray`."""
    if "ray" in sys.modules and not _process.loads_ray:
        return None
    if not _process.loads_ray:
        os.register_at_fork(before=_process.before_fork)
    _process.loads_ray = True
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit_by_exception)
    ahead = _process.last = RayAhead(asked, num_cpus, runtime_env)
    atexit.register(ahead.give_up)
    ahead.thread.start()
    return ahead


def _exit_by_exception(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
