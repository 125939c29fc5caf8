"""Room in the folder of the cache: what lies there, what goes when something comes, and who may look at that when.

The bound is on what lies in the folder. Nobody says that a file is in use: a file that is mapped can be deleted, its
rows stay readable until it is unmapped, and readers unmap what is behind them. (Counting uses, with locks between
processes, was there before: three times the code, and a reader that was forgotten kept its files for ever.) What goes
first is decided by `eviction_order`: what nobody is known to need, longest unused first, then what is needed last
(L. A. Belady in IBM Systems Journal 5, 1966).

There are 4096 locks for each ending (`filelock`), by the first digits of the name, rather than one for each file: they
stay as empty files. One more is held while room is made, and while a part gets its name.

Only files with names of this cache, in its own sub-folder, are ever counted, replaced or deleted.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from ..errors import CacheError

PART_SUFFIX = ".fetching"
ROOM_WAIT_S = 30.0
_LOCK_FOLDER = ".fetch-locks"  # ".locks" is a file of earlier versions
_OWN_NAME = re.compile(rf"([0-9a-f]{{32}}\.[a-z0-9]{{1,12}})({re.escape(PART_SUFFIX)})?")
# What is left free on the disk.
_SPARE_BYTES = 64 << 20
_WAIT_STEP_S = 0.02
_TURNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentFile:
    """A file that lies in the cache; one that is still being fetched is a part."""

    name: str
    num_bytes: int
    last_used_ns: int
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """Who needs room: the name of a file and where it comes from, the names of those that are needed next, in order,
    how long is waited for room, and what ends the wait."""

    name: str
    origin: str
    coming: Sequence[str]
    wait_s: float
    stop: threading.Event


class Room:
    """The room in one folder. `max_bytes` None: as much as the disk holds. Raises CacheError if it cannot be used."""

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        try:
            (folder / _LOCK_FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"The cache of shards cannot use {folder} ({error.strerror}). Give another cache_dir.", path=folder
            ) from error

    def lock(self, name: str | None = None) -> filelock.BaseFileLock:
        """The lock of a file of the cache; without a name, that of all that lies there."""
        return self._place("room" if name is None else f"{name[:3]}.{name.rpartition('.')[2]}")

    def _place(self, name: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self._folder / _LOCK_FOLDER / name, mode=0o666, poll_interval=0.01)

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """Wait until fewer than four threads of all processes of this host are at it, or until `stop` is set."""
        locks = [self._place(f"turn-{number}") for number in range(_TURNS)]
        while not any(map(_is_taken, locks)):
            if stop.wait(_WAIT_STEP_S):
                break
        try:
            yield
        finally:
            for lock in locks:
                lock.release()  # of those that it does not have nothing comes

    def free_bytes(self) -> int:
        """What the disk has free, but for some that stays so."""
        return max(0, shutil.disk_usage(self._folder).free - _SPARE_BYTES)

    def make(self, claim: Claim, num_bytes: int) -> None:
        """Delete what may go until so many more bytes fit; waits for what others are fetching. Raises CacheError."""
        give_up = time.monotonic() + claim.wait_s
        is_possible = self._max_bytes is None or num_bytes <= self._max_bytes
        while True:
            missing, used, num_parts = self._try_to_make(claim, num_bytes) if is_possible else (num_bytes, 0, 0)
            if missing <= 0:
                return
            if not num_parts or time.monotonic() >= give_up or claim.stop.wait(_WAIT_STEP_S):
                break
        limit = "what the disk holds" if self._max_bytes is None else f"{self._max_bytes:,} bytes"
        raise CacheError(
            f"The shard cache {self._folder} has no room for {claim.origin} ({num_bytes:,} bytes): its limit is "
            f"{limit}, and {used:,} bytes are being fetched or needed before. Give a larger cache_bytes, a smaller "
            "shuffle window or smaller shards.",
            path=self._folder,
        )

    def _try_to_make(self, claim: Claim, num_bytes: int) -> tuple[int, int, int]:
        """The bytes that are missing still, those that are used, and how many files others are fetching."""
        with self.lock():
            files = list(self._files())
            used = sum(each.num_bytes for each in files)
            missing = missing_bytes(num_bytes, used, self._max_bytes, shutil.disk_usage(self._folder).free)
            # What has no bytes yet waits for room itself.
            num_parts = sum(f.is_part and f.num_bytes > 0 and f.name != claim.name for f in files)
            for victim in eviction_order(files, claim.coming, claim.name):
                if missing <= 0:
                    break
                if self._delete(victim):
                    missing, used = missing - victim.num_bytes, used - victim.num_bytes
                    num_parts -= victim.is_part and victim.num_bytes > 0
        return missing, used, num_parts

    def _files(self) -> Iterator[PresentFile]:
        for entry in os.scandir(self._folder):
            match = _OWN_NAME.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has just renamed it
                continue
            yield PresentFile(
                name=match[1], num_bytes=stat.st_size, last_used_ns=stat.st_atime_ns, is_part=match[2] is not None
            )

    def _delete(self, file: PresentFile) -> bool:
        """Delete a file, a part only if nobody fetches it any more."""
        lock, path = self.lock(file.name), self._folder / file.name
        try:
            if file.is_part:
                lock.acquire(timeout=0)
                path = self._folder / f"{file.name}{PART_SUFFIX}"
            path.unlink(missing_ok=True)
        except (filelock.Timeout, PermissionError):  # it is being fetched; it is another user's
            return False
        finally:
            lock.release()
        return True


def _is_taken(lock: filelock.BaseFileLock) -> bool:
    """Whether the lock could be taken at once."""
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    return True


def eviction_order(files: Sequence[PresentFile], coming: Sequence[str], requested: str) -> list[PresentFile]:
    """Which files go first when room is made for the requested one.

    Parts that nobody fetches any more; files not in `coming`, those used longest ago first; those of `coming` from its
    end. Files that come before the requested one are not among them, all of `coming` are if it does not come at all.
    """
    place = {name: number for number, name in enumerate(coming)}
    last = place.get(requested, -1)

    def rank(file: PresentFile) -> tuple[int, int]:
        if file.is_part:
            return 0, 0
        return (2, -place[file.name]) if file.name in place else (1, file.last_used_ns)

    return sorted(
        (f for f in files if f.name != requested and (f.is_part or place.get(f.name, math.inf) > last)), key=rank
    )


def missing_bytes(num_bytes: int, used_bytes: int, max_bytes: int | None, free_bytes: int) -> int:
    """How many bytes must be deleted before so many can come; not positive if none."""
    for_disk = num_bytes + _SPARE_BYTES - free_bytes
    return for_disk if max_bytes is None else max(for_disk, used_bytes + num_bytes - max_bytes)
