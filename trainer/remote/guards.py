"""What stands around a call: what is refused before it, and what is left behind when it does not come to its end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from heliostat.data import DatasetExistsError
from heliostat.data.remote.filesystem import is_uri

from ..driver.runs import FitCall
from ..driver.uncaught import show_errors_shortly
from ..environment import Command
from ..errors import CallDetachedError, ConfigurationError
from .handle import NEXT, Handle


def check_call(call: FitCall, command: Command | None) -> None:
    """Raise ConfigurationError for what a run elsewhere cannot do."""
    wanted = call.wanted.checkpoint_dir
    if wanted is not None and not is_uri(os.fspath(wanted)):
        raise ConfigurationError(
            f"checkpoint_dir={os.fspath(wanted)!r} is a path of this machine, and the run is on a cluster. Leave it "
            "out (checkpoints are in the run folder, which is brought here), or give a URI that the cluster sees."
        )
    if command is not None and any((command.replay, command.trace, command.kills, command.verify, command.quick)):
        raise ConfigurationError(
            "heliostat replay, trace, chaos, verify-run and run --quick work where the run does, and this script's is "
            "on a cluster. Submit the script (heliostat submit), or take address= out to do it here, on the run folder "
            "that was brought here."
        )


def check_output(output: str) -> None:
    """Raise DatasetExistsError where the path for a dataset of predictions is taken; URIs are looked at there."""
    if output and not is_uri(output) and os.path.lexists(output):
        raise DatasetExistsError(f"{output!r} is there already. Give predict another output=, or delete it.")


@contextlib.contextmanager
def cleared(path: Path, *, is_new: bool) -> Iterator[None]:
    """If the block fails before there is a job, take away what it has made in a folder that was not there or empty.

    Args:
        path: the folder.
        is_new: whether it was made for this run, below one that may be left empty.
    """
    was_used = path.exists() and any(path.iterdir())
    try:
        yield
    except BaseException:
        if not was_used and not Handle.is_in(path):
            shutil.rmtree(path, ignore_errors=True)
            if is_new:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
        raise


@contextlib.contextmanager
def detaching(handle: Handle, path: Path) -> Iterator[None]:
    """At Ctrl-C say how to get back to what goes on.

    Raises:
        CallDetachedError: Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        show_errors_shortly()
        named = shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
        raise CallDetachedError(
            [
                f"The run goes on at {handle.address}. The same command attaches to it; besides:",
                *(f"  heliostat {each} {named}" for each in NEXT),
            ]
        ) from None
