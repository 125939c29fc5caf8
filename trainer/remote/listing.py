"""Small jobs that see to run folders on the cluster: tell what is in them, or delete them.

A job that has ended says nothing any more, and its files can be read only by links, which it, or another job, makes on
that machine. So whoever wants to know of run folders of an earlier job asks by a job of its own, which takes some
seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal

from heliostat.cluster.head.api import Head

from ..driver.display import Display
from ..errors import FetchError
from .follow import Outcome, follow
from .handle import Handle
from .job_wanted import MODULE, JobWanted
from .submitting import Shipment, submit_shipment
from .wire import Files


def list_folders(head: Head, handle: Handle, paths: Sequence[str], screen: Display) -> dict[str, Files]:
    """What run folders of a job hold now, by path, with links to them.

    Args:
        head: the cluster.
        handle: the job.
        paths: of the folders.
        screen: where waits are said.

    Raises:
        FetchError: it cannot be told.
        ClusterError: the cluster does not answer, or refuses.
    """
    screen.say(f"asking the cluster what is in {', '.join(paths)}")
    outcome = run_small_job(head, handle, "list", paths, screen)
    return {path: outcome.files[path] for path in paths if path in outcome.files}


def run_small_job(
    head: Head, handle: Handle, what: Literal["list", "remove"], paths: Sequence[str], screen: Display
) -> Outcome:
    """Have a small job see to run folders of another, and wait for its end.

    Args:
        head: the cluster.
        handle: the job whose folders they are.
        what: what is to be done with them.
        paths: of the folders.
        screen: where waits are said.

    Raises:
        FetchError: it failed.
        ClusterError: the cluster does not answer, or refuses.
    """
    wanted = JobWanted(what=what, job=handle.submission_id, run_dirs=tuple(paths))
    name = f"{handle.submission_id}-{what}-{uuid.uuid4().hex[:4]}"
    small = Handle(address=handle.address, submission_id=name, what="script", script=what)
    submit_shipment(head, small, Shipment(module=MODULE, argument=lambda _: wanted.to_text()), None, screen.say)
    outcome = follow(head, small, screen)
    if outcome.failed is not None:
        raise FetchError.small_job(what, outcome.failed.message)
    if outcome.exit_status:
        raise FetchError.small_job(what, outcome.message)
    return outcome
