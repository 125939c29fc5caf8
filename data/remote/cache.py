"""A local folder of files that come from elsewhere or are made here, for all processes of a host, bounded in bytes.

The idea: whatever rows are read from is an Arrow file on this host, mapped. What lies on an object store is downloaded,
a row group of a Parquet file or a run of TFRecords is decoded; either is a *fetcher*, which turns the description of a
file (`CacheFile`) into its bytes. The cache knows nothing of what they are. A file is named by a hash of what it holds,
so that one copy serves all datasets, views and runs, and it gets that name only when it is complete and right.

Fetching is: take the file's lock, look whether it is there by now, make room (`room`), write, check, rename. So a host
fetches a file once, however many processes ask, and a process that dies leaves a lock that the kernel has let go of,
and a part that the next one removes.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import xxhash

from ..errors import CacheError, ShardError
from ..format.shards import EDGE_PREFIX, edge_hash
from .retry import RetryPolicy
from .room import PART_SUFFIX, ROOM_WAIT_S, Claim, Room

FOLDER_NAME = "heliostat-shards"
# Where a user keeps what can be fetched again: in the first of these that can be written.
HOMES = ("$XDG_CACHE_HOME", "~/.cache")
_REMEDY = "Give another cache_dir, or set XDG_CACHE_HOME to a folder of yours."
_FETCHES_OF_WRONG_BYTES = 3

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
        """Where the files lie on this host: in ~/.cache/heliostat (or that of XDG_CACHE_HOME), one per user.

        Where nothing can be written there, as in many containers, among temporary files.

        Raises:
            CacheError: the folder among those is in other hands.
        """
        if self.cache_dir is not None:
            return Path(self.cache_dir) / FOLDER_NAME
        homes = (os.path.expandvars(os.path.expanduser(home)) for home in HOMES)
        found = next((Path(home) for home in homes if _can_be_made(home)), None)
        return (_temporary() if found is None else found / "heliostat") / FOLDER_NAME


def _temporary() -> Path:
    """This user's folder among temporary files, whose name others know; raises CacheError if it is theirs."""
    folder = Path(tempfile.gettempdir()) / f"heliostat-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise CacheError(
            f"The cache of shards cannot use {folder} ({error.strerror}). {_REMEDY}", path=folder
        ) from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise CacheError(f"{folder} is another user's, or others may write to it. {_REMEDY}", path=folder)
    return folder


def _can_be_made(folder: str) -> bool:
    """Whether this user may write to a folder, or make it; not where "~" means nothing, since he has no home."""
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.path.isabs(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


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


class ShardCache:
    """The cache in one folder. For any number of threads and processes.

    `max_bytes` None: as much as the disk holds. Raises CacheError if the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self.folder, self.max_bytes, self._room = folder, max_bytes, Room(folder, max_bytes)

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

    def capacity(self, files: Sequence[CacheFile], num_bytes: int) -> int:
        """Bytes that these files, `num_bytes` together, may have: all if they fit, whatever lies there now."""
        if self.max_bytes is not None:
            return min(num_bytes, self.max_bytes)
        free = self._room.free_bytes()
        return num_bytes if num_bytes <= free else free + sum(self.size(file) or 0 for file in files)

    def turn(self, stop: threading.Event) -> AbstractContextManager[None]:
        """A few of all threads of this host are in such a block at once; the others wait, or until `stop` is set."""
        return self._room.turn(stop)

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
        claim = Claim(file.name, file.origin, coming, wait_s, stop or threading.Event())
        with self._room.lock(file.name):
            if self.size(file) is not None:
                return False
            part = self.folder / f"{file.name}{PART_SUFFIX}"
            part.unlink(missing_ok=True)  # left by a process that died
            try:
                self._fill(part, file, fetcher, claim)
                # Whoever counts what is there must not miss the file between its two names.
                with self._room.lock():
                    os.replace(part, self.folder / file.name)
            finally:
                part.unlink(missing_ok=True)
        return True

    def _fill(self, part: Path, file: CacheFile, fetcher: Fetcher, claim: Claim) -> None:
        """Write the right bytes into the part."""
        found = ""
        for _ in range(_FETCHES_OF_WRONG_BYTES):
            try:
                with open(part, "wb") as out:
                    digest = self._write(out, file, fetcher, claim)
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
            "write or upload the dataset again.",
            path=file.origin,
        )

    def _write(self, out: BinaryIO, file: CacheFile, fetcher: Fetcher, claim: Claim) -> str:
        """Write what is fetched, into room that was made for it; the hash of it. It is on the disk then.

        Room is made when the first bytes come: what they are made of may have to be fetched before.
        """
        digest, reserved, num_bytes = xxhash.xxh3_128(), 0, 0

        def reserve(requested: int) -> None:
            nonlocal reserved
            self._room.make(claim, requested - reserved)
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

        fetcher.fetch(file, write, claim.stop)
        out.truncate(num_bytes)
        out.flush()
        # After a power failure a name must not stand for bytes that never reached the disk.
        os.fsync(out.fileno())
        os.fchmod(out.fileno(), 0o444)
        return digest.hexdigest()
