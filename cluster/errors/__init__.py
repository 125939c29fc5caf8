"""What can go wrong between workers.

    ClusterError                    anything this package raises
    ├── SpecError                   a group is asked for that cannot be
    ├── DiskError                   the driver's disk cannot be served to other machines
    ├── PlacementError              the cluster has no room for the workers, or they did not start in time
    │   ├── NoAnswerError           nobody answers at the address of a job server, or not to the end
    │   ├── PreflightError          machines of workers lack something; knows all of it
    │   └── UnreachableError        two workers that are up cannot reach each other; knows all such pairs
    ├── JobServerError              a cluster's job server refuses; knows the status of its answer
    │   └── NoSuchJobError          it does not know the job
    ├── TaskFailed                  the end of a task: a worker died or raised; knows who, why and at which step
    ├── Dismissed                   the task is over for this worker, which has done nothing wrong
    └── CollectiveError             a call between workers failed; knows which, and who is unresponsive
        ├── PeerError               mendable: a peer is gone, silent, a stranger, or of another generation
        ├── Aborted                 mendable: this worker was told to stop
        └── ProtocolError           a program error: the workers do not make the same calls with the same data

Whoever catches one asks a single question: does a new generation of the group mend it (`MENDABLE`), or would the same
happen again? All of them keep their fields when pickled, so they may cross process borders.
"""

from __future__ import annotations

from .base import ClusterError, SpecError
from .calls import MENDABLE, Aborted, Call, CollectiveError, Dismissed, PeerError, ProtocolError, TaskFailed
from .jobs import JobServerError, NoSuchJobError
from .placement import SUBMIT, Complaint, DiskError, NoAnswerError, PlacementError, PreflightError, UnreachableError

__all__ = [
    "MENDABLE",
    "SUBMIT",
    "Aborted",
    "Call",
    "ClusterError",
    "CollectiveError",
    "Complaint",
    "DiskError",
    "Dismissed",
    "JobServerError",
    "NoAnswerError",
    "NoSuchJobError",
    "PeerError",
    "PlacementError",
    "PreflightError",
    "ProtocolError",
    "SpecError",
    "TaskFailed",
    "UnreachableError",
]
