"""Whether the machine of a worker has what the driver's has: asked before anything of the driver's is unpickled there.

A worker whose machine has another Keras, another Heliostat or no room fails somewhere in the middle of what it then
does, with an error that names anything but the cause; and the next one fails on the next machine. So the first thing
that a worker's process is asked is to `look`: at versions, files, room and memory, before TensorFlow is loaded. It
answers with plain facts, the driver compares them with its own (`complaints_of`, a pure function), and all that is
wrong on all machines is told in one message.

Question and answer travel as JSON, because the two sides may be of different versions of Heliostat: that is one of the
things that are to be found out. Fields that one side does not know are left out. Versions of Heliostat are compared by
the bytes of its files, since two that call themselves 0.1.0 may differ in what they send each other.

What was not done: to import everything there (that loads TensorFlow, see `trainer/driver/factory.py` for the rest), to
send code by value that gathers the facts (it would find a missing Heliostat; Ray names that as well, see
`pools/arrival.py`), and to ask every machine of the cluster (only those matter that workers are placed on).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .disk.reach import SCRATCH, why_not_own
from .errors import Complaint

CACHE, TEMPORARY = "the cache", "temporary files"
MODULE_SUFFIXES = (".py", ".so")
_OWN = ("cluster", "data", "trainer")  # what workers and driver both run
_ABOUT = 100_000_000
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of a worker's machine.

    Attributes:
        packages: installed packages whose versions must be the driver's, each with the names of the distributions that
            may provide it.
        modules: top-level modules that must be found.
        contents: modules that are installed nowhere and do not travel, whose files must be the driver's.
        folders: where room is needed; `CACHE` is where that machine keeps what it fetches, and `TEMPORARY` where a run
            keeps what goes to the driver's disk.
        homes: where `CACHE` lies, in the first that can be written; "~" and variables are those of that machine. If
            there is none, among temporary files.
        room_bytes: so much, in each.
        memory_bytes: so much memory must be free.
    """

    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    room_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a process finds on its machine.

    Attributes:
        host: name of the machine.
        python: version of the interpreter, and its file.
        heliostat: hash of Heliostat's files, and their folder.
        versions: of the packages asked for, empty where there is none.
        missing: of the modules asked for.
        contents: hashes of the modules asked for, empty where there is none.
        room: free bytes of the folders asked for, or why nothing can be written there.
        memory_bytes: free memory; None where unknown.
    """

    host: str = ""
    python: tuple[str, str] = ("", "")
    heliostat: tuple[str, str] = ("", "")
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    room: Mapping[str, int | str] = field(default_factory=dict)
    memory_bytes: int | None = None


def complaints_of(wanted: Wanted, here: Facts, there: Facts) -> tuple[Complaint, ...]:
    """What a worker's machine lacks; empty if it will do.

    Args:
        wanted: what was asked.
        here: the driver's facts.
        there: the worker's.
    """
    found = [*_of_versions(here, there), *_of_modules(here, there)]
    for folder, room in there.room.items():
        if isinstance(room, str):
            what = f"nothing can be written in {folder}: {room}"
            home = "Give this user a home that can be written, or set XDG_CACHE_HOME to a folder that can"
            found.append((what, "Set TMPDIR to a folder that can be written" if folder == TEMPORARY else home))
        elif room < wanted.room_bytes:
            what = f"the disk of {folder} has {_mb(room)} left, and {_mb(wanted.room_bytes)} are needed"
            variable = "TMPDIR" if folder == TEMPORARY else "XDG_CACHE_HOME"
            found.append((what, f"Free some, or set {variable} to a folder on another disk"))
    if there.memory_bytes is not None and there.memory_bytes < wanted.memory_bytes:
        free = there.memory_bytes // _ABOUT * _ABOUT  # workers of one machine say the same
        what = f"about {_mb(free)} of memory are free, and a worker needs {_mb(wanted.memory_bytes)} to load"
        found.append((what, "Ask for fewer workers, or end what takes the memory"))
    return tuple(Complaint(host=there.host, what=what, remedy=remedy) for what, remedy in found)


def _of_versions(here: Facts, there: Facts) -> Iterator[tuple[str, str]]:
    if there.python[0] != here.python[0]:
        what = f"Python is {there.python[0]} ({there.python[1]}), the driver's is {here.python[0]} ({here.python[1]})"
        yield what, "Start Ray there in an environment with the driver's Python"
    for name, wanted in here.versions.items():
        found = there.versions.get(name, "")
        if found == wanted or (found and not wanted):  # the driver needs none, or has it from elsewhere
            continue
        release = f"=={wanted}" if wanted else ""
        has = f"is {found}, the driver's is {wanted}" if found else "is not installed"
        where = f" ({there.python[1]})" if not found else ""
        yield f"{name} {has}{where}", f"Install {name}{release} there"
    if there.heliostat[0] != here.heliostat[0]:
        yield (
            f"Heliostat in {there.heliostat[1] or 'no folder'} has other files than the driver's in "
            f"{here.heliostat[1]} ({there.heliostat[0][:12] or 'none'} against {here.heliostat[0][:12]})",
            "Install the same build of heliostat on all machines",
        )


def _of_modules(here: Facts, there: Facts) -> Iterator[tuple[str, str]]:
    for name in there.missing:
        if name not in here.missing:
            yield (
                f"the module {name!r}, which the code that is sent to workers uses, is not there ({there.python[1]})",
                "Install it there, put it beside the script, or name it in Trainer(runtime_env={'pip': [...]})",
            )
    for name, digest in here.contents.items():
        found = there.contents.get(name, "")
        if found != digest:
            state = "has other contents than the driver's" if found else "is not there"
            remedy = "Put it beside the script, from where it travels; or bring it to the same state there"
            yield f"the module {name!r}, which is installed nowhere, {state}", remedy


# -- what a process finds on its machine ------------------------------------------------------------------------------


def look(wanted: Wanted) -> Facts:
    """What this process finds on its machine; nothing that is asked for is imported."""
    return Facts(
        host=socket.gethostname(),
        python=(platform.python_version(), sys.executable),
        heliostat=_heliostat(),
        versions={name: _version(names) for name, names in wanted.packages.items()},
        missing=tuple(name for name in wanted.modules if not module_files(name)),
        contents={name: digest_of(module_files(name)) for name in wanted.contents},
        room={folder: _room_of(folder, wanted.homes) for folder in wanted.folders},
        memory_bytes=_free_memory(),
    )


def answered(question: bytes) -> bytes:
    """`look`, for a question that comes from another process."""
    return msgspec.json.encode(look(msgspec.json.decode(question, type=Wanted)))


def asked(wanted: Wanted) -> bytes:
    """A question as it travels."""
    return msgspec.json.encode(wanted)


def facts_of(answer: bytes) -> Facts:
    """What a worker has answered; raises msgspec.MsgspecError where that is none."""
    return msgspec.json.decode(answer, type=Facts)


def module_files(name: str) -> Sequence[Path]:
    """The files of a top-level module or package, without importing it; empty where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that was put together by a program has no spec
        return (Path(name),) if name in sys.modules else ()
    if spec is None:
        return ()
    if spec.submodule_search_locations is None:
        return (Path(spec.origin or name),)
    files = (path for root in spec.submodule_search_locations for path in Path(root).rglob("*"))
    return sorted(path for path in files if path.suffix in MODULE_SUFFIXES) or (Path(spec.origin or name),)


