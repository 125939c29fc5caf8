"""The handle of a job: a file on this machine by which its run is found again, whatever happens to either side.

A job outlives whoever submitted it, and an answer to "make this job" may be lost while the job is made. So the name of
the job is chosen here, and written down *before* the cluster hears of it: afterwards there is a file that says where to
ask, or there is no job. The file lies in the folder that the run will be fetched into, ``submitted.json``, and all
commands take that folder as ``RUN``: the same place before, while and after the job runs.

What the job has told until it was last heard of (its run folders there, how it ended) is added, so that a cluster that
is gone takes no knowledge with it, and the same command can go on with the same run folder.

What was not done: names given out by the cluster (nobody knows them until the answer is here), a list of all jobs in
the home folder (it would have to be kept in step with folders that are moved and deleted), and asking Ray's own list of
jobs (it is gone with its head, and holds the jobs of everybody).
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, get_args

from heliostat.data.format.files import replace_file

from ..driver.run_paths import plain_name
from ..errors import HandleError, StorageError
from ..events import Lines

HANDLE_FILE = "submitted.json"
VERSION = 1
SUCCEEDED = "SUCCEEDED"  # as Ray calls it
NEXT = ("attach", "status", "logs", "stop", "fetch")  # commands that lead back to a job
What = Literal["script", "call"]
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle(Lines):
    """A job that was submitted from this machine.

    Attributes:
        address: where the cluster takes jobs, ``http://HOST:8265``.
        submission_id: the name of the job there.
        what: a script, or a call of a trainer.
        created_s: when it was written, seconds since 1970.
        script: the script, as it was named on the command line here.
        arguments: those of the script, secrets masked.
        workers: the number of workers that was asked for; None for the script's own.
        runs: the job's run folders on the cluster, in the order in which they were opened, as far as is known here.
        last_run: the one that was opened last; `fit` is which of the job's it is, counted from 1. Both are an earlier
            job's until this one opens one.
        ended: how the job has ended ("SUCCEEDED", "FAILED", "STOPPED"), once that was heard; empty until then.
        exit_status: of the job's script, once that was heard.
        code: hashes of the code that was sent, for who wants to know whether it has changed.
    """

    address: str
    submission_id: str
    what: What
    created_s: float = field(default_factory=time.time)
    script: str = ""
    arguments: tuple[str, ...] = ()
    workers: int | None = None
    runs: tuple[str, ...] = ()
    last_run: str = ""
    fit: int = 0
    ended: str = ""
    exit_status: int | None = None
    code: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]+", self.address):
            raise ValueError(f"{self.address!r} is no address such as http://HOST:8265")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.submission_id):
            raise ValueError(f"{self.submission_id!r} is no name of a job")
        if self.what not in get_args(What) or not all(isinstance(each, str) for each in (*self.runs, *self.arguments)):
            raise ValueError(f"what={self.what!r}, runs={self.runs!r}, arguments={self.arguments!r}")

    def write(self, folder: Path) -> None:
        """Write it into a folder, which is made if need be; raises StorageError."""
        path, own = folder / HANDLE_FILE, folder / f".{HANDLE_FILE}-{uuid.uuid4().hex}"  # others may write it, too
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(own, (json.dumps({"version": VERSION, **self.to_json()}, indent=2) + "\n").encode())
            own.replace(path)
        except OSError as error:
            raise StorageError(path.absolute(), error) from error

    def write_news(self, folder: Path) -> None:
        """Write it where an older one of the same job is; a folder that stands for another job by now keeps that one's.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            if Handle.read(folder).submission_id != self.submission_id:
                return
        except HandleError:  # somebody has deleted or damaged it
            pass
        self.write(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The handle in a folder.

        Raises:
            HandleError: there is none, or it cannot be read.
        """
        path = folder / HANDLE_FILE
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(_MAX_BYTES))
            if not isinstance(found, dict) or found.get("version") != VERSION:
                raise ValueError(f"it is not of version {VERSION}, which this Heliostat reads")
            return cls.from_json(found)
        except FileNotFoundError:
            raise HandleError(folder, "it holds none") from None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise HandleError(folder, str(error)) from error

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder holds one."""
        return (folder / HANDLE_FILE).is_file()

    def with_run(self, path: str) -> Self:
        """The handle that knows this run folder, too."""
        return self if path in self.runs else replace(self, runs=(*self.runs, path))

    def opened(self, path: str, fit: int) -> Self:
        """The handle of a job that has opened this run folder, for this fit of its script."""
        return replace(self.with_run(path), last_run=path, fit=fit)


def new_submission_id(name: str) -> str:
    """A name for a job that no other has: ``heliostat-<name>-<time>-<four digits>``."""
    return f"heliostat-{plain_name(name, 'script')}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
