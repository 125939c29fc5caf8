"""Where run folders are, and what they are called.

A relative path is one from the current directory; but that of a Ray job is a copy of the submitted folder in a cache of
Ray's, named by a hash of what is in there. After any edit of the script it is another one, and the same command would
begin anew without a word, until Ray deletes both. So relative paths of a job lie below a folder that stays
(`environment.job_home`), in one with the name of the script.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from heliostat.cluster.group.worker_process import host_name
from heliostat.data.remote.filesystem import is_uri

from ..environment import HOME, is_job, job_home
from ..errors import ConfigurationError, StorageError
from .run_folder import RUN_FILE


def run_dir_of(run_dir: object) -> Path:
    """The folder that a user names as `run_dir`, ``~`` being his home; see above for a job.

    Raises:
        ConfigurationError: it is no path.
    """
    if not isinstance(run_dir, (str, os.PathLike)) or not isinstance(os.fspath(run_dir), str):
        raise ConfigurationError(f"run_dir={run_dir!r}; it takes a path.")
    text = os.fspath(run_dir)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ConfigurationError(
            f"run_dir={text!r} is a URI, and a run folder is on a disk of the machine that calls fit. Give a path; "
            f"checkpoints may be elsewhere: fit(checkpoint_dir={re.sub(':/+', '://', text, count=1)!r})."
        )
    try:
        return placed(Path(text).expanduser())
    except RuntimeError as error:
        raise ConfigurationError(f"run_dir={text!r}: {error} Give a path from the root.") from error


def placed(path: Path) -> Path:
    """A path as it is; within a job a relative one below the script's folder. Raises ConfigurationError."""
    return job_home() / _script_name() / path if is_job() and not path.is_absolute() else path


def checkpoint_dir_of(given: str | Path | None) -> str | Path | None:
    """What a user gives as `checkpoint_dir`, with a path `placed`; URIs stay what they are."""
    if given is None or is_uri(os.fspath(given)):
        return given
    return placed(Path(given).expanduser())


def output_place(given: object) -> str:
    """Where a user wants predictions: a path, absolute and `placed`, or a URI; raises ConfigurationError."""
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise ConfigurationError(f"output={given!r}; it takes the path or URI of a dataset that is to be written.")
    text = str(os.fspath(given))
    return text if is_uri(text) else str(placed(Path(text).expanduser()).absolute())


def job_line(path: Path) -> str:
    """What a job says of the folder of its run before all else; empty where the path needs no explanation."""
    if not is_job() or not path.is_relative_to(job_home()):
        return ""
    return (
        f"run folder {path} on {host_name()}: relative paths of a job lie below {job_home()}; {HOME} sets another place"
    )


def new_run_path(name: str, root: Path | None = None) -> Path:
    """``runs/<name>-<time>``, with a number behind it if that exists.

    Args:
        name: of the model, or of what is done.
        root: what takes the place of ``runs``; None for that, where relative paths lie.
    """
    root = placed(Path("runs")) if root is None else root
    stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-') or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = root / stem, 2
    while path.exists():
        path, number = root / f"{stem}-{number}", number + 1
    return path


def make_new(path: Path) -> Path:
    """A new folder at a path, with a number behind it if another program was faster; raises StorageError."""
    number = 1
    while True:
        new = numbered_run_path(path, number)
        try:
            new.mkdir(parents=True)
            return new
        except FileExistsError:
            number += 1
        except OSError as error:
            raise StorageError(new.absolute(), error) from error


def _script_name() -> str:
    """What a folder of this script is called: its name without the ending, or that of its package."""
    path = Path(sys.argv[0])
    return plain_name(path.absolute().parent.name if path.stem == "__main__" else path.stem, "script")


def plain_name(text: str, otherwise: str) -> str:
    """A text as part of the name of a file, a folder or a job; `otherwise` if nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or otherwise


def numbered_run_path(path: Path, number: int) -> Path:
    """The folder of a trainer's `number`-th fit with a given folder: ``path``, ``path-2``, ``path-3`` ..."""
    return path if number <= 1 else path.with_name(f"{path.name}-{number}")


def run_folders(path: Path) -> list[Path]:
    """The folders of all fits that a trainer, or a script, made with a given folder, in their order."""
    found: list[Path] = []
    while ((folder := numbered_run_path(path, len(found) + 1)) / RUN_FILE).exists():
        found.append(folder)
    return found
