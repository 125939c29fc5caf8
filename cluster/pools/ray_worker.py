"""The Ray side of one worker: the actor that hosts it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import ray
from ray import cloudpickle
from ray.exceptions import RayError

from ..allreduce.awake import LOOK_S, AwakeClock
from ..errors import ClusterError
from ..group.liveness import Activity, Heartbeat
from ..group.mailbox import Mailbox
from ..group.messages import Failure, TaskEnded, TaskEvent, WorkerUp
from ..group.worker_process import StepMark, WorkerKilled, WorkerProcess, failure_of, host_name
from ..knocking import Address, open_door, unreached
from ..preflight import answered
from ..spec import GroupSpec, WorkerInfo
from .keeper import place_of
from .processes import start_ticks

if TYPE_CHECKING:
    from ..disk.disk import Disk

# Without a call for a heartbeat for so long during a task there is no driver any more: leave, and free devices. This is
# for a driver that is stopped or cut off, which is survived up to here; of one that died Ray ends the workers at once.
DRIVER_GONE_S = 60.0
# A task, a heartbeat, and now and then an answer, an abort or a look at the stacks run at a time.
CONCURRENT_CALLS = 8
EXIT_WITHOUT_DRIVER = 3
FETCH_S = 600.0
FLUSH_S = 2.0
_MAX_SAID_BYTES = 65536  # before a worker's first task
_MARKS_OF_RAY = (b":job_id:", b":actor_name:")  # lines for who collects its files
_exit = os._exit


class DriverWatch:
    """For how long the driver has not called; time in which this process was frozen, as its machine may be, is none."""

    def __init__(self) -> None:
        self._clock, self._called = AwakeClock(), threading.Event()
        self._heard_s = self._clock.now_s()

    def called(self) -> None:
        """The driver has called; from any thread."""
        self._called.set()

    def unheard_s(self) -> float:
        """For how many seconds it has not; on one thread, every `LOOK_S`."""
        now_s = self._clock.now_s()
        if self._called.is_set():
            self._called.clear()
            self._heard_s = now_s
        return now_s - self._heard_s


class RayWorker:
    """The Ray side of a worker: a `WorkerProcess` whose events are a stream that the driver reads, and a log file.

    Args:
        worker: its number.
    """

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._process: WorkerProcess | None = None
        self._door: socket.socket | None = None  # stays open as long as the process lives
        self._outbox: queue.SimpleQueue[TaskEvent | TaskEnded] = queue.SimpleQueue()
        self._made_s = time.monotonic()
        self._driver = DriverWatch()
        self._beside: tuple[Activity, float] | None = None  # before and after what the process does of a task
        self._info = WorkerInfo(
            worker=worker,
            host=host_name(),
            pid=os.getpid(),
            node=ray.get_runtime_context().get_node_id(),
            started=start_ticks(os.getpid()),
        )

    def look(self, question: bytes) -> tuple[bytes, Address]:
        """What this machine has of what is asked, and where other workers may knock; before anything else."""
        self._door = open_door(ray.util.get_node_ip_address())
        host, port = self._door.getsockname()[:2]
        return answered(question), (host, port)

    def knock(self, doors: dict[int, Address]) -> dict[int, str]:
        """Which other workers cannot be reached from here, and why."""
        return unreached(doors)

    def prepare(self, factory: Callable[[int], object], spec: GroupSpec, loopback: bool) -> WorkerUp | TaskEnded:
        """Make the hosted object.

        The environment is set here and not by Ray, which would start a process for it where it has one waiting already.

        Args:
            factory: makes it.
            spec: of the worker's group.
            loopback: whether to be reachable from this machine only.
        """
        os.environ.update(spec.env)
        mailbox = Mailbox(
            self._worker,
            self._outbox.put,
            park=lambda value: [ray.put(value)],  # in a list, for Ray replaces a bare reference by its value
            fetch=_fetched,
        )
        try:
            self._process = WorkerProcess(factory, spec, mailbox)
            address = self._process.listen("127.0.0.1" if loopback else ray.util.get_node_ip_address())
        except BaseException as error:  # sys.exit() in the user's modules, too; reported to the driver, which raises it
            return TaskEnded(worker=self._worker, failure=_portable(failure_of(error, self._worker, None)))
        return WorkerUp(info=self._info, address=address)

    def run(
        self, method: str, job: object, log_path: str | None, disk: Disk | None = None
    ) -> Iterator[TaskEvent | TaskEnded]:
        """Run a task to its end: the stream of its events, the last one a `TaskEnded`.

        Args:
            method: of the hosted object.
            job: what to call it with.
            log_path: where this process prints from now on; None leaves that as it is.
            disk: the driver's: where its file is not seen here, this process prints in a place of its machine's.
        """
        self._beside = (Activity.SET_UP, time.monotonic())
        mark: StepMark | None = None
        if log_path is not None:
            log_path = place_of(log_path, disk)
            try:
                _log_to(log_path)
            except OSError as error:
                self._beside = None
                reason = f"it cannot write its log {log_path}: {error.strerror}"
                yield TaskEnded(worker=self._worker, failure=Failure(worker=self._worker, kind="raised", reason=reason))
                return
            with contextlib.suppress(OSError):  # then a heartbeat's step is all that is known of a death
                mark = StepMark(log_path)
        over = threading.Event()
        if mark is not None:
            os._exit = _noted_exit(mark)  # type: ignore[assignment]  # a callable has no names of arguments
        self._driver.called()
        threading.Thread(target=self._watch_driver, args=(over,), daemon=True).start()
        self._hosted().begin(method, job, (lambda step: None) if mark is None else mark.note)
        self._beside = None
        while not isinstance(event := self._outbox.get(), TaskEnded):
            yield event
        self._beside = (Activity.END, time.monotonic())
        over.set()
        os._exit = _exit
        if mark is not None:
            mark.close()
        _flush("" if event.failure is None else event.failure.traceback)
        if event.failure is not None:
            event = replace(event, failure=_portable(event.failure))
        self._beside = None
        yield event

    def heartbeat(self) -> tuple[WorkerInfo, Heartbeat | None]:
        """Where this process is, and what it does, None between tasks; and for it a sign that there is a driver."""
        self._driver.called()
        if self._process is None:
            return self._info, _heartbeat(Activity.LOAD, self._made_s)
        beside = self._beside
        return self._info, self._process.heartbeat() or (None if beside is None else _heartbeat(*beside))

    def answer(self, number: int, reply: object) -> None:
        """Answer the task's request."""
        self._hosted().answer(number, reply)

    def abort(self, generation: int, reason: str) -> None:
        """Wake the task out of what it waits for in a generation."""
        self._hosted().abort(generation, reason)

    def stacks(self) -> str:
        """The Python stacks of the threads that compute."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return "\n".join(
            f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()
            if str(names.get(ident, "")).startswith("heliostat")
        )

    def crash(self) -> None:
        """End this process at once, as a failure would."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _watch_driver(self, over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            if self._driver.unheard_s() > DRIVER_GONE_S:
                gone = f"worker {self._worker}: the driver has not called for {DRIVER_GONE_S:g} s; leaving"
                print(gone, file=sys.stderr, flush=True)
                _exit(EXIT_WITHOUT_DRIVER)

    def _hosted(self) -> WorkerProcess:
        if self._process is None:
            raise ClusterError(f"worker {self._worker} was called before it was prepared")
        return self._process


