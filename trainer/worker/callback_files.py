"""Where the chief's callbacks work, and how their files come into the run folder from there.

**Where the chief's machine sees the run folder**, callbacks work in it, and nothing here has anything to do. So it is
on one machine and on a shared disk.

**Where it does not**, they work in a folder of that machine: it is the current directory, and a link to it takes the
run folder's place, if nothing lies there, for callbacks that were given absolute paths. Before the first hook the run
folder's files are copied into it. When hooks have run, what they changed (`watched_folder`) goes to the driver's disk,
beside its place (`staged_files`), under a version; the chief tells the others that version with the callbacks' states,
and once all have heard it a thread takes it in. So the driver's copy is always as of a moment at which all agreed:
callbacks that go on elsewhere find their files as they find their states.

All have heard of a version when the step after it is done, since a step ends when all have taken part; a broadcast ends
when the chief has said something. So nothing counts that is later than the last checkpoint, unless a step is, too.

What must be on the driver's disk when the others hear of it cannot travel beside the steps; renaming and appending it
there can. A driver's disk that is full ends no training: what could not go is told once, and goes with the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import TOKEN
from heliostat.cluster.disk.stand_in import remove_stand_ins, stand_in
from heliostat.cluster.errors import Dismissed
from heliostat.cluster.group.mailbox import MailboxClosed
from heliostat.cluster.group.worker_process import WorkerKilled

from ..checkpoints.manifest import parse_checkpoint_name
from ..errors import CallbackFilesError
from ..jobs import MODEL_FILE, RUN_FOLDER
from ..storage_thread import StorageThread
from .staged_files import StagedFiles
from .watched_folder import WatchedFolder

_GENERATION_BITS = 32  # versions count up from each generation's number, moved up by so many
_FOLDER = "callbacks-"  # in the scratch, with the generation behind it
_RUNS_OWN = RUN_FOLDER.keys() - {MODEL_FILE}  # which callbacks may write as well, until the run does


class CallbackFiles:
    """The folder in which one worker's callbacks work while it is the chief.

    Attributes:
        version: of the files, as all workers have agreed on it; 0 for those that were there before the run.

    Args:
        run_dir: the run folder, as the driver has it.
        reach: how this machine reaches it.
        tell: hears what cannot be brought to the run folder, and why.
    """

    def __init__(self, run_dir: str, reach: Reach, tell: Callable[[str, str], None]) -> None:
        self._run_dir, self._reach, self._tell = run_dir, reach, tell
        self._told: set[str] = set()
        self._away: _Away | None = None
        self.version = 0

    def enter(self, generation: int) -> None:
        """Go where callbacks work, on a worker that has become the chief.

        Args:
            generation: of the group; greater than those of all chiefs before, of earlier runs in the folder, too.

        Raises:
            CallbackFilesError: the run folder's files cannot be brought here.
        """
        if self._reach.sees(self._run_dir):
            os.makedirs(self._run_dir, exist_ok=True)
            _settle(self._staged(), self.version)
            os.chdir(self._run_dir)  # callbacks' relative paths are relative to the run folder
            return
        scratch = self._reach.scratch(self._run_dir)
        folder, staged = scratch / f"{_FOLDER}{generation}", self._staged()
        try:
            _settle(staged, self.version)
            for left in scratch.glob(f"{_FOLDER}*"):  # by a chief that died on this machine
                shutil.rmtree(left)
            folder.mkdir(parents=True)
            for path in staged.fetch(folder, whose):
                self._hear(path, "a link there leads out of the run folder, so callbacks do not find it here")
            self._away = _Away(folder, staged, self.version, self._hear)
        except (OSError, pa.ArrowException) as error:
            raise CallbackFilesError(self._run_dir, str(folder), str(error)) from error
        if not stand_in(self._run_dir, folder):
            self._hear(
                f"what is written below {self._run_dir} by an absolute path",
                "this machine has something else there. Let callbacks write paths relative to the run folder",
            )
        os.chdir(folder)

    def ship(self, generation: int) -> int:
        """Hooks have run: bring what they changed beside its place; returns the version of the files now."""
        return self.version if self._away is None else self._away.ship(generation << _GENERATION_BITS)

    def agree(self, version: int) -> None:
        """Whoever goes on from here finds the files as of this version."""
        self.version = version

    def all_heard(self) -> None:
        """All workers have heard of the last version: it counts."""
        if self._away is not None:
            self._away.take_in(self.version)

    def finish(self, generation: int, version: int | None = None) -> None:
        """All workers are at the end, or the run pauses: let files count, on the worker that delivers.

        Args:
            generation: of the group.
            version: that with which the run will go on; what is later will be written again. None for the last: on the
                chief that is what its callbacks have written until now. What cannot go to the driver is kept here.
        """
        away = self._away
        if away is not None:
            away.end()
        if version is None:
            version = self.ship(generation)
        try:
            _settle(self._staged() if away is None else away.staged, version)
            why = "" if away is None else away.failure
        except Exception as error:  # whatever it is, the run's result does not need these files
            why = f"{type(error).__name__}: {error}"
        if why:
            self._hear("files of callbacks at the end", why if away is None else f"{why}. They are in {_saved(away)}")

    @contextlib.contextmanager
    def kept(self, generation: Callable[[], int]) -> Iterator[None]:
        """Inside the block callbacks may run; if the run fails in it, what was written until then counts, too.

        Args:
            generation: of the group.
        """
        try:
            yield
        except (Dismissed, WorkerKilled, MailboxClosed):  # this worker has delivered, others go on, or nobody listens
            raise
        except BaseException:  # sys.exit(), too
            if self._away is not None:
                self.finish(generation())
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._away is not None:
            self._away.end()
            remove_stand_ins(self._away.folder.parent)
            shutil.rmtree(self._away.folder, ignore_errors=True)
            self._away = None

    def _staged(self) -> StagedFiles:
        """What waits in the run folder, in place or through the driver's disk."""
        is_here = self._reach.sees(self._run_dir)
        return StagedFiles(pafs.LocalFileSystem() if is_here else self._reach.filesystem(), self._run_dir)

    def _hear(self, what: str, why: str) -> None:
        """Tell of what cannot be brought; once of each."""
        if what not in self._told:
            self._told.add(what)
            self._tell(what, why)


