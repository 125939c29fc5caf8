"""Folders on object stores and other remote file systems, found by URI, with files that are read and written whole.

pyarrow's file systems do the work (fsspec's for schemes that pyarrow does not know). Added are attempts with growing
waits that a closed dataset ends, downloads that go on at the block at which the connection broke, time-outs, and names
for messages. A URI may hold a password, in front of the host or among its options, and file systems put URIs and keys
into what they say; so a URI is shown without them, and everything that a file system says goes through `hide`. Names
of folders may hold "#", "?", "%" and blanks, which a URI would cut at or take for escapes: `_parts_of` and `_uri_of`
say what belongs to a name. Reading parts of shards where they lie was not tried: a shuffled pass would ask for every
row by itself.
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import tenacity
from pyarrow import fs

from ..errors import RemoteError
from .retry import RetryPolicy, retrying

_Result = TypeVar("_Result")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OPTIONS = re.compile(r"[\w.-]+=[^&]*(&[\w.-]+=[^&]*)*")
# A password may have "/" in it, as keys of Amazon have, where nobody escaped it.
_USER = re.compile(r"[^/@:?]*:[^@]*@")
_PORT = re.compile(r"[^/@:?]*:[0-9]+(/|$)")
_WITHOUT_PORTS = ("s3", "gs", "gcs", "abfs", "abfss")
_SECRET_OPTION = re.compile(r"(?i)key|secret|token|pass|pwd|cred|auth|sig")
_BLOCK_BYTES = 16 << 20
_CONNECT_TIMEOUT_S = 10.0

_OPENERS: dict[str, Callable[[], fs.FileSystem]] = {}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A URI: what is before "://", user and password, the rest of the host part, path, and options."""

    scheme: str
    user: str
    host: str
    path: str
    options: str


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URI such as s3://bucket/folder."""
    return isinstance(path, str) and _URI.match(path) is not None


def shown_uri(uri: str) -> str:
    """A URI as messages may show it: without user, password, and options, which hold credentials."""
    parts = _parts_of(uri)
    # For Azure the user is the container.
    kept = f"{parts.user.partition(':')[0]}@" if parts.scheme.startswith("abfs") and parts.user else ""
    return f"{parts.scheme}://{kept}{parts.host}{parts.path}".rstrip("/")


def local_path(uri: str) -> Path | None:
    """The path that a file:// URI means, None for any other one."""
    return Path(connect(uri)[1]) if _parts_of(uri).scheme == "file" else None


def _parts_of(uri: str) -> _Parts:
    """A URI taken apart; "#" and "?" belong to names unless options (key=value&key=value) follow the last "?"."""
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    found = _USER.match(rest) if scheme in _WITHOUT_PORTS or not _PORT.match(rest) else None
    start = found.end() if found else 0
    authority, slash, tail = rest[start:].partition("/")
    if not slash and "?" in authority:
        authority, mark, tail = authority.partition("?")
        tail = mark + tail
    path, mark, options = tail.rpartition("?")
    if not mark or not _OPTIONS.fullmatch(options) or scheme == "file" or scheme in _OPENERS:
        path, options = tail, ""
    user, _, host = (rest[:start] + authority).rpartition("@")
    return _Parts(scheme, user, host, f"{slash}{path}", options)


def _uri_of(parts: _Parts) -> str:
    """The URI as pyarrow understands it."""
    user = f"{_escaped(parts.user, ':')}@" if parts.user else ""
    path = _escaped(parts.path, "/:@")
    return f"{parts.scheme}://{user}{parts.host}{path}" + (f"?{parts.options}" if parts.options else "")


