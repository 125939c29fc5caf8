"""What outlives the workers of one machine, and tells of those that are gone.

A dead process says nothing: how far it was, what it printed last, whether the kernel took it for want of memory is
known on its machine alone. So one keeper is on each that has workers: on the driver's own this class in the driver's
process, elsewhere the same class as an actor without cores (`keepers.py`). It also ends a process that does not end by
itself (one that is stopped hears no word of Ray's), and where the driver's run folder is not seen it sends the driver
what workers print, while they print it: a machine that is lost has then lost a second of it.

What workers of such a machine write lies in a folder of the driver's disk's id (`Reach.scratch`), which the keeper
removes at the end. It holds a lock beside it meanwhile, so that a later keeper removes what belongs to no driver.

What was not done: to send what is printed as events of Ray's (it is lost with the worker, and faults of native code
never pass through Python), and to limit it (the file on the driver is what it would be on one machine).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ray.exceptions import RayError

from ..disk.reach import Reach, scratch_of
from ..disk.served import PIECE_BYTES
from ..disk.stand_in import remove_stand_ins
from ..group.worker_process import take_mark
from ..spec import WorkerInfo
from .processes import end_process, oom_kills, open_process

if TYPE_CHECKING:
    from ..disk.disk import Disk

SHIP_S = 1.0
TAIL_BYTES = 20_000
_LOCK = ".lock"
_BEGIN = ".begin"  # of a log


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left of a worker.

    Attributes:
        step: the last one that it began, None where unknown.
        exit_status: with which its process ended itself, None where it did not.
        tail: the end of what it printed.
        was_killed: whether the kernel has killed a process of this machine for want of memory since the last death.
        is_running: whether its process is there.
    """

    step: int | None = None
    exit_status: int | None = None
    tail: str = ""
    was_killed: bool = False
    is_running: bool = False


class Keeper:
    """Keeps what workers of this machine leave; for any number of threads."""

    def __init__(self) -> None:
        self._oom_kills = oom_kills()
        self._logs: dict[str, ShippedLog] = {}
        self._held: dict[str, int] = {}  # locks, by the id of the disk
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._shipping: threading.Thread | None = None

    def is_there(self) -> bool:
        """It is."""
        return True

    def outlive(self) -> None:
        """Return when it is closed: whoever waits for that hears of it if it ends before."""
        self._closed.wait()

    def follow(self, log_path: str, disk: Disk) -> None:
        """Send the driver what a worker prints from now on, where this machine does not see the driver's file."""
        if (local := place_of(log_path, disk)) == log_path:
            return
        with self._lock:
            self._hold(disk.id)
            if log_path not in self._logs:
                self._logs[log_path] = ShippedLog(disk, log_path, local)
            if self._shipping is None:
                self._shipping = threading.Thread(target=self._ship_all, name="heliostat-logs", daemon=True)
                self._shipping.start()

    def ship(self, log_path: str | None) -> None:
        """Send what is left of a log; what the driver does not take now is tried again, as long as there is time."""
        with self._lock:
            log = self._logs.get(log_path or "")
        if log is not None:
            log.ship()

    def remains_of(self, info: WorkerInfo, log_path: str | None, disk: Disk | None) -> Remains:
        """What is left of a worker that has died; of what it printed the driver then has all.

        Args:
            info: where it ran, on this machine.
            log_path: where it printed, as the driver names it.
            disk: the driver's; None where this is its machine.
        """
        self.ship(log_path)
        local = None if log_path is None else place_of(log_path, disk)
        mark, kills = take_mark(local), oom_kills()
        with self._lock:
            was_killed, self._oom_kills = kills > self._oom_kills, kills
        process = open_process(info.pid, info.started)
        if process is not None:
            os.close(process)
        return Remains(
            step=mark.step,
            exit_status=mark.exit_status,
            tail=_tail(local),
            was_killed=was_killed,
            is_running=process is not None,
        )

    def end(self, info: WorkerInfo, log_path: str | None, disk: Disk | None, leave_s: float) -> None:
        """Wait so many seconds for a worker's process to end, then end it; take away what it has left but its log."""
        process = open_process(info.pid, info.started)
        if process is not None:
            end_process(process, leave_s)
        if log_path is not None:
            self.ship(log_path)
            take_mark(place_of(log_path, disk))

    def ship_all(self) -> None:
        """Send what is left of all logs."""
        for path in list(self._logs):
            self.ship(path)

    def close(self) -> None:
        """Send nothing more, and remove what workers of this machine have kept for the driver."""
        self._closed.set()
        if self._shipping is not None:
            self._shipping.join()
        for disk_id, held in self._held.items():
            _remove(scratch_of(disk_id))
            _lock_of(disk_id).unlink(missing_ok=True)
            os.close(held)

    def _ship_all(self) -> None:
        while not self._closed.wait(SHIP_S):
            self.ship_all()

    def _hold(self, disk_id: str) -> None:
        """Tell other keepers that there is a driver for what lies here; remove what has none."""
        if disk_id in self._held:
            return
        path = _lock_of(disk_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        held = self._held[disk_id] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_SH)  # shared: two machines may have one home
        for other in path.parent.glob(f"*{_LOCK}"):
            if other != path:
                _remove_forsaken(other)


