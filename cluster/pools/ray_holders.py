"""Who holds what a waiting group of workers needs: by job of the cluster, as far as Ray tells.

Ray knows what is reserved by groups, and which actors live; what an actor, or a task, holds by itself it tells to its
dashboard alone, which a cluster need not have. So what is not reserved is named by its actors, without amounts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import ray
from ray.util.placement_group import placement_group_table

from .private_api import JobInfo, alive_actors, living_jobs

MOST_JOBS, MOST_CLASSES = 3, 3
_JOB_DIGITS = 8  # an id of a group ends with that of its job


@dataclass(slots=True)
class Holding:
    """What a job has: amounts of resources that are reserved, and how many actors of each class."""

    reserved: dict[str, float] = field(default_factory=dict)
    actors: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}(s) reserved" for name, amount in self.reserved.items()]
        parts += [f"{num} actor(s) {name}" for name, num in self.actors.most_common(MOST_CLASSES)]
        return ", ".join(parts)


def held_by(names: Iterable[str], own_group: str) -> str:
    """Who holds resources of these names, in a sentence; empty if nobody is known to.

    Args:
        names: of the resources.
        own_group: id of the placement group that asks, empty without one.

    Raises:
        RayError: Ray does not answer.
    """
    own_job = str(ray.get_runtime_context().get_job_id())
    groups: Mapping[str, Mapping[str, Any]] = placement_group_table()  # of texts, lists and dicts
    reserved = {
        each: list(group["bundles"].values())
        for each, group in groups.items()
        if group["state"] == "CREATED" and each != own_group
    }
    return sentence(holdings(tuple(names), reserved, alive_actors(), own_job), living_jobs(), own_job)


def holdings(
    names: Sequence[str],
    groups: Mapping[str, Sequence[Mapping[str, float]]],
    actors: Iterable[tuple[str, str]],
    own_job: str,
) -> dict[str, Holding]:
    """What each job holds.

    Args:
        names: of the resources that count.
        groups: the bundles of each group that has its place, by its id.
        actors: job and class of every actor that lives.
        own_job: the job of this process; its actors are known, and left out.
    """
    found: dict[str, Holding] = {}
    for group, bundles in groups.items():
        for bundle in bundles:
            for name in set(names) & set(bundle):
                reserved = found.setdefault(group[-_JOB_DIGITS:], Holding()).reserved
                reserved[name] = reserved.get(name, 0) + bundle[name]
    for job, name in actors:
        if job != own_job:
            found.setdefault(job, Holding()).actors[name] += 1
    return found


def sentence(found: Mapping[str, Holding], jobs: Mapping[str, JobInfo], own_job: str) -> str:
    """Say it; jobs that hold most come first.

    Args:
        found: by job.
        jobs: what is known of each.
        own_job: that of this process.
    """
    if not found:
        return ""
    by_size = sorted(
        found.items(), key=lambda each: (-sum(each[1].reserved.values()), -each[1].actors.total(), each[0])
    )
    told = [f"{_program(job, jobs.get(job), own_job)}: {held}" for job, held in by_size[:MOST_JOBS]]
    more = f"; and {len(by_size) - MOST_JOBS} more job(s)" if len(by_size) > MOST_JOBS else ""
    return f"Held by {'; '.join(told)}{more}."


def _program(job: str, info: JobInfo | None, own_job: str) -> str:
    if job == own_job:
        return "this program"
    if info is None:
        return f"job {job}"
    # Of its command line the program and the script alone: what follows may hold keys.
    words = [PurePath(word).name for word in info.command.split() if not word.startswith("-")]
    return f"{' '.join(words[:2]) or 'a program'} (job {job}, from {info.host})"
