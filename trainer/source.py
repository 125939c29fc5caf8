"""The modules beside the user's script: they travel to machines that do not have them, and are on `sys.path` there.

What is sent to workers is pickled: of ``__main__`` by value, of every other module by its name alone. So a worker needs
those modules, and a script on one machine of a cluster has them beside it, nowhere else. They are packed once per run,
named by the hash of their contents, and put in front of `sys.path` before anything of the user's is unpickled: also
before what an old copy of them, forgotten on that machine, would have been taken for. A machine that has the same
contents at the same path (this one, one with the same disk, one where Ray has put the folder of a job) uses them there.

What travels: every ``.py`` and every extension module in the script's folder, and every package in it (a folder with an
``__init__.py``), whole, with its data files; not what begins with a dot. Data beside the script does not travel:
scripts lie in home directories and beside data sets, and nobody can tell which of a hundred thousand files is read.

What was not done: Ray's ``working_dir`` (it changes the folder that workers are in, sends the data as well, and cannot
be given where this process is connected to Ray already; `Trainer(runtime_env=...)` has it for who wants that), modules
by value (a module with a lock in it cannot be pickled, and two classes of one name are then not the same), and only the
modules that the script imports (which ones it imports later cannot be known).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import IO

from heliostat.cluster.disk.reach import own_folder
from heliostat.cluster.preflight import digest_of, digest_of_contents

from .errors import ConfigurationError

LIMIT_BYTES = 80_000_000
NUM_NAMED = 5
_MODULES = (".py", *EXTENSION_SUFFIXES)
_USED = ".used"  # in a copy: locked as long as a process uses it
_ATTEMPTS = 10  # others may take a copy away that nobody uses yet
_WHEN = (1980, 1, 1, 0, 0, 0)  # equal files make equal archives


class SourceTooLargeError(ConfigurationError):
    """The modules beside the script are more than what is sent to every machine."""

    def __init__(self, folder: Path, sizes: dict[str, int]) -> None:
        """Make the sentence.

        Args:
            folder: that of the script.
            sizes: bytes of every file, by its path in there.
        """
        largest = sorted(sizes, key=lambda name: -sizes[name])[:NUM_NAMED]
        listed = ", ".join(f"{name} ({sizes[name] / 1e6:,.1f} MB)" for name in largest)
        super().__init__(
            f"The modules and packages beside the script, in {folder}, are {sum(sizes.values()) / 1e6:,.0f} MB, and up "
            f"to {LIMIT_BYTES / 1e6:,.0f} MB are sent to the workers' machines. The largest files: {listed}. Move data "
            "out of the packages, or the script into a folder of its own."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The modules beside a script.

    Attributes:
        folder: where they lie on the driver's machine.
        names: of their files, paths in that folder.
        digest: hash of names and contents.
        archive: the files, as a zip.
    """

    folder: str
    names: tuple[str, ...]
    digest: str
    archive: bytes

    def has(self, module: str) -> bool:
        """Whether a top-level module is among them."""
        heads = {name.split(os.sep)[0] for name in self.names}
        return module in heads or any(f"{module}{suffix}" in heads for suffix in _MODULES)

    def file_of(self, module: str) -> Path | None:
        """The driver's file of a module with a dotted name; None if it is not among them, or not Python."""
        stem = module.replace(".", os.sep)
        for name in (f"{stem}.py", os.path.join(stem, "__init__.py")):
            if name in self.names:
                return Path(self.folder, name)
        return None

    def put_on_path(self) -> Path:
        """Let this process find the modules, first of all; returns the folder in which it does.

        Raises:
            OSError: they can be written nowhere.
        """
        place = Path(self.folder) if self._is_in(Path(self.folder)) else self._copy()
        with contextlib.suppress(ValueError):
            sys.path.remove(str(place))
        sys.path.insert(0, str(place))
        importlib.invalidate_caches()
        return place

    def _is_in(self, folder: Path) -> bool:
        return digest_of([folder / name for name in self.names], folder) == self.digest

    def _copy(self) -> Path:
        """A folder of this machine that holds the files, which stays as long as this process does."""
        home = _home()
        place = home / self.digest
        for _ in range(_ATTEMPTS):
            if not self._is_in(place):
                self._extract(home, place)
            with contextlib.suppress(FileNotFoundError):  # somebody has taken it for one that nobody uses
                lock = open(place / _USED, "wb")  # noqa: SIM115  # it stays open
                fcntl.flock(lock, fcntl.LOCK_SH)
                if self._is_in(place):
                    _held.append(lock)
                    _remove_unused(home)
                    return place
                lock.close()
        raise OSError(errno.EIO, "what was written there is not what is read", str(place))

    def _extract(self, home: Path, place: Path) -> None:
        """Write the files, aside; the first process of the machine that has done so moves them to their place."""
        aside = Path(tempfile.mkdtemp(dir=home, prefix="new-"))
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            archive.extractall(aside)
        (aside / _USED).touch()
        if place.exists() and not self._is_in(place):  # somebody has changed it
            shutil.rmtree(place, ignore_errors=True)
        try:
            aside.rename(place)
        except OSError:  # it is there by now
            shutil.rmtree(aside, ignore_errors=True)


