"""The disk of the driver, as a value that travels with a job: one actor on the driver's machine serves it.

The actor takes no core, lies where the driver is, and ends with it, since the driver owns it. If its process dies
alone, Ray starts another, which serves the same, and makes the calls again that were not answered. They may be made
twice, since bytes are written to a place that the caller names; only a file whose removal or new name was not answered
is then not found.

Where a machine has the driver's folders at the same paths (the driver's own, or all that mount one disk) nothing goes
through it: the driver writes a token into each folder, and whoever reads it there opens files in place (`reach.Reach`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import DiskError
from .served import TOKEN, Root, ServedDisk, as_memo

CALLS_AT_ONCE = 8
# For an answer: as long as a worker may stand still that reads (`group.liveness`). What is written has no limit: it is
# nowhere else, and who waits for it says so.
LIMIT_S = 600.0
SERVE_WITHIN_S = 60.0
MAX_DEATHS = 10
# Of the disks of this process, by id: files in its memory, each with the roots for whoever serves that disk next.
_MEMOS: dict[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The driver's disk, or what of it is served.

    Attributes:
        id: of this one, other than that of every other.
        actor: serves it, a `ServedDisk`. (Any: Ray gives an actor's methods no types.)
        roots: what is served.
        made: folders that had to be made for that. They go with the tokens, as long as nothing else came into them.
    """

    id: str
    actor: Any
    roots: tuple[Root, ...] = ()
    made: frozenset[str] = frozenset()

    def serving(self, *roots: Root) -> Disk:
        """This disk, on which these are served, and nothing else that can only be read; on the driver.

        What others may write to is made, with its token, and stays until there is other such: workers print into the
        run folder of the last fit. What is only read and is not there is left out: who wants it finds that it is gone.

        Raises:
            DiskError: the processes of Ray on this machine do not see what the driver sees.
            OSError: a token cannot be written.
        """
        kept = () if any(root.is_writable for root in roots) else (root for root in self.roots if root.is_writable)
        wanted = dict.fromkeys(root for root in (*kept, *roots) if root.is_writable or os.path.exists(root.path))
        made = frozenset(each for root in wanted if root.is_writable for each in _missing(Path(root.path)))
        served = replace(self, roots=tuple(wanted), made=self.made | made)
        new = served._with_roots(wanted.keys() - set(self.roots))
        try:
            for root in served.roots:
                if root.is_writable and not self._marks(root):  # one that was served may have been deleted
                    os.makedirs(root.path, exist_ok=True)
                    Path(root.path, TOKEN).write_text(self.id)
            if hindered := fetched(self.asked("serve", served.roots, self.id), SERVE_WITHIN_S):
                raise DiskError.not_seen(*hindered)
            if (memo := _MEMOS.get(self.id)) is not None:
                os.pwrite(memo, as_memo(served.roots).ljust(os.fstat(memo).st_size), 0)  # blanks over a longer one
        except TimeoutError:
            new.unmark()
            raise DiskError.silent(SERVE_WITHIN_S) from None
        except BaseException:
            new.unmark()
            raise
        self._with_roots(set(self.roots) - wanted.keys()).unmark()
        return served

    def _with_roots(self, roots: Iterable[Root]) -> Disk:
        return replace(self, roots=tuple(roots))

    def roots_of(self, path: str) -> list[Root]:
        """The roots that a path is in; none if it is not served."""
        return [root for root in self.roots if root.holds(path)]

    def unmark(self) -> None:
        """Take the tokens away, and what was made for them; on the driver, when nobody needs the disk any more."""
        for root in self.roots:
            with contextlib.suppress(OSError):
                if root.is_writable and self._marks(root):
                    Path(root.path, TOKEN).unlink()
                    folder = root.path
                    while folder in self.made:
                        os.rmdir(folder)
                        folder = os.path.dirname(folder)

    def _marks(self, root: Root) -> bool:
        with contextlib.suppress(OSError):
            return Path(root.path, TOKEN).read_text() == self.id
        return False

    def asked(self, method: str, *arguments: object, **options: object) -> ray.ObjectRef:
        """A reference of what a method of the `ServedDisk` will return."""
        return getattr(self.actor, method).remote(*arguments, **options)

    def call(self, method: str, *arguments: object, **options: object) -> Any:  # Any: as the method says
        """What a method of the `ServedDisk` returns, and raises: OSError, if nothing else."""
        return fetched(self.asked(method, *arguments, **options), LIMIT_S)


def _missing(folder: Path) -> Iterator[str]:
    """The folder and those above it, as far as they are not there."""
    return (str(each) for each in (folder, *folder.parents) if not os.path.lexists(each))


def start_disk() -> Disk:
    """Serve this process's disk, nothing of it at first; Ray must be connected."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": CALLS_AT_ONCE, "scheduling_strategy": here}
    again = {"max_restarts": MAX_DEATHS, "max_task_retries": MAX_DEATHS}
    memo = os.memfd_create("heliostat-disk")  # it is gone with this process, however that ends
    actor = ray.remote(**options, **again)(ServedDisk).remote(f"/proc/{os.getpid()}/fd/{memo}")
    disk = Disk(id=uuid.uuid4().hex, actor=actor)
    _MEMOS[disk.id] = memo
    return disk


def stop_disk(disk: Disk) -> None:
    """Serve it no more."""
    disk.unmark()
    if (memo := _MEMOS.pop(disk.id, None)) is not None:
        os.close(memo)
    if ray.is_initialized():
        with contextlib.suppress(RayError):
            ray.kill(disk.actor)


def fetched(reference: ray.ObjectRef, limit_s: float | None) -> Any:  # Any: whatever was called returns
    """What a call has returned; an error of the driver's system is raised as if it were one of this one's.

    Args:
        reference: of what it returns.
        limit_s: seconds to wait; None for as long as it takes.

    Raises:
        OSError: as there; ConnectionError if the driver is gone, TimeoutError if its disk does not answer.
    """
    try:
        return ray.get(reference, timeout=limit_s)
    except GetTimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"the driver's disk has not answered for {limit_s:g} s") from None
    except RayTaskError as error:
        if isinstance(error.cause, OSError):
            raise error.cause from None
        raise
    except RayError as error:
        raise ConnectionError(f"the driver's disk does not answer any more: {type(error).__name__}") from error
