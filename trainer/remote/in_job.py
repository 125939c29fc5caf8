"""What a job of Ray's is for us: one thing that somebody elsewhere wants done, and all that is to be known of it told.

**The idea.** Whoever submitted the job may be gone, and comes back with nothing but its name. So all that came of it
must be found in the job's log and in the log folder beside it: how it ended, by a message at once (`Done`, `Failed`),
and then for each run folder what is in it, with the link behind which it lies (`Files`). That is told at every end that
lets the process say anything: also after a failure, after ``sys.exit`` and after SIGTERM, which is how Ray stops a
job: it pauses a run, as it does on any machine, and ends everything else. The links are made when folders are opened
(`wire.LinesDisplay`). So of a driver that was killed another job can still tell (``"list"``): what is missing then is
the last word, and that is how it is known that the driver was killed.

Ray sends SIGTERM to the shell's process and all below it, waits for RAY_JOB_STOP_WAIT_TIME_S, which is set by whoever
submits, and kills. The shell has become this process (``exec``), so the signal comes here once.

What was not done: a process of its own around the script, which would outlive its crash (a second Python for every job;
Ray itself knows that and how the driver has ended), and an ``atexit`` hook (it does not know the error).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias, TypeGuard

from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools import private_api

from ..checkpoints.values import Json
from ..driver.error_text import frames_of, full_account, is_below, is_ours, message_of
from ..environment import EVENTS
from ..errors import ConfigurationError, RunPausedError, StorageError, TrainerError
from .job_folder import job_folder
from .links import bytes_of, link, linked, marks_of, prefix_of, unlink
from .packing import unpack
from .wire import Done, Failed, Files, Said, StageBegun, tell

_FILES_PER_MESSAGE = 2000  # a message of the job server's connection has 4 MB at most
_TELL_FROM_BYTES = 1 << 30
Plain: TypeAlias = "list[Any] | tuple[Any, ...] | bool | int | float | str | Path | None"  # what a message tells
_BY_SIGNAL = 128  # plus its number: the exit status of what a signal has ended


class PackageGoneError(TrainerError):
    """What was sent to a cluster with a job is not there any more; `uri` is what it is called there."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return (
            f"The data that came with this job are not on the cluster any more ({self.uri}). Ray keeps them for ten "
            "minutes: the job began later, or the head was started anew meanwhile. Submit it again."
        )


class Work:
    """What a job has at hand while it does what is wanted.

    Attributes:
        stage: what it does at present, as `Failed` names it.
        links: what the links to its run folders begin with.
        folder: where the user's code lies: the current directory.
        run_dirs: run folders beside those that have a link.
        after: what is to be done when all is told.
    """

    def __init__(self, address: str, job: str) -> None:
        """Find out where this process is.

        Args:
            address: host and port of the cluster's head.
            job: the submission id under which links are made.

        Raises:
            PlacementError: it is on no machine of that cluster.
        """
        self.stage, self.folder, self.after = "start", Path.cwd(), ExitStack()
        self.run_dirs: tuple[Path, ...] = ()
        private_api.check_private_api()
        try:
            self._address, self._node = address, private_api.own_node(address)
        except RuntimeError as error:
            raise PlacementError(f"This process is on no machine of the Ray cluster at {address}: {error}") from error
        self.links = prefix_of(self._node.log_dir, job)

    def begin(self, stage: str) -> None:
        """Begin a stage, and tell it."""
        self.stage = stage
        tell(StageBegun(stage=stage))

    def packages(self, uris: Sequence[str]) -> Iterator[bytes]:
        """The contents of packages that came with the job, in order; raises PackageGoneError."""
        for uri in uris:
            found = private_api.package(self._address, uri)
            if found is None:
                raise PackageGoneError(uri)
            yield found

    def own_folder(self, uris: Sequence[str], *, with_code: bool) -> Path:
        """A new folder with what is in packages, which goes at the job's end.

        Args:
            uris: of the packages.
            with_code: whether the code that lies in the current directory is to be in there, too; then it becomes the
                current directory.

        Raises:
            PackageGoneError: a package is not there any more.
            StorageError: it cannot be written.
        """
        session_dir = self._node.log_dir.parent
        try:
            made = self.after.enter_context(job_folder(session_dir, self.folder if with_code else None))
            unpack(self.packages(uris), made)
        except OSError as error:
            raise StorageError(session_dir, error) from error
        if with_code:
            os.chdir(made)
            self.folder = made
        return made

    def tell_files(self) -> None:
        """Tell what is in the job's run folders, with links to them; raises OSError if one cannot be made."""
        for run_dir in dict.fromkeys((*linked(self.links).values(), *self.run_dirs)):
            if run_dir.is_dir():
                self._tell_files_of(run_dir, link(self.links, run_dir))
            else:  # a run that did not begin has taken its folder away
                unlink(self.links, run_dir)
                tell(Files(path=str(run_dir), node_id=self._node.node_id, link="", files={}))

    def _tell_files_of(self, run_dir: Path, name: str) -> None:
        if (num_bytes := bytes_of(run_dir)) >= _TELL_FROM_BYTES:
            tell(Said(text=f"computing the hashes of {run_dir}, {num_bytes / 1e9:,.1f} GB"))
        found = list(marks_of(run_dir).items())
        for first in range(0, len(found) or 1, _FILES_PER_MESSAGE):
            files = dict(found[first : first + _FILES_PER_MESSAGE])
            tell(Files(path=str(run_dir), node_id=self._node.node_id, link=name, files=files))


