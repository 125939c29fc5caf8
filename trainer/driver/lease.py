"""One run folder, one driver: the lease, a file in the run folder that says whose it is while a `fit` runs.

The driver holds the file locked (`flock`) and touches it every ten seconds; at its end it deletes it. Whoever comes
second is refused and told who holds it, since when, and when it was touched last. A driver that died leaves its file
behind, but not its lock: the next one takes it at once. The clock that counts is that of the folder's file system.

Two things a lock cannot tell. A driver that is stopped or cut off keeps it; and on file systems that lock within one
machine, or not at all, a free lock says nothing about drivers elsewhere. So a lease that is not surely free ends when
it has not been touched for `EXPIRES_S`, and then somebody must say that it is to be taken (`fit(take_over=True)`):
nothing else can know whether the other driver will wake up. Should it do so, it finds the lease to be another's and
stops before it writes anything (a write that had begun before it was stopped is ended; nothing can prevent that). On
file systems without locks two drivers of one machine tell each other by their processes, and two that begin in the same
moment by that last rule.

What was not done: a lock on an object store or a server of its own (the run folder is on a disk), and locks of `fcntl`
(they are lost when any other part of the process closes the file).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from heliostat.cluster.pools.processes import start_ticks

from ..errors import LeaseHeldError, LeaseLostError, StorageError
from .shown_text import printable

LEASE_FILE = "driver.lease"
TOUCH_EVERY_S = 10.0
EXPIRES_S = 300.0
_MAX_BYTES = 1 << 16
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
Lock = Literal["ours", "theirs", "none here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that a lease names.

    Attributes:
        id: of the lease, made anew for each.
        host: name of its machine.
        pid: of its process.
        since: when it began, seconds since 1970.
        boot: id of the start of its machine; equal in all containers of a machine.
        pid_space: where its `pid` counts; differs between containers.
        process_began: when the process was started, in ticks since then; tells a pid that is used again.
    """

    id: str
    host: str
    pid: int
    since: float
    boot: str
    pid_space: str
    process_began: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Who drives the run in a folder.

    Attributes:
        holder: the driver.
        has_ended: whether its process is gone; None if that cannot be seen from here.
        silent_s: how long it has not touched its lease.
    """

    holder: Holder
    has_ended: bool | None
    silent_s: float

    @property
    def is_gone(self) -> bool:
        """Whether it has ended without a word, as far as that can be told."""
        return self.has_ended if self.has_ended is not None else self.silent_s > EXPIRES_S

    def __str__(self) -> str:
        return f"process {self.holder.pid} on {self.holder.host}"


def driver_of(folder: Path) -> Driver | None:
    """Who drives the run in a folder, without touching its lease; None if nobody does. Raises OSError."""
    path = folder / LEASE_FILE
    try:
        holder, touched_s = _read(path), path.stat().st_mtime
    except FileNotFoundError:
        return None
    if holder is None:
        return None
    ended = _process_ended(holder, _this_driver())
    return Driver(holder=holder, has_ended=ended, silent_s=max(0.0, time.time() - touched_s))


def is_free(
    holder: Holder | None, own: Holder, lock: Lock, process_ended: bool | None, silent_s: float, *, take_over: bool
) -> bool:
    """Whether a lease may be taken.

    Args:
        holder: whom it names; None if it is new, or was left half written.
        own: who would take it.
        lock: of its file.
        process_ended: whether the holder's process is gone; None if that cannot be seen from here.
        silent_s: how long it was not touched.
        take_over: whether one that has ended without a word is to be taken.
    """
    if process_ended:
        return True
    if lock == "ours" and (holder is None or holder.boot == own.boot):
        return True  # a living driver of this machine would have it locked
    if lock == "none here" and holder is None:
        return True
    return take_over and silent_s > EXPIRES_S


class Lease:
    """The lease of a run folder, which exists. Use it as a context manager: held in the block, given back at its end.

    Args:
        folder: the run folder.
        take_over: whether to take a lease that has ended without a word.
    """

    def __init__(self, folder: Path, *, take_over: bool) -> None:
        self._folder, self.path, self._take_over = folder, folder / LEASE_FILE, take_over
        self.own = _this_driver()
        self._file = -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="heliostat-lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            LeaseHeldError: another driver holds it.
            StorageError: the folder cannot be written.
        """
        try:
            while not self._try_to_take():
                pass  # its holder gave it back between two looks at it
        except OSError as error:
            raise StorageError(self.path, error) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError, LeaseLostError):
            self.check()
            self.path.unlink()
        os.close(self._file)

    def check(self) -> None:
        """Raise LeaseLostError if another driver has taken the lease; to be called before everything that is written.

        Where the file was deleted, with its folder or by hand, it is made again as soon as there is a folder.
        """
        try:
            holder = _read(self.path)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                self._replace()
            return
        except OSError:  # out of reach; whoever writes will tell
            return
        if holder is None or holder.id != self.own.id:
            raise LeaseLostError(self._folder, None if holder is None else asdict(holder))

    # -- in small -------------------------------------------------------------------------------------------------

    def _try_to_take(self) -> bool:
        """Take the lease; False if the file that was looked at is not the lease any more."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            lock = _lock(self._file)
            if not os.path.samestat(os.fstat(self._file), self.path.stat()):
                raise FileNotFoundError
            holder, silent_s = _read(self.path), _now_s(self._folder) - os.fstat(self._file).st_mtime
            ended = None if holder is None else _process_ended(holder, self.own)
            if not is_free(holder, self.own, lock, ended, silent_s, take_over=self._take_over):
                raise LeaseHeldError(self._folder, None if holder is None else asdict(holder), silent_s, EXPIRES_S)
            if lock == "ours":
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, self._content(), 0)
            else:
                self._replace()
            return True
        except FileNotFoundError:
            os.close(self._file)
            return False
        except BaseException:
            os.close(self._file)
            raise

    def _replace(self) -> None:
        """Put a new file of our own at the lease's path, whatever is there."""
        temporary = self._folder / f".{LEASE_FILE}.{self.own.id}"
        replaced, self._file = self._file, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.close(replaced)
        try:
            os.pwrite(self._file, self._content(), 0)
            _lock(self._file)
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _content(self) -> bytes:
        return (json.dumps(asdict(self.own)) + "\n").encode()

    def _touch(self) -> None:
        while not self._over.wait(TOUCH_EVERY_S):
            with contextlib.suppress(OSError):  # a stalled file system: the next time
                os.utime(self._file)


