"""A local folder of files that come from elsewhere or are made here, for all processes of a host, bounded in bytes.

The idea: whatever rows are read from is an Arrow file on this host, mapped. What lies on an object store is downloaded,
a row group of a Parquet file or a run of TFRecords is decoded; either is a *fetcher*, which turns the description of a
file (`CacheFile`) into its bytes. The cache knows nothing of what they are. A file is named by a hash of what it holds,
so that one copy serves all datasets, views and runs, and it gets that name only when it is complete and right.

Fetching is: take the file's lock, look whether it is there by now, make room, write, check, rename. So a host fetches a
file once, however many processes ask, and a process that dies leaves a lock that the kernel has let go of, and a part
that the next one removes. There are 4096 locks for each ending (`filelock`), by the first digits of the name, rather
than one for each file: they stay as empty files. One more is held while room is made.

The bound is on what lies in the folder. Nobody says that a file is in use: a file that is mapped can be deleted, its
rows stay readable until it is unmapped, and readers unmap what is behind them. (Counting uses, with locks between
processes, was there before: three times the code, and a reader that was forgotten kept its files for ever.) What goes
first is decided by `eviction_order`: what nobody is known to need, longest unused first, then what is needed last
(L. A. Belady in IBM Systems Journal 5, 1966).

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import filelock
import xxhash

from ..errors import CacheError, ShardError
from ..format.quick_hash import EDGE_PREFIX, edge_hash
from .retry import RetryPolicy

FOLDER_NAME = "heliostat-shards"
_LOCK_FOLDER = ".fetch-locks"  # ".locks" is a file of earlier versions
_PART_SUFFIX = ".fetching"
_OWN_NAME = re.compile(rf"([0-9a-f]{{32}})\.[a-z0-9]{{1,12}}({re.escape(_PART_SUFFIX)})?")
_FETCHES_OF_WRONG_BYTES = 3
# What is left free on the disk.
_SPARE_BYTES = 64 << 20
ROOM_WAIT_S = 30.0
_WAIT_STEP_S = 0.02

Write = Callable[[bytes | memoryview], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Where fetched files are kept, up to how many bytes (None: what the disk holds), with how many threads they are
    fetched, and how long is waited for a silent server."""

    cache_dir: str | None = None
    cache_bytes: int | None = None
    num_threads: int = 4
    timeout_s: float = 20.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if self.cache_bytes is not None and self.cache_bytes < 1:
            raise ValueError(f"cache_bytes is {self.cache_bytes}; it must be at least 1, or None for no limit.")

    def folder(self) -> Path:
        """Where the files lie on this host: in ~/.cache/heliostat (or that of XDG_CACHE_HOME), one per user."""
        if self.cache_dir is not None:
            return Path(self.cache_dir) / FOLDER_NAME
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "heliostat" / FOLDER_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFile:
    """A file as the cache has it, and what it is made of.

    Args:
        name: 32 hex digits that tell what it holds, a dot, and an ending.
        num_bytes: its size; about, if it has no hash.
        xxh3_128: what its bytes hash to (or its `edge_hash`); None for what is made here, which has no size before.
        origin: where it comes from, for messages.
        rows: the rows of every record batch in it.
        shard: the number of the dataset's file that it is made of.
        chunk: the number of the row group, record batch or run of records in that file.
    """

    name: str
    num_bytes: int
    xxh3_128: str | None
    origin: str
    rows: tuple[int, ...] = ()
    shard: int = 0
    chunk: int = 0


class Fetcher(Protocol):
    """What turns the files of a dataset into files of the cache. Pickles, as datasets do."""

    def fetch(self, file: CacheFile, write: Write, stop: threading.Event) -> None:
        """Hand all bytes of the file to `write`, in order; raises ShardError, RemoteError, BadColumnError.

        When `stop` is set, nothing is attempted again.
        """


@dataclass(frozen=True, slots=True)
class _Request:
    """A file to fetch, by what, before which others (their names), how long it waits for room, and what
    stops it."""

    file: CacheFile
    fetcher: Fetcher
    coming: Sequence[str]
    wait_s: float
    stop: threading.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentFile:
    """A file that lies in the cache; one that is still being fetched is a part."""

    name: str
    num_bytes: int
    last_used_ns: int
    is_part: bool = False


