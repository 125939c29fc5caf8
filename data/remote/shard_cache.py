"""A local folder of whole remote files, shared by all processes of a host, bounded in bytes.

Files are named by the hash of their bytes and get that name only after their bytes were checked. Which process fetches
a file, which files are in use, and who makes room is settled by locks (`byte_locks`); a process that dies leaves none.
Only files with names of this cache, in its own sub-folder, are ever counted, replaced or deleted.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet, WeakValueDictionary

import xxhash

from ..errors import CacheError, ShardError
from ..foreign.footers import EDGE_PREFIX, edge_hash
from .byte_locks import ByteLocks, byte_locked

FOLDER_NAME = "heliostat-shards"
LOCK_NAME = ".locks"
_PART_SUFFIX = ".fetching"
_OWN_NAME = re.compile(rf"([0-9a-f]{{32}})\.[a-z0-9]{{1,12}}({re.escape(_PART_SUFFIX)})?")
_ROOM_BYTE = 0
_FETCHES_OF_WRONG_BYTES = 3
# What is left free on the disk.
_SPARE_BYTES = 64 << 20
_WAIT_STEP_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """A remote file: its name in the cache, its bytes and their xxh3_128 (hex) or `edge_hash`, and where it is, for
    messages.

    `download` hands its bytes, block by block, to the function that it is given.
    """

    name: str
    num_bytes: int
    xxh3_128: str
    origin: str
    download: Callable[[Callable[[Any], object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFile:
    """A file that lies in the cache; one that is still being fetched is a part."""

    name: str
    num_bytes: int
    last_used_ns: int
    is_part: bool = False


class HoldsFiles(Protocol):
    """Somebody in this process who holds files in use that it could do without."""

    def release_idle(self) -> bool:
        """Let go of such files, without waiting for anything; whether there were any."""


class _NoRoomError(Exception):
    def __init__(self, missing_bytes: int, in_use_bytes: int) -> None:
        super().__init__(missing_bytes, in_use_bytes)
        self.in_use_bytes = in_use_bytes


class ShardCache:
    """The cache in one folder, as one process uses it; `shard_cache` gives it. For any number of threads.

    `max_bytes` None: as much as the disk holds. Raises CacheError if the folder cannot be used.
    """

    def __init__(self, cache_dir: Path, max_bytes: int | None) -> None:
        self.folder, self.max_bytes = cache_dir / FOLDER_NAME, max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._locks = ByteLocks(self.folder / LOCK_NAME)
        except OSError as error:
            raise CacheError(
                f"The cache of remote shards cannot use {self.folder} ({error.strerror}). Give another cache_dir.",
                path=self.folder,
            ) from error
        self._users: dict[str, int] = {}
        # A reader that the garbage collector finds lets go of its files in the middle of anything.
        self._mutex = threading.RLock()
        self._process = os.getpid()
        self._holders: WeakSet[HoldsFiles] = WeakSet()

    def add_holder(self, holder: HoldsFiles) -> None:
        """Ask somebody to let go of files when another thread of this process needs room; held weakly."""
        with self._mutex:
            self._holders.add(holder)

    def use(self, name: str) -> None:
        """Keep a file from being deleted, whether it is there or not yet; `release` as often."""
        with self._mutex:
            if not self._users.get(name):
                self._locks.share(_use_byte(name))
            self._users[name] = self._users.get(name, 0) + 1

    def release(self, name: str) -> None:
        """Undo one `use`."""
        with self._mutex:
            self._users[name] -= 1
            # A forked process shares the locks of its parent and must not let go of them.
            if not self._users[name] and os.getpid() == self._process:
                del self._users[name]
                self._locks.release(_use_byte(name))

    def has(self, name: str, num_bytes: int) -> bool:
        """Whether a file is there; marks it as used now."""
        path = self.folder / name
        try:
            found = path.stat()
            if found.st_size != num_bytes:
                return False
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's file
            return True
        return True

    def fetch(self, file: WantedFile, *, coming: Sequence[str] = (), wait_s: float = 0.0) -> bool:
        """Fetch a file that the caller has in `use`, unless it is there; whether it was fetched.

        While another process or thread fetches it, this waits for that one. To make room, files that nobody uses are
        deleted: first those that are not in `coming` (names in the order in which they will be needed), those used
        longest ago first, then those of `coming` from its end, up to this file. If that is not enough, this waits for
        `wait_s` for others to let go of theirs. Raises CacheError if there is no room, ShardError if wrong bytes
        arrive again and again, and what `download` raises.
        """
        if self.has(file.name, file.num_bytes):
            return False
        with byte_locked(self.folder / LOCK_NAME, _fetch_byte(file.name)):
            if self.has(file.name, file.num_bytes):
                return False
            part = self.folder / f"{file.name}{_PART_SUFFIX}"
            self._reserve(part, file, coming, wait_s)
            try:
                self._fill(part, file)
                # Whoever counts what is there must not miss the file between its two names.
                with byte_locked(self.folder / LOCK_NAME, _ROOM_BYTE):
                    os.replace(part, self.folder / file.name)
            finally:
                part.unlink(missing_ok=True)
        return True

    def _fill(self, part: Path, file: WantedFile) -> None:
        """Write the right bytes into the reserved file."""
        found = ""
        for _ in range(_FETCHES_OF_WRONG_BYTES):
            try:
                num_bytes, digest = _download(part, file)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise CacheError(
                    f"The disk of the shard cache {self.folder} is full ({error.strerror}) while {file.origin} "
                    f"({file.num_bytes:,} bytes) is fetched. Give a smaller cache_bytes, or another cache_dir.",
                    path=self.folder,
                ) from error
            if num_bytes == file.num_bytes and digest == file.xxh3_128:
                return
            found = f"{num_bytes:,} bytes" if num_bytes != file.num_bytes else f"xxh3_128 {digest}"
        expected = f"{file.num_bytes:,} bytes with xxh3_128 {file.xxh3_128}"
        raise ShardError(
            f"{file.origin} arrived {_FETCHES_OF_WRONG_BYTES} times with {found}; its manifest says {expected}. It was "
            "damaged or replaced after it was written: upload the dataset again.",
            path=file.origin,
        )

    def _reserve(self, part: Path, file: WantedFile, coming: Sequence[str], wait_s: float) -> None:
        """Make room for a file and take it, as an empty file of its size."""
        give_up = time.monotonic() + wait_s
        while True:
            try:
                return self._try_reserve(part, file, coming)
            except _NoRoomError as error:
                can_wait = wait_s > 0 and (self.max_bytes is None or file.num_bytes <= self.max_bytes)
                if can_wait and self._release_idle():
                    continue
                if not can_wait or time.monotonic() >= give_up:
                    raise self._no_room(file, error) from None
            time.sleep(_WAIT_STEP_S)

    def _release_idle(self) -> bool:
        with self._mutex:
            holders = list(self._holders)
        return any([holder.release_idle() for holder in holders])  # noqa: C419 (all of them, not only the first)

    def _try_reserve(self, part: Path, file: WantedFile, coming: Sequence[str]) -> None:
        if self.max_bytes is not None and file.num_bytes > self.max_bytes:
            raise _NoRoomError(file.num_bytes - self.max_bytes, 0)
        with byte_locked(self.folder / LOCK_NAME, _ROOM_BYTE):
            part.unlink(missing_ok=True)  # left by a process that died
            files = self._files()
            used = sum(each.num_bytes for each in files)
            missing = missing_bytes(file.num_bytes, used, self.max_bytes, shutil.disk_usage(self.folder).free)
            for victim in eviction_order(files, coming, file.name):
                if missing <= 0:
                    break
                if self._delete_unused(victim):
                    missing -= victim.num_bytes
                    used -= victim.num_bytes
            if missing > 0:
                raise _NoRoomError(missing, used)
            with open(part, "wb") as reserved:
                reserved.truncate(file.num_bytes)

    def _files(self) -> list[CachedFile]:
        found = []
        for entry in os.scandir(self.folder):
            match = _OWN_NAME.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has just renamed it
                continue
            name = entry.name.removesuffix(_PART_SUFFIX)
            found.append(
                CachedFile(
                    name=name, num_bytes=stat.st_size, last_used_ns=stat.st_atime_ns, is_part=match[2] is not None
                )
            )
        return found

    def _delete_unused(self, file: CachedFile) -> bool:
        """Delete a file unless a living process uses or fetches it."""
        locks = ByteLocks(self.folder / LOCK_NAME)
        try:
            if not locks.try_take(_fetch_byte(file.name) if file.is_part else _use_byte(file.name)):
                return False
            (self.folder / (file.name + (_PART_SUFFIX if file.is_part else ""))).unlink(missing_ok=True)
            return True
        except PermissionError:  # another user's file
            return False
        finally:
            locks.close()

    def _no_room(self, file: WantedFile, error: _NoRoomError) -> CacheError:
        limit = "what the disk holds" if self.max_bytes is None else f"{self.max_bytes:,} bytes"
        return CacheError(
            f"The shard cache {self.folder} has no room for {file.origin} ({file.num_bytes:,} bytes): its limit is "
            f"{limit}, and {error.in_use_bytes:,} bytes are in use or needed before. Give a larger cache_bytes, a "
            "smaller shuffle window or smaller shards.",
            path=self.folder,
        )


def eviction_order(files: Sequence[CachedFile], coming: Sequence[str], wanted: str) -> list[CachedFile]:
    """Which files go first when room is made for `wanted`.

    Parts that nobody fetches any more; files not in `coming`, those used longest ago first; those of `coming` from its
    end. Files that come before `wanted` are not among them, all of `coming` are if `wanted` does not come at all.
    """
    place = {name: number for number, name in enumerate(coming)}
    last = place.get(wanted, -1)

    def rank(file: CachedFile) -> tuple[int, int]:
        if file.is_part:
            return 0, 0
        return (2, -place[file.name]) if file.name in place else (1, file.last_used_ns)

    may_go = [file for file in files if file.name != wanted and (file.is_part or place.get(file.name, math.inf) > last)]
    return sorted(may_go, key=rank)


def missing_bytes(num_bytes: int, used_bytes: int, max_bytes: int | None, free_bytes: int) -> int:
    """How many bytes must be deleted before a file of `num_bytes` can come; not positive if none."""
    for_disk = num_bytes + _SPARE_BYTES - free_bytes
    return for_disk if max_bytes is None else max(for_disk, used_bytes + num_bytes - max_bytes)


def shard_cache(cache_dir: Path, max_bytes: int | None) -> ShardCache:
    """The cache of this process in a folder, made if nobody has it yet; raises CacheError."""
    key = (os.getpid(), os.path.abspath(cache_dir), max_bytes)
    with _caches_mutex:
        cache = _caches.get(key)
        if cache is None:
            cache = _caches[key] = ShardCache(Path(key[1]), max_bytes)
        return cache


_caches: WeakValueDictionary[tuple[int, str, int | None], ShardCache] = WeakValueDictionary()
_caches_mutex = threading.Lock()


def _use_byte(name: str) -> int:
    return 2 * int(name[:15], 16) + 2


def _fetch_byte(name: str) -> int:
    return _use_byte(name) + 1


def _download(part: Path, file: WantedFile) -> tuple[int, str]:
    """The number of bytes that came, and their hash; they are on the disk."""
    digest = xxhash.xxh3_128()
    with open(part, "r+b") as out:

        def write(block: Any) -> None:
            view = memoryview(block)
            out.write(view)
            digest.update(view)

        file.download(write)
        num_bytes = out.tell()
        out.flush()
        # After a power failure a name must not stand for bytes that never reached the disk.
        os.fsync(out.fileno())
        os.fchmod(out.fileno(), 0o444)
    if file.xxh3_128.startswith(EDGE_PREFIX):
        return num_bytes, edge_hash(part)
    return num_bytes, digest.hexdigest()