def _this_driver() -> Holder:
    return Holder(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        since=time.time(),
        boot=_text_of("/proc/sys/kernel/random/boot_id") or socket.gethostname(),
        pid_space=_link_of("/proc/self/ns/pid"),
        process_began=_process_began(os.getpid()),
    )


def _process_ended(holder: Holder, own: Holder) -> bool | None:
    """Whether a driver's process is gone; None if that cannot be seen from here."""
    if (holder.boot, holder.pid_space) != (own.boot, own.pid_space) or not holder.process_began:
        return None
    return _process_began(holder.pid) != holder.process_began


def _process_began(pid: int) -> str:
    """The start time as a lease has it; empty if the process has ended, or there is none."""
    return str(start_ticks(pid) or "")


def _read(path: Path) -> Holder | None:
    """Whom a lease names, None if it was left half written; raises OSError if it cannot be read."""
    try:
        found = json.loads(path.read_bytes()[:_MAX_BYTES])
        texts = {each.name: printable(str(found.pop(each.name))) for each in fields(Holder) if each.type == "str"}
        return Holder(pid=int(found["pid"]), since=float(found["since"]), **texts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _lock(file: int) -> Lock:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # how NFS says it
        return "theirs"
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return "none here"
        raise
    return "ours"


def _now_s(folder: Path) -> float:
    """The time on the clock of the folder's file system."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link_of(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