class ShardCache:
    """The cache in one folder. For any number of threads and processes.

    `max_bytes` None: as much as the disk holds. Raises CacheError if the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        try:
            (folder / _LOCK_FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"The cache of shards cannot use {folder} ({error.strerror}). Give another cache_dir.", path=folder
            ) from error

    def size(self, file: CacheFile) -> int | None:
        """The bytes of a file that is there, and right as far as they tell; marks it as used now."""
        path = self.folder / file.name
        try:
            found = path.stat()
            if file.xxh3_128 is not None and found.st_size != file.num_bytes:
                return None
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
        except FileNotFoundError:
            return None
        except PermissionError:  # another user's file
            pass
        return found.st_size

    def capacity(self, files: Sequence[CacheFile]) -> int:
        """Bytes that these files may have together."""
        if self.max_bytes is not None:
            return self.max_bytes
        here = sum(self.size(file) or 0 for file in files)
        return here + self._free_bytes()

    def has_room(self, num_bytes: int) -> bool:
        """Whether so many bytes fit, whatever lies there now."""
        return num_bytes <= (self._free_bytes() if self.max_bytes is None else self.max_bytes)

    def fetch(
        self,
        file: CacheFile,
        fetcher: Fetcher,
        *,
        coming: Sequence[str] = (),
        wait_s: float = ROOM_WAIT_S,
        stop: threading.Event | None = None,
    ) -> bool:
        """Fetch a file unless it is there; whether it was fetched.

        While another process or thread fetches it, this waits for that one. `coming` names the files that will be
        needed next, in order: room is made as `eviction_order` says; if that is not enough, this waits `wait_s` for
        those that are being fetched. Raises CacheError if there is none, ShardError if wrong bytes arrive again and
        again, and what the fetcher raises.
        """
        if self.size(file) is not None:
            return False
        with self._lock(file.name):
            if self.size(file) is not None:
                return False
            part = self.folder / f"{file.name}{_PART_SUFFIX}"
            part.unlink(missing_ok=True)  # left by a process that died
            try:
                self._fill(part, _Request(file, fetcher, coming, wait_s, stop or threading.Event()))
                # Whoever counts what is there must not miss the file between its two names.
                with self._lock():
                    os.replace(part, self.folder / file.name)
            finally:
                part.unlink(missing_ok=True)
        return True

    def _free_bytes(self) -> int:
        return max(0, shutil.disk_usage(self.folder).free - _SPARE_BYTES)

    def _lock(self, name: str | None = None) -> filelock.BaseFileLock:
        place = "room" if name is None else f"{name[:3]}.{name.rpartition('.')[2]}"
        return filelock.FileLock(self.folder / _LOCK_FOLDER / place, mode=0o666, poll_interval=0.01)

    def _fill(self, part: Path, request: _Request) -> None:
        """Write the right bytes into the part."""
        file, found = request.file, ""
        for _ in range(_FETCHES_OF_WRONG_BYTES):
            try:
                with open(part, "wb") as out:
                    digest = self._write(out, request)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise CacheError(
                    f"The disk of the shard cache {self.folder} is full ({error.strerror}) while {file.origin} "
                    f"({file.num_bytes:,} bytes) is fetched. Give a smaller cache_bytes, or another cache_dir.",
                    path=self.folder,
                ) from error
            num_bytes = part.stat().st_size
            if file.xxh3_128 is None:
                return
            if file.xxh3_128.startswith(EDGE_PREFIX):
                digest = edge_hash(part)
            if num_bytes == file.num_bytes and digest == file.xxh3_128:
                return
            found = f"{num_bytes:,} bytes" if num_bytes != file.num_bytes else f"xxh3_128 {digest}"
        raise ShardError(
            f"{file.origin} arrived {_FETCHES_OF_WRONG_BYTES} times with {found}; its manifest says "
            f"{file.num_bytes:,} bytes with xxh3_128 {file.xxh3_128}. It was damaged or replaced after it was written: "
            "upload the dataset again.",
            path=file.origin,
        )

    def _write(self, out: BinaryIO, request: _Request) -> str:
        """Write what is fetched, into room that was made for it; the hash of it. It is on the disk then.

        Room is made when the first bytes come: what they are made of may have to be fetched before.
        """
        file, digest, reserved, num_bytes = request.file, xxhash.xxh3_128(), 0, 0

        def reserve(requested: int) -> None:
            nonlocal reserved
            self._make_room(request, requested - reserved)
            reserved = requested
            out.truncate(reserved)  # so that others count it

        def write(block: bytes | memoryview) -> None:
            nonlocal num_bytes
            view = memoryview(block)
            if not num_bytes:
                reserve(file.num_bytes)
            if file.xxh3_128 is None and num_bytes + view.nbytes > reserved:
                # What is made here may be larger than was thought.
                reserve(num_bytes + view.nbytes + reserved // 8)
            out.write(view)
            digest.update(view)
            num_bytes += view.nbytes

        request.fetcher.fetch(file, write, request.stop)
        out.truncate(num_bytes)
        out.flush()
        # After a power failure a name must not stand for bytes that never reached the disk.
        os.fsync(out.fileno())
        os.fchmod(out.fileno(), 0o444)
        return digest.hexdigest()

    def _make_room(self, request: _Request, num_bytes: int) -> None:
        """Delete what may go until there is room for so many more bytes; waits for what others are fetching now."""
        file, give_up = request.file, time.monotonic() + request.wait_s
        is_possible = self.max_bytes is None or num_bytes <= self.max_bytes
        while True:
            missing, used, num_parts = self._try_to_make_room(request, num_bytes) if is_possible else (num_bytes, 0, 0)
            if missing <= 0:
                return
            if not num_parts or time.monotonic() >= give_up or request.stop.wait(_WAIT_STEP_S):
                break
        limit = "what the disk holds" if self.max_bytes is None else f"{self.max_bytes:,} bytes"
        raise CacheError(
            f"The shard cache {self.folder} has no room for {file.origin} ({num_bytes:,} bytes): its limit is "
            f"{limit}, and {used:,} bytes are being fetched or needed before. Give a larger cache_bytes, a smaller "
            "shuffle window or smaller shards.",
            path=self.folder,
        )

    def _try_to_make_room(self, request: _Request, num_bytes: int) -> tuple[int, int, int]:
        """The bytes that are missing still, those that are used, and how many files others are fetching."""
        with self._lock():
            files = self._files()
            used = sum(each.num_bytes for each in files)
            missing = missing_bytes(num_bytes, used, self.max_bytes, shutil.disk_usage(self.folder).free)
            # What has no bytes yet waits for room itself.
            num_parts = sum(f.is_part and f.num_bytes > 0 and f.name != request.file.name for f in files)
            for victim in eviction_order(files, request.coming, request.file.name):
                if missing <= 0:
                    break
                if self._delete(victim):
                    missing, used = missing - victim.num_bytes, used - victim.num_bytes
                    num_parts -= victim.is_part and victim.num_bytes > 0
        return missing, used, num_parts

    def _files(self) -> list[PresentFile]:
        found = []
        for entry in os.scandir(self.folder):
            match = _OWN_NAME.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has just renamed it
                continue
            name, is_part = entry.name.removesuffix(_PART_SUFFIX), match[2] is not None
            found.append(PresentFile(name=name, num_bytes=stat.st_size, last_used_ns=stat.st_atime_ns, is_part=is_part))
        return found

    def _delete(self, file: PresentFile) -> bool:
        """Delete a file, a part only if nobody fetches it any more."""
        lock = self._lock(file.name)
        try:
            if file.is_part:
                lock.acquire(timeout=0)
            (self.folder / (file.name + (_PART_SUFFIX if file.is_part else ""))).unlink(missing_ok=True)
        except (filelock.Timeout, PermissionError):  # it is being fetched; it is another user's
            return False
        finally:
            lock.release()
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