def do_in_job(job: str, act: Callable[[Work], object], *, tells_files: bool = True) -> int:
    """Do what a job is for, and tell all that came of it.

    Args:
        job: the submission id under which links to run folders are made.
        act: does it; what it returns is told as `Done`, what it raises as `Failed`.
        tells_files: whether to tell what is in its run folders then.

    Returns:
        The exit status of the process.
    """
    signal.signal(signal.SIGTERM, _end)
    tell(StageBegun(stage="start"))
    work: Work | None = None
    try:
        address = os.environ.get("RAY_ADDRESS", "")
        if not address:
            raise ConfigurationError("This is what a job of a Ray cluster runs; here is none (RAY_ADDRESS is not set).")
        work = Work(address, job)
        os.environ[EVENTS] = str(work.links)
        told: Done | Failed = Done(value=act(work))
    except BaseException as error:
        told = _ended(error, "start" if work is None else work.stage, Path.cwd() if work is None else work.folder)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # it ends anyway, and has something to tell
    tell(told)
    if work is not None:
        with work.after:
            if tells_files:
                _tell_files(work)
    return told.exit_status if isinstance(told, Failed) else 0


def _tell_files(work: Work) -> None:
    try:
        work.tell_files()
    except OSError as error:  # the job itself is over, well or not
        tell(Said(text=f"warning: what is in run folders cannot be told: {error}"))


def failed(error: BaseException, stage: str, folder: Path, exit_status: int = 1) -> Failed:
    """What is told of an error; paths in the folder of the user's code are told from there.

    Args:
        error: it.
        stage: in which it happened.
        folder: where the user's code lies.
        exit_status: of the process.
    """
    kind, below = type(error), f"{folder}{os.sep}"  # a folder that nobody else knows, and that may be gone soon
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    is_pause = isinstance(error, RunPausedError)
    return Failed(
        stage=stage,
        kind=name,
        message=message_of(error).replace(below, ""),
        frames=frames_of(error, folder),
        exit_status=RunPausedError.exit_status if is_pause else exit_status,
        traceback="" if is_pause else full_account(error, _first_file(error, folder)).replace(below, ""),
        details={key: _plain(value) for key, value in _own(error).items() if _is_plain(value)},
        is_ours=is_ours(error),
    )


def _ended(error: BaseException, stage: str, folder: Path) -> Done | Failed:
    """What is told of what a job raised, ``sys.exit`` among it."""
    if isinstance(error, KeyboardInterrupt):
        return failed(error, stage, folder, _BY_SIGNAL + signal.SIGINT)
    if not isinstance(error, SystemExit):
        return failed(error, stage, folder)
    status = error.code
    # Whoever connects to Ray gets a handler of Ray's, which ends the process with the number of the signal.
    by_ray = status == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is not _end
    if by_ray or isinstance(error, _Stopped):
        said = "it was stopped (SIGTERM) while no run was being trained, so there was nothing to pause"
        return Failed(stage=stage, kind="SystemExit", message=said, exit_status=_BY_SIGNAL + signal.SIGTERM)
    if status in (None, 0):
        return Done()
    if isinstance(status, int):
        said = f"it ended with status {status}"
        return Failed(stage=stage, kind="SystemExit", message=said, exit_status=status & 0xFF)
    return Failed(stage=stage, kind="SystemExit", message=str(status))


class _Stopped(SystemExit):
    """SIGTERM has come."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _first_file(error: BaseException, folder: Path) -> str:
    """The file of the outermost frame that is in a folder, as its code calls it; empty if none is."""
    part = error.__traceback__
    while part is not None:
        name = part.tb_frame.f_code.co_filename
        if is_below(name, folder):
            return name
        part = part.tb_next
    return ""


def _own(error: BaseException) -> dict[str, object]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def _is_plain(value: object) -> TypeGuard[Plain]:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Path))


def _plain(value: Plain) -> Json:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