_held: list[IO[bytes]] = []  # locks of the copies that this process uses


def script_folder() -> Path | None:
    """Where this program's own modules are; None if it is an installed one.

    That is the folder of the script; with ``python -m``, in a notebook and at a prompt the one where Python began.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    is_script = file is not None and getattr(main, "__spec__", None) is None
    folder = Path(file).absolute().parent if is_script and file is not None else Path(sys.path[0] or ".").absolute()
    if is_script or folder.is_dir():
        installed = [Path(sys.prefix), Path(sys.base_prefix, "lib"), Path(sys.base_prefix, "bin")]
        return None if any(folder.is_relative_to(each) for each in installed) else folder
    return Path.cwd()  # sys.path begins with an archive: a notebook's does


def own_source() -> Source | None:
    """What travels of this program's own modules; None if there are none. Raises as `source_of`."""
    folder = script_folder()
    return None if folder is None else source_of(folder)


def source_of(folder: Path) -> Source | None:
    """What travels of a folder; None if it holds no modules.

    Raises:
        SourceTooLargeError: it is too much.
        ConfigurationError: a file cannot be read.
    """
    sizes: dict[str, int] = {}
    try:
        for path in sorted(_files(folder)):
            sizes[str(path.relative_to(folder))] = path.stat().st_size
        if sum(sizes.values()) > LIMIT_BYTES:
            raise SourceTooLargeError(folder, sizes)
        contents = {name: (folder / name).read_bytes() for name in sizes}
    except OSError as error:
        raise ConfigurationError(
            f"The modules beside the script cannot be sent to workers: {error.filename}: {error.strerror}. Make it "
            "readable, or move it away."
        ) from error
    if not contents:
        return None
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _WHEN), data)
    digest = digest_of_contents(contents.items())  # of what is packed: a file may be changing
    return Source(folder=str(folder), names=tuple(contents), digest=digest, archive=packed.getvalue())


def _files(folder: Path) -> Iterator[Path]:
    """The modules in a folder, and all files of the packages in it."""
    loaded = {name for name, module in list(sys.modules.items()) if hasattr(module, "__path__")}
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_file() and entry.name.endswith(_MODULES):
            yield entry
        elif os.path.isfile(entry / "__init__.py") or (entry.name in loaded and _is_namespace(entry)):
            yield from _package(entry)  # folders of others that cannot be looked into are none


def _is_namespace(folder: Path) -> bool:
    """Whether a folder without an ``__init__.py`` is the package of that name that this process uses."""
    return str(folder) in [str(Path(place).absolute()) for place in sys.modules[folder.name].__path__]


def _package(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _package(entry)
        elif entry.is_file():
            yield entry


# -- copies on a machine that does not have the folder ----------------------------------------------------------------


def _home() -> Path:
    """This user's folder for copies, which nobody else can write; raises OSError."""
    try:
        return own_folder("source")
    except PermissionError:  # the name is in other hands
        return Path(tempfile.mkdtemp(prefix=f"heliostat-{os.geteuid()}-source-"))


def _remove_unused(home: Path) -> None:
    """Remove the copies that no process uses any more."""
    for used in home.glob(f"*/{_USED}"):
        with contextlib.suppress(OSError), open(used, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(used.parent, ignore_errors=True)