def _escaped(text: str, kept: str) -> str:
    """With signs, blanks and letters escaped, unless they are already."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe=f"{kept}%!$&'()*+,;=~")


class RemoteFolder:
    """One folder of a remote file system. Pickles as its URI, and connects when it is first used in a process.

    Everything raises RemoteError if the file system cannot be reached or refuses, after the attempts of `retry`, and
    FileNotFoundError for what is not there. No message shows credentials.
    """

    def __init__(self, uri: str, *, timeout_s: float = 20.0, retry: RetryPolicy | None = None) -> None:
        self.uri, self.name, self.timeout_s = uri, shown_uri(uri), timeout_s
        self.retry = RetryPolicy() if retry is None else retry

    def __repr__(self) -> str:
        return f"RemoteFolder({self.name!r})"

    def name_of(self, file: str) -> str:
        """A file in messages."""
        return f"{self.name}/{file}"

    def read(self, file: str) -> bytes:
        """All bytes of a small file."""
        return self.inspect(file, lambda opened: bytes(opened.read()))

    def download(
        self, file: str, write: Callable[[memoryview], object], *, most_bytes: int, stop: threading.Event
    ) -> None:
        """Hand all bytes of a file to `write`, block by block; ends when there are more than `most_bytes`.

        After a broken connection reading goes on with the block that was interrupted. When `stop` is set, nothing more
        is read (RemoteError).
        """
        opened: list[Any] = []
        offset = 0

        def read_block() -> bytes:
            try:
                if not opened:
                    filesystem, path = self._place(file)
                    opened.append(filesystem.open_input_file(path))
                return opened[0].read_at(min(_BLOCK_BYTES, most_bytes + 1 - offset), offset)
            except OSError:
                opened.clear()
                raise

        while offset <= most_bytes:
            if stop.is_set():
                raise RemoteError(f"Fetching {self.name_of(file)} was stopped: its reader was closed.")
            block = self._attempt(read_block, "be read", file, stop)
            if not block:
                return
            write(memoryview(block))
            offset += len(block)

    def inspect(self, file: str, look: Callable[[Any], _Result]) -> _Result:
        """What `look` finds in a file, opened for reading some parts of it; called for every attempt."""

        def inspect() -> _Result:
            filesystem, path = self._place(file)
            with filesystem.open_input_file(path) as opened:
                return look(opened)

        return self._attempt(inspect, "be read", file)

    def list(self) -> dict[str, int]:
        """The files in and below the folder, by their names from it on, and their bytes; none where folders cannot be
        listed."""
        return self._attempt(lambda: self._listed(is_deep=True), "be listed")

    def sizes(self, files: Iterable[str]) -> dict[str, int]:
        """The bytes of those of the files that are there."""
        requested = set(files)

        def sizes() -> dict[str, int]:
            found = self._listed(is_deep=any("/" in file for file in requested))
            if not found and requested:
                # Not every file system can list its folders.
                filesystem = self._place()[0]
                infos = filesystem.get_file_info([self._place(file)[1] for file in sorted(requested)])
                found = {file: info.size for file, info in zip(sorted(requested), infos, strict=True) if info.is_file}
            return {name: size for name, size in found.items() if name in requested}

        return self._attempt(sizes, "be listed")

    def _listed(self, *, is_deep: bool) -> dict[str, int]:
        filesystem, folder = self._place()
        listed = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=is_deep))
        start = len(folder) + 1
        return {info.path[start:]: info.size or 0 for info in listed if info.is_file}

    def upload(self, file: str, blocks: Callable[[], Iterable[Any]], *, at_once: bool = False) -> None:
        """Write a file; `blocks` is called for every attempt and gives its bytes.

        With `at_once` the file appears complete or not at all: object stores write like that anyway, elsewhere it is
        renamed in the end.
        """

        def upload() -> None:
            filesystem, path = self._place(file)
            has_folders = isinstance(filesystem, fs.LocalFileSystem | fs.HadoopFileSystem)
            if has_folders:
                filesystem.create_dir(self._place()[1], recursive=True)
            target = self._place(f".{file}.writing")[1] if has_folders and at_once else path
            with filesystem.open_output_stream(target, compression=None) as stream:
                for block in blocks():
                    stream.write(block)
            if target != path:
                filesystem.move(target, path)

        self._attempt(upload, "be written", file)

    def delete(self, file: str) -> None:
        """Delete a file."""

        def delete() -> None:
            filesystem, path = self._place(file)
            filesystem.delete_file(path)

        self._attempt(delete, "be deleted", file)

    def _place(self, file: str | None = None) -> tuple[fs.FileSystem, str]:
        filesystem, folder = connect(self.uri, self.timeout_s)
        return filesystem, folder if file is None else f"{folder}/{file}"

    def _attempt(
        self, action: Callable[[], _Result], what: str, file: str | None = None, stop: threading.Event | None = None
    ) -> _Result:
        try:
            return retrying(self.retry, stop)(action)
        except FileNotFoundError:
            raise
        except tenacity.RetryError as error:
            last = error.last_attempt
            what = f"could not {what}: {last.attempt_number} attempts failed, the last one with"
            self._fail(last.exception() or error, what, file)
        except (OSError, pa.ArrowException) as error:
            self._fail(error, f"could not {what}:", file)

    def _fail(self, error: BaseException, what: str, file: str | None) -> NoReturn:
        name = self.name if file is None else self.name_of(file)
        text = hide(str(error), self.uri)
        raise RemoteError(
            f"{name} {what} {type(error).__name__}: {text}. Check the network, the endpoint and the credentials, then "
            "run it again.",
            path=name,
        ) from (error if text == str(error) else None)


def hide(text: str, uri: str) -> str:
    """A text without the credentials of a URI, as they stand in it or unescaped."""
    parts = _parts_of(uri)
    values = [option.partition("=")[2] for option in parts.options.split("&") if _SECRET_OPTION.search(option)]
    user = _escaped(parts.user, ":")
    secrets = [parts.options, *(part for one in (parts.user, user) for part in (one, *one.split(":", 1))), *values]
    text = text.replace(uri, shown_uri(uri)).replace(_uri_of(parts), shown_uri(uri))
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, "***")
    return text


def open_with(scheme: str, opener: Callable[[], fs.FileSystem]) -> None:
    """From now on in this process, open the URIs of a scheme by the file system that `opener` makes.

    What follows "://" is the path in it as it stands: nothing is escaped, and there are no options.
    """
    _OPENERS[scheme] = opener
    _connected.cache_clear()


def opened_here(uri: str) -> tuple[fs.FileSystem, str] | None:
    """The file system and path of a URI whose scheme this process opens itself (`open_with`); None for others."""
    scheme, _, path = uri.partition("://")
    return (_OPENERS[scheme](), path.rstrip("/")) if scheme in _OPENERS else None


def connect(uri: str, timeout_s: float = 20.0) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, one per process, and the path in it; raises RemoteError, OSError."""
    return _connected(uri, timeout_s, os.getpid())


