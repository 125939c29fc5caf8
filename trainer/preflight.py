"""What workers' machines must have for the user's code: computed on the driver, from the modules that the code names.

A module is the script's own and travels (`source`); or it is installed, and then the version must be the driver's; or
it lies elsewhere on `sys.path`, and then its files must be the driver's. Modules that travel are looked into, without
running them: what they import when they are imported is wanted as well. What stands in a ``try``, an ``if`` or a
function there is not: the module may do without.

Nothing is imported for this, here or there. Whether modules can be imported is seen by importing them, once TensorFlow
is set up on the worker (`import_all`): user's modules may use it at once.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.cluster.errors import Complaint, PreflightError
from heliostat.cluster.group.worker_process import host_name
from heliostat.cluster.preflight import CACHE, TEMPORARY, Wanted, module_files
from heliostat.data.remote.cache import HOMES

from .shipping import Packed, pack
from .source import Source, own_source

# What every worker needs, and whatever a machine may have it from.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly", "tensorflow-macos"),
    "keras": ("keras", "keras-nightly"),
    "numpy": ("numpy",),
    "ray": ("ray",),
}
ROOM_BYTES = 200_000_000  # of the disk on which fetched data and what callbacks write are kept
MEMORY_BYTES = 400_000_000  # of a process that has loaded TensorFlow, before it has a model
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Luggage:
    """What goes with the user's code to machines that may not have it.

    Attributes:
        source: the modules beside the script; None without.
        modules: that the code names.
        wanted: what machines must have for it.
    """

    source: Source | None
    modules: tuple[str, ...]
    wanted: Wanted

    def unpack(self) -> None:
        """Let this process, a worker's, find the modules of the script; before anything of the user's is unpickled."""
        if self.source is None:
            return
        try:
            self.source.put_on_path()
        except OSError as error:
            what = f"the modules of the script cannot be written: {error.filename}: {error.strerror}"
            raise PreflightError([Complaint(host=host_name(), what=what, remedy="Free some room there")]) from error


def luggage_of(code: Iterable[object]) -> Luggage:
    """What must go with code that is sent to workers; raises ConfigurationError if it is too much.

    Args:
        code: packed, or values that will be pickled.
    """
    packed = [each if isinstance(each, Packed) else pack(each) for each in code]
    modules = tuple(sorted({name for each in packed for name in each.modules}))
    source = own_source()
    return Luggage(source=source, modules=modules, wanted=wanted_for(modules, source))


def wanted_for(modules: Iterable[str], source: Source | None) -> Wanted:
    """What is to be asked of workers' machines.

    Args:
        modules: that the code names which is sent there.
        source: what travels with it.
    """
    packages, found, contents = dict(PACKAGES), [], []
    for name in sorted({each.split(".")[0] for each in _closure(modules, source)}):
        if name in PACKAGES or name == "heliostat" or (source is not None and source.has(name)):
            continue
        found.append(name)
        if distributions := _distributions_of(name):
            packages[name] = distributions
        if not _is_installed(name):
            contents.append(name)
    return Wanted(
        packages=packages,
        modules=tuple(name for name in found if name not in contents),
        contents=tuple(contents),
        folders=(CACHE, TEMPORARY),
        homes=HOMES,
        room_bytes=ROOM_BYTES,
        memory_bytes=MEMORY_BYTES,
    )


def import_all(modules: Iterable[str]) -> None:
    """Import what the user's code names, on a worker; raises PreflightError that tells of all that cannot be."""
    complaints = []
    for name in sorted(set(modules)):
        try:
            importlib.import_module(name)
        except Exception as error:  # it runs the user's code, and loads native libraries
            what = f"the module {name!r} cannot be imported: {type(error).__name__}: {error}"
            remedy = "Bring it, and the libraries that it needs, to the state that they have on the driver's machine"
            complaints.append(Complaint(host=host_name(), what=what, remedy=remedy))
    if complaints:
        raise PreflightError(complaints)


def _closure(modules: Iterable[str], source: Source | None) -> set[str]:
    """The modules, and those that are imported with them as far as they travel."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name.split(".")[0] in sys.stdlib_module_names:
            continue
        found.add(name)
        if source is not None and (file := source.file_of(name)) is not None:
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            waiting += [
                each for each in _imported_by(file, package) if each.split(".")[0] not in sys.stdlib_module_names
            ]
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # is imported before it
    return found


def _imported_by(file: Path, package: str) -> Iterator[str]:
    """Modules that a file imports in any case, when it is imported itself."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # who imports it is told
    for line in tree.body:
        if isinstance(line, ast.Import):
            yield from (alias.name for alias in line.names)
        elif isinstance(line, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - line.level + 1] if line.level else []
            base = ".".join([*above, *filter(None, [line.module])])
            yield from (base, *(f"{base}.{alias.name}" for alias in line.names))  # which may be modules, or not


def _is_installed(name: str) -> bool:
    """Whether a top-level module comes with Python or a package, and not from a folder of the user's."""
    files = module_files(name)
    if not files:
        return False
    roots = (Path(sys.base_prefix, "lib"), Path(sys.prefix, "lib"))
    return any(part in _INSTALLED for part in files[0].parts) or any(files[0].is_relative_to(root) for root in roots)


def _distributions_of(name: str) -> tuple[str, ...]:
    """The distribution that provides a top-level module; empty where none does, or several share the name."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = tuple(dict.fromkeys(_distributions().get(name, ())))
        return found if len(found) == 1 else ()
    return (name,)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