def digest_of(files: Sequence[Path], root: Path | None = None) -> str:
    """Hash of files and of their names below a folder, of None the one that holds them all; empty without files."""
    if not files:
        return ""
    root = root or Path(os.path.commonpath([path.parent for path in files]))
    return digest_of_contents((str(path.relative_to(root)), _contents(path)) for path in files)


def digest_of_contents(contents: Iterable[tuple[str, bytes]]) -> str:
    """Hash of names and contents of files."""
    found = hashlib.sha256()
    for name, content in contents:
        found.update(f"{name} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has no file, or one that cannot be read
        return b""


def _heliostat() -> tuple[str, str]:
    """Hash and folder of the Heliostat of this process."""
    roots = [Path(__file__).parents[1] / name for name in _OWN]
    files = sorted(path for root in roots for path in root.rglob("*.py"))
    return digest_of(files), str(roots[0].parent)


def _version(distributions: Sequence[str]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _room_of(folder: str, homes: Sequence[str]) -> int | str:
    """As `_room`, of one of `Wanted.folders`."""
    if folder == TEMPORARY:
        return why_not_own(SCRATCH) or _room(Path(tempfile.gettempdir()))
    if folder != CACHE:
        return _room(Path(folder))
    places = (os.path.expandvars(os.path.expanduser(home)) for home in homes)
    found = (_room(Path(place)) for place in places if os.path.isabs(place))
    room = next((room for room in found if isinstance(room, int)), None)
    return _room(Path(tempfile.gettempdir())) if room is None else room


def _room(folder: Path) -> int | str:
    """Free bytes where a folder is, or will be made; or why nothing can be written there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{there} is {'read-only' if there.is_dir() else 'no folder'}"
    try:
        return shutil.disk_usage(there).free
    except OSError as error:
        return f"{there}: {error.strerror}"


def _free_memory() -> int | None:
    """Bytes that this machine, or the container that this process is in, has left; None where unknown."""
    found = []
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = _lines(_CGROUP / "memory.max"), _lines(_CGROUP / "memory.current")
    files = [int(line.split()[1]) for line in _lines(_CGROUP / "memory.stat") if line.startswith("inactive_file ")]
    if limit and used and limit[0].isdecimal():  # what files take of it is given back when it is needed
        found.append(int(limit[0]) - int(used[0]) + sum(files))
    return min(found, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _mb(num_bytes: int) -> str:
    return f"{max(0, num_bytes) / 1e6:,.0f} MB"
