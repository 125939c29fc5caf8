"""Heliostat itself as a package, so that a cluster runs the very code that this machine runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ClusterError
from .api import PACKAGE_BYTES
from .archive import archive

_PARTS = ("cluster", "data", "trainer", "scripts")
_NAMESPACE = "heliostat"


def heliostat_package() -> bytes:
    """A zip of the packages of Heliostat, as they are imported here; equal code gives equal bytes."""
    files = {name: path for part in _PARTS for name, path in _files(part)}
    (package,) = archive(files, PACKAGE_BYTES)
    return package


def _files(part: str) -> Iterator[tuple[str, Path]]:
    """Names in the zip, and paths, of one of its packages and those in it; no folder that is none, as of benchmarks."""
    found = importlib.util.find_spec(f"{_NAMESPACE}.{part}")
    if found is None or not found.submodule_search_locations:
        raise ClusterError(
            f"{_NAMESPACE}.{part} is not installed as a folder here, so it cannot be sent to a cluster. Install it "
            "from a clone or a wheel; what lies in a zip file cannot be sent."
        )
    top = found.submodule_search_locations[0]
    for folder, folders, names in os.walk(top, followlinks=True):
        if "__init__.py" not in names:
            folders.clear()
            continue
        for name in names:
            if not name.endswith(".pyc"):
                path = Path(folder, name)
                yield f"{_NAMESPACE}/{part}/{path.relative_to(top).as_posix()}", path