class ShippedLog:
    """A file of this machine that grows, and its copy on the driver's disk, behind what the driver has of it already.

    Where the copy begins is noted beside the file, so that a keeper that comes after one that has died finds how much
    was sent: the copy is that much longer.

    Args:
        disk: the driver's.
        path: of the copy.
        local: the file, which need not exist yet.

    Raises:
        OSError: the driver's disk does not tell how long the copy is, or nothing can be noted.
    """

    def __init__(self, disk: Disk, path: str, local: str) -> None:
        self._disk, self._path, self._local = disk, path, local
        size = sum(found.num_bytes for found in disk.call("info", [path]))
        self._begin = _noted(Path(f"{local}{_BEGIN}"), size)
        self._sent = max(0, size - self._begin)
        self._lock = threading.Lock()

    def ship(self) -> None:
        """Send what is new; what fails is sent again by the next call, to the same place."""
        with self._lock, contextlib.suppress(OSError, RayError), open(self._local, "rb") as file:
            file.seek(self._sent)
            while piece := file.read(PIECE_BYTES):
                at = self._begin + self._sent
                self._disk.call("write", self._path, at, np.frombuffer(piece, np.uint8), is_first=False)
                self._sent += len(piece)


def _noted(note: Path, size: int) -> int:
    """What a file says; it is made to say `size` if nobody has written to it."""
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("a+") as file:
        file.seek(0)
        if found := file.read():
            return int(found)
        file.write(str(size))
    return size


def place_of(log_path: str, disk: Disk | None) -> str:
    """Where a worker of this machine prints for a log of the driver's: there if that is seen, else in the scratch."""
    reach = Reach(disk)
    return log_path if reach.sees(log_path) else str(reach.scratch(log_path))


def _lock_of(disk_id: str) -> Path:
    folder = scratch_of(disk_id)
    return folder.with_name(folder.name + _LOCK)


def _remove_forsaken(lock: Path) -> None:
    """Remove what was kept for a driver that is gone, unless somebody holds its lock."""
    with contextlib.suppress(OSError), lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(lock.with_name(lock.name.removesuffix(_LOCK)))
        lock.unlink()


def _remove(scratch: Path) -> None:
    """Remove what was kept for a driver, and links to it in place of its folders."""
    remove_stand_ins(scratch)
    shutil.rmtree(scratch, ignore_errors=True)


def _tail(path: str | None) -> str:
    """The end of a file, empty where there is none."""
    try:
        with open(path or "", "rb") as file:
            file.seek(max(0, os.path.getsize(file.fileno()) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