def _heartbeat(activity: Activity, since_s: float) -> Heartbeat:
    """Of a process that has no task, or is only about to begin or to end it."""
    return Heartbeat(activity=activity, activity_s=time.monotonic() - since_s, processor_s=time.process_time())


def _flush(said: str) -> None:
    """Print this, and write out what was printed; storage that stalls is not waited for long, for the driver waits."""

    def flush() -> None:
        if said:
            print(said, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()

    flushing = threading.Thread(target=flush, name="heliostat-flush", daemon=True)
    flushing.start()
    flushing.join(FLUSH_S)


def _fetched(handle: list[ray.ObjectRef]) -> object:
    """What another worker has parked; if that one died with it, this worker cannot begin, and ends as well."""
    try:
        return ray.get(handle[0], timeout=FETCH_S)
    except RayError as error:
        raise WorkerKilled(f"the state that it was to begin with is lost: {type(error).__name__}") from error


def _log_to(path: str) -> None:
    """Send what this process prints to a file from now on, native libraries' output and crashes included.

    What it has said before, while TensorFlow was loaded, is in a file of Ray's, and is told once more.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with contextlib.suppress(OSError):  # no Linux, or Ray keeps none
        of_ray = os.readlink("/proc/self/fd/2")
        if of_ray.endswith(".err"):
            with open(of_ray, "rb") as said:
                lines = said.read(_MAX_SAID_BYTES).splitlines(keepends=True)
            os.write(file, b"".join(line for line in lines if not line.startswith(_MARKS_OF_RAY)))
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable(file=2)


def _noted_exit(mark: StepMark) -> Callable[[int], NoReturn]:
    """`os._exit` that notes first that it was called: Ray, the parent, tells nobody how a worker ended."""
    pid = os.getpid()

    def noted(status: int) -> NoReturn:
        if os.getpid() == pid:  # a fork of this process may end as it likes
            mark.note_exit(status)
        _exit(status)

    return noted


def _portable(failure: Failure) -> Failure:
    """The failure as it can travel: an exception that cannot be pickled stays behind, its traceback does not."""
    try:
        cloudpickle.loads(cloudpickle.dumps(failure.error))
    except Exception:  # pickling runs user code, which may raise anything
        return replace(failure, error=None)
    return failure
