"""What is said of a machine's cores, where workers have more threads than those, or leave many of them idle."""

from __future__ import annotations

from heliostat.cluster.cores import usable_cores

from .words import count


def shared_cores_line(workers: int, threads: int) -> str:
    """What to say if workers of this machine have more threads than it has cores; else nothing."""
    cores = usable_cores()
    if workers * threads <= cores:
        return ""
    who = f"{count(workers, 'worker')} with {count(threads, 'thread')}{' each' if workers > 1 else ''}"
    return f"{who} share{'' if workers > 1 else 's'} the {count(cores, 'core')} of this machine"


def idle_cores_line(threads: int, cores: int) -> str:
    """What to say of a run that goes on where its workers leave at least half of the cores idle; else nothing.

    A new run takes all cores, and who has given `threads_per_worker` needs no word.

    Args:
        threads: that a worker has.
        cores: that it could have.
    """
    if 2 * threads > cores:
        return ""
    return (
        f"{threads} of {count(cores, 'core')} per worker: a run keeps the number of threads that it began with, for "
        "results depend on it; a new run uses all"
    )