def _settle(staged: StagedFiles, version: int) -> None:
    """Let what all agreed on count, and drop the rest; raises OSError."""
    staged.take_in(version)
    staged.clear()


def _saved(away: _Away) -> str:
    """Where a chief's files are kept that cannot go to the driver; its own folder does not outlive the run."""
    place = tempfile.mkdtemp(prefix="heliostat-callbacks-")
    shutil.copytree(away.folder, place, dirs_exist_ok=True)
    return place


class _Away:
    """A chief's callbacks on a machine that does not see the run folder.

    Attributes:
        folder: where they work.
        staged: what waits on the driver's disk.
        failure: why what was written last is not there; empty if it is.

    Args:
        folder: holds what the run folder holds.
        staged: see above.
        version: of these files.
        hear: takes what cannot be brought, and why.
    """

    def __init__(self, folder: Path, staged: StagedFiles, version: int, hear: Callable[[str, str], None]) -> None:
        self.folder, self.staged, self._hear = folder, staged, hear
        self.failure = ""
        self._watched = WatchedFolder(folder, whose)
        for change in self._watched.changes():
            for _ in change.pieces:
                pass
        self._watched.keep()
        self._version = self._taken = version
        self._odd: list[str] = []
        self._thread: StorageThread[int] | None = StorageThread(self._take_in, "heliostat-callback-files")
        self._thread.start()

    def ship(self, first: int) -> int:
        """Put what has changed beside its place; versions are greater than `first`. Returns the version of all."""
        version = max(self._version, first) + 1
        while self._odd:
            self._watched.forget(self._odd.pop())
        try:
            if self.staged.stage(version, self._watched.changes()):
                self._version = version
            self._watched.keep()
            self.failure = ""
        except Exception as error:  # whatever it is, it is none to lose the run for: the next time all goes
            self.failure = f"{type(error).__name__}: {error}"
            self._hear("files of callbacks", self.failure)
        for path, why in self._watched.left_out.items():
            self._hear(path, why)
        return self._version

    def take_in(self, version: int) -> None:
        """Let a version count, beside the steps."""
        if version > self._taken and self._thread is not None:
            self._taken = version
            self._thread.put(version)

    def end(self) -> None:
        """Wait for what was to count."""
        if self._thread is not None:
            self._thread.end()
            self._thread = None

    def _take_in(self, version: int, _: float) -> None:
        try:
            self._odd += self.staged.take_in(version)
        except Exception as error:  # as above; a later version takes this one along
            self._hear("files of callbacks", f"{type(error).__name__}: {error}")


def whose(path: str) -> str:
    """Why a path in a run folder is none of the callbacks'; empty where it is theirs."""
    folder, _, name = path.partition("/")
    own = any(fnmatchcase(path, each) for each in _RUNS_OWN) or Path(path).name == TOKEN
    own = own or (folder == "checkpoints" and parse_checkpoint_name(name) is not None)
    return "the run keeps a file or folder of its own by this name" if own else ""
