"""The job server of a cluster: all that this machine says to a cluster from outside goes to this one port.

Ray's head answers HTTP on port 8265. Its routes for jobs are documented; those for packages and for logs are what Ray's
own client and command line use. By them everything can be done that a run needs: code and data go up as packages, a job
is made, its log comes as it is written, and a file of the cluster comes back through a link in the log folder (Ray
resolves links there on purpose). Nothing else of the cluster has to be reachable, and no version has to agree.

`ray.job_submission.JobSubmissionClient` was not taken. It waits without a limit, for a connection (two minutes behind a
firewall) and for an answer (for ever, where a laptop has changed its network); it sends a token only where
RAY_AUTH_MODE says so on this machine; and every failure is a RuntimeError with a traceback of the server's in it. What
it does beyond a request is to pack folders, by `.gitignore`.

An answer that did not come leaves it open whether a job was made, so that is looked up. Sources: Ray 2.60,
`dashboard/modules/job/job_head.py`, `state/state_head.py`, `log/log_agent.py`; Ray's documentation of its REST API for
jobs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

import xxhash

from ..errors import JobServerError, NoAnswerError, NoSuchJobError, PlacementError
from .server import CONNECT_S, JobServer
from .tail import tail

PACKAGE_BYTES = 90_000_000  # the job server takes 100 MiB at once
PUT_S = 600.0  # from the last byte sent until the answer, which comes when the head has stored them
LOOK_UP_S = 20.0
_FILE_S = 24 * 3600  # how long Ray may send one file
_PIECE_BYTES = 1 << 20
State = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
_OVER = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the cluster knows of a job.

    Attributes:
        submission_id: its name.
        state: as Ray calls it.
        message: what Ray says about that; of a failed job with the end of its log.
        node_id: of the machine where its command runs; empty until it does.
        exit_code: of that command, None where it has not ended by itself; below zero is a signal's number.
        started_s: when it was submitted, in seconds since 1970 by the cluster's clock.
        ended_s: likewise, when it was over; None until then.
        metadata: what it was submitted with.
    """

    submission_id: str
    state: State
    message: str = ""
    node_id: str = ""
    exit_code: int | None = None
    started_s: float | None = None
    ended_s: float | None = None
    metadata: Mapping[str, str]

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes from it."""
        return self.state in _OVER


class Head:
    """The job server at an address.

    Every method may raise `NoAnswerError` (nobody answers, or not to the end), `PlacementError` (no job server is
    there, or it does not take this machine's token) and `JobServerError` (it refuses).
    """

    def __init__(self, address: str) -> None:
        """Remember where it is; nobody is asked yet.

        Args:
            address: such as ``"http://10.0.0.1:8265"``.

        Raises:
            PlacementError: it is not of that form.
        """
        self._server = JobServer(address)
        self.address = self._server.address

    def check(self) -> str:
        """The version of Ray that answers there, within some seconds."""
        version = self._server.json("GET", "/api/version", answer_s=CONNECT_S).get("ray_version")
        if not isinstance(version, str):
            raise PlacementError.no_job_server(self.address, "it does not tell a version of Ray")
        return version

    def put(self, content: bytes) -> str:
        """Bring a package there, unless it is there already; returns its URI.

        Ray deletes it ten minutes after this, or when the last job that names it in its `runtime_env` is over, if that
        is later. One that is there already is so kept for ten minutes more.
        """
        if len(content) > PACKAGE_BYTES:
            raise JobServerError.too_large(self.address, len(content), PACKAGE_BYTES)
        name = f"_ray_pkg_{xxhash.xxh3_128_hexdigest(content)}.zip"
        path = f"/api/packages/gcs/{name}"
        try:
            self._server.json("GET", path)
        except JobServerError as error:
            if error.status != 404:
                raise
            self._server.json("PUT", path, content, answer_s=PUT_S)
        return f"gcs://{name}"

    def put_all(self, contents: Sequence[bytes]) -> tuple[str, ...]:
        """Bring packages there that a job needs together: the first is still there when the last has arrived."""
        for content in contents:
            self.put(content)
        return tuple(map(self.put, contents))

    def submit(
        self, *, submission_id: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Make a job; where no answer comes, look whether it was made.

        Args:
            submission_id: its name, which no other job there has or had.
            entrypoint: a line for the shell.
            runtime_env: as Ray takes it (whose values are of any type), with URIs for what it names.
            metadata: to keep with it.
        """
        wanted = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": dict(runtime_env),
            "metadata": dict(metadata),
        }
        try:
            self._server.json("POST", "/api/jobs/", json.dumps(wanted).encode())
        except NoAnswerError:
            if not self._was_made(submission_id):
                raise

    def job(self, submission_id: str) -> Job:
        """What the cluster knows of a job; raises `NoSuchJobError`."""
        with self._of_job(submission_id):
            found = self._server.json("GET", f"/api/jobs/{quote(submission_id, safe='')}")
        return _job(submission_id, found)

    def stop(self, submission_id: str) -> None:
        """Send a job SIGTERM, and SIGKILL after its RAY_JOB_STOP_WAIT_TIME_S; does not wait for either.

        Raises:
            NoSuchJobError: the cluster does not know it.
        """
        with self._of_job(submission_id):
            self._server.json("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop")

    def log_lines(self, submission_id: str, silent_s: float | None = None) -> Generator[str | None]:
        """The lines of a job's log from the beginning on, as they are written, without their ends.

        It ends when the connection does, for whatever reason: ask for the job's state, and begin anew. When it ends
        after the job was over, all lines have come that can be read.

        Args:
            submission_id: of the job.
            silent_s: None comes in the place of a line whenever nothing has come for so long; without it, never.

        Raises:
            NoSuchJobError: the cluster does not know it; before the first line.
            NoAnswerError: at the end, if it cannot be asked whether that was the end of the job, too.
        """
        self.job(submission_id)
        num_seen, rest = 0, ""
        url = f"{self.address}/api/jobs/{quote(submission_id, safe='')}/logs/tail"
        for text in tail(url, self._server.headers(), silent_s):
            if not text:
                yield None
                continue
            *lines, rest = (rest + text).split("\n")
            num_seen += len(lines)
            yield from lines
        with suppress(JobServerError):
            job = self.job(submission_id)
            if job.is_over and job.node_id:  # whatever has ended the connection, this is the whole
                whole = b"".join(self.read(job.node_id, f"job-driver-{submission_id}.log"))
                yield from _lines(whole)[num_seen:]

    def read(self, node_id: str, path: str) -> Generator[bytes]:
        """The bytes of a file on a machine of the cluster, in pieces.

        Args:
            node_id: of the machine.
            path: of the file, in the log folder of Ray's session there; may lead through a link.

        Raises:
            JobServerError: there is no such file. Now and then (1 of 400) Ray sends an empty one instead of saying so.
        """
        wanted = {"node_id": node_id, "filename": path, "lines": -1, "timeout": _FILE_S}
        with self._server.answer("GET", f"/api/v0/logs/file?{urlencode(wanted)}") as answer:
            while piece := answer.read(_PIECE_BYTES):
                yield piece

    def _was_made(self, submission_id: str) -> bool:
        """Whether a job is there whose making was not answered: asked until an answer comes, for some time."""
        until_s = time.monotonic() + LOOK_UP_S
        while time.monotonic() < until_s:
            with suppress(NoSuchJobError, NoAnswerError):
                self.job(submission_id)
                return True
            time.sleep(0.5)
        return False

    @contextmanager
    def _of_job(self, submission_id: str) -> Iterator[None]:
        try:
            yield
        except JobServerError as error:
            if error.status == 404:
                raise NoSuchJobError(self.address, submission_id) from None
            raise


def _job(submission_id: str, found: Mapping[str, Any]) -> Job:
    started_ms, ended_ms = found.get("start_time"), found.get("end_time")
    return Job(
        submission_id=submission_id,
        state=found["status"],
        message=found.get("message") or "",
        node_id=found.get("driver_node_id") or "",
        exit_code=found.get("driver_exit_code"),
        started_s=None if started_ms is None else started_ms / 1000,
        ended_s=None if ended_ms is None else ended_ms / 1000,
        metadata=found.get("metadata") or {},
    )


def _lines(content: bytes) -> list[str]:
    """As Ray's tail cuts them, which also ends a line at a carriage return."""
    text = content.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n") if text else []
