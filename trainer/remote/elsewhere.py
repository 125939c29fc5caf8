"""What a trainer has on a cluster between two calls, and how that is deleted there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.cluster.errors import ClusterError
from heliostat.cluster.head.api import Head

from ..driver.runs import FitCall
from ..shipping import Packed
from .call_folder import MODULE, payload_of
from .handle import Handle, new_submission_id
from .submitting import Shipment, submit_shipment

_REMOVED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A fit on the cluster, and how it has left the model.

    Attributes:
        path: its run folder here.
        there: its run folder on the cluster; empty where that is gone.
        checkpoints: where its checkpoints are, a URI; empty for the run folder.
        finished: whether it came to its end.
        prepared: the functions that have changed the model up to then.
        begins: the fit that it went on from, None for a new model.
    """

    path: Path
    there: str
    checkpoints: str
    finished: bool
    prepared: tuple[Packed, ...]
    begins: Elsewhere | None

    @classmethod
    def of(cls, call: FitCall, path: Path, begins: Elsewhere | None) -> Elsewhere:
        """A fit that begins, in a folder here, and goes on from another."""
        own = () if call.wanted.prepare is None else (payload_of(call.wanted.prepare),)
        return cls(
            path=path,
            there="",
            checkpoints=os.fspath(call.wanted.checkpoint_dir or ""),
            finished=False,
            prepared=(*(() if begins is None else begins.prepared), *own),
            begins=begins,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What a job has left on the cluster: folders that are here, too, in `path`; None for what nobody needs."""

    job: str
    there: tuple[str, ...]
    path: Path | None


def not_removed(head: Head, home: str, leftovers: Sequence[Leftover]) -> str:
    """Have folders and all of a trainer's deleted, and wait for it; why they are not, empty if they are.

    Args:
        head: the cluster.
        home: the name of the folder of the trainer's runs there.
        leftovers: what is to be deleted.
    """
    job = new_submission_id("remove")
    folders = [[each.job, each.there] for each in leftovers]
    wanted = json.dumps({"job": job, "home": home, "removes": folders})
    shipment = Shipment(module=MODULE, argument=lambda _: wanted)
    handle = Handle(address=head.address, submission_id=job, what="call")
    try:
        submit_shipment(head, handle, shipment, None, lambda _: None)
        until_s = time.monotonic() + _REMOVED_WITHIN_S
        while not (found := head.job(job)).is_over:
            if time.monotonic() > until_s:
                return f"the job {job}, which is to delete them, has not ended yet"
            time.sleep(0.5)
    except ClusterError as error:
        return str(error)
    return "" if found.state == "SUCCEEDED" else f"the job {job} {found.state.lower()}: {found.message}"
