"""Files that callbacks have written to relative paths, linked to where a script looks for them afterwards.

Callbacks work in the run folder, perhaps of another machine, so ``ModelCheckpoint("best.keras")`` writes there. In
plain Keras the file would lie in the working directory, and the next line of a script is often
``load_model("best.keras")``. So once a fit is over, each of these files is linked into the working directory, where its
name is free, and one line names them. A link that an earlier run has left is replaced; what is a file of somebody's own
stays, and is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors.texts import listed
from ..jobs import CALLBACKS_MODEL_FILE, MODEL_FILE, RUN_FOLDER
from .run_folder import RUN_FILE

_MAX_NAMES = 5
_SHARED = {path.partition("/")[0] for path in RUN_FOLDER if "/" in path}  # folders of the run's own


@dataclass(frozen=True, slots=True)
class _Found:
    """What callbacks have written: its path in the working directory; why it is not linked there, or nothing."""

    path: str
    why_not: str = ""


def working_directory() -> Path | None:
    """Where a script looks for its files; None if somebody has deleted that."""
    try:
        return Path.cwd()
    except OSError:
        return None


def link_files(run_dir: Path, here: Path | None) -> str:
    """Link callbacks' files into a folder.

    Args:
        run_dir: the run folder.
        here: the working directory of the script when the fit began; None if there is none.

    Returns:
        What to say about it; empty where callbacks have written nothing.
    """
    from ..worker.callback_files import whose  # who has callbacks has loaded all this

    if here is None:
        return ""
    found = list(_linked(run_dir, here, "", lambda path: bool(whose(path))))
    linked = [each.path for each in found if not each.why_not]
    left = [f"{each.path} ({each.why_not})" for each in found if each.why_not]
    parts = [f"linked here: {listed(linked, _MAX_NAMES)}"] if linked else []
    parts += [f"not linked: {listed(left, _MAX_NAMES)}"] if left else []
    return f"callbacks' files are in {run_dir}; {'; '.join(parts)}" if parts else ""


def _linked(run_dir: Path, here: Path, folder: str, is_runs: Callable[[str], bool]) -> Iterator[_Found]:
    """Link what lies in a folder of the run folder, and tell what that was.

    Args:
        run_dir: the run folder.
        here: where the links go.
        folder: a path in the run folder.
        is_runs: whether a path there is the run's own.
    """
    for entry in sorted(os.scandir(run_dir / folder), key=lambda each: each.name):
        path = f"{folder}/{entry.name}".lstrip("/")
        if is_runs(path) or path == MODEL_FILE:
            continue
        is_folder = entry.is_dir()
        target = here / (MODEL_FILE if path == CALLBACKS_MODEL_FILE else path)
        if path in _SHARED or (is_folder and target.is_dir() and not target.is_symlink()):
            yield from _linked(run_dir, here, path, is_runs)
        elif why_not := _link(Path(entry.path), target):
            yield _Found(str(target.relative_to(here)), why_not)
        else:
            yield _Found(str(target.relative_to(here)))


def _link(source: Path, target: Path) -> str:
    """Link a file or folder; returns why that cannot be, empty if it is done."""
    try:
        if target.is_symlink() and _in_a_run_folder(target):
            target.unlink()
        elif os.path.lexists(target):
            return "" if target.samefile(source) else "a file of this name is here already"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.absolute())
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _in_a_run_folder(link: Path) -> bool:
    """Whether a link leads into the folder of a run: then an earlier call has made it."""
    return any((parent / RUN_FILE).exists() for parent in Path(os.readlink(link)).parents)
