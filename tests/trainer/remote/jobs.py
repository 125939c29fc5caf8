"""Jobs on a real head for tests: what is sent there, and what the log tells."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.cluster.head.api import Head, Job
from heliostat.cluster.head.entrypoint import entrypoint
from heliostat.cluster.head.own_package import heliostat_package
from heliostat.trainer.remote.job_wanted import MODULE, JobWanted
from heliostat.trainer.remote.packing import pack_datasets, pack_folder
from heliostat.trainer.remote.wire import Message, split

from ...slow import SLOW

LIMIT_S = 120 * SLOW


@dataclass
class Told:
    """A job that was made, and what its log has told so far."""

    here: Head
    name: str
    messages: list[Message] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def follow(self) -> Iterator[Message | str]:
        """Each message, and each line that the user has printed, until the log ends with the job."""
        until_s = time.monotonic() + LIMIT_S
        while True:
            self.messages, self.printed = [], []
            for line in self.here.log_lines(self.name):
                text, message = split(line)
                if text:
                    self.printed.append(text)
                    yield text
                if message is not None:
                    self.messages.append(message)
                    yield message
            if self.here.job(self.name).is_over:
                return
            assert time.monotonic() < until_s, (self.printed, self.messages)

    def end(self) -> Job:
        """Wait for the end of the job."""
        for _ in self.follow():
            pass
        until_s = time.monotonic() + LIMIT_S
        while not (job := self.here.job(self.name)).is_over:
            assert time.monotonic() < until_s, job
            time.sleep(0.1)
        return job

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    def read(self, node_id: str, path: str) -> bytes:
        return b"".join(self.here.read(node_id, path))


def new_name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def submit(address: str, wanted: JobWanted, code: Path | None = None, *, name: str = "", **variables: str) -> Told:
    """Submit what is wanted, with the code in a folder; the job is `wanted.job` unless another name is given."""
    here = Head(address)
    runtime_env = {"py_modules": [here.put(heliostat_package())]}
    runtime_env["env_vars"] = {"RAY_JOB_STOP_WAIT_TIME_S": "60", "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    if code is not None:
        runtime_env["working_dir"] = here.put(pack_folder(code).code)
    here.submit(
        submission_id=name or wanted.job,
        entrypoint=entrypoint(MODULE, wanted.to_text()),
        runtime_env=runtime_env,
        metadata={},
    )
    return Told(here, name or wanted.job)


def put_data(address: str, places: dict[str, Path]) -> tuple[str, ...]:
    here = Head(address)
    return tuple(map(here.put, pack_datasets(places)))
