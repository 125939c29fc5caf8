"""Where run folders are, and what they are called."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from ..errors import ConfigurationError, StorageError
from .run_folder import RUN_FILE


def run_dir_of(run_dir: object) -> Path:
    """The folder that a user names as `run_dir`, ``~`` being his home; raises ConfigurationError if it is none."""
    if not isinstance(run_dir, (str, os.PathLike)) or not isinstance(os.fspath(run_dir), str):
        raise ConfigurationError(f"run_dir={run_dir!r}; it takes a path.")
    text = os.fspath(run_dir)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ConfigurationError(
            f"run_dir={text!r} is a URI, and a run folder is on a disk of the machine that calls fit. Give a path; "
            f"checkpoints may be elsewhere: fit(checkpoint_dir={re.sub(':/+', '://', text, count=1)!r})."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"run_dir={text!r}: {error} Give a path from the root.") from error


def new_run_path(name: str, root: Path = Path("runs")) -> Path:
    """``runs/<name>-<time>``, with a number behind it if that exists."""
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


def numbered_run_path(path: Path, number: int) -> Path:
    """The folder of a trainer's `number`-th fit with a given folder: ``path``, ``path-2``, ``path-3`` ..."""
    return path if number <= 1 else path.with_name(f"{path.name}-{number}")


def run_folders(path: Path) -> list[Path]:
    """The folders of all fits that a trainer, or a script, made with a given folder, in their order."""
    found: list[Path] = []
    while ((folder := numbered_run_path(path, len(found) + 1)) / RUN_FILE).exists():
        found.append(folder)
    return found