@lru_cache(maxsize=32)
def _connected(uri: str, timeout_s: float, process: int) -> tuple[fs.FileSystem, str]:
    if (opened := opened_here(uri)) is not None:
        return opened
    try:
        filesystem, path = fs.FileSystem.from_uri(_uri_of(_parts_of(uri)))
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise RemoteError(
                f"{shown_uri(uri)} is not a usable URI: {hide(str(error), uri)}. Examples: s3://bucket/folder, "
                "s3://bucket/folder?endpoint_override=host:9000&scheme=http, gs://bucket/folder.",
                path=shown_uri(uri),
            ) from None
        filesystem, path = _by_fsspec(uri)
    if isinstance(filesystem, getattr(fs, "S3FileSystem", ())):
        filesystem = _with_timeouts(filesystem, timeout_s)
    return filesystem, path.rstrip("/")


def _with_timeouts(filesystem: fs.S3FileSystem, timeout_s: float) -> fs.S3FileSystem:
    """The same S3 file system, which gives up on a silent server and leaves attempts to us."""
    # A file system pickles as its options, which it does not tell otherwise.
    rebuild, (options,) = filesystem.__reduce__()
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    connect_s = min(_CONNECT_TIMEOUT_S, timeout_s)
    return rebuild({**options, "request_timeout": timeout_s, "connect_timeout": connect_s, "retry_strategy": once})


def _by_fsspec(uri: str) -> tuple[fs.FileSystem, str]:
    scheme = _parts_of(uri).scheme
    try:
        filesystem, path = importlib.import_module("fsspec").core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise RemoteError(
            f"{shown_uri(uri)} cannot be opened: pyarrow knows no {scheme}:// and fsspec could not help "
            f"({hide(str(error), uri)}). Install fsspec and its package for {scheme}.",
            path=shown_uri(uri),
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
