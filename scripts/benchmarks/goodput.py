"""Goodput: how much of the time goes into steps while workers are killed.

    python scripts/benchmarks/goodput.py [--every 15 60] [--workers 4] [--model dense256] [--seconds 75] [--save]

One run of the trainer on Ray actors of this machine for each interval and one without kills. A random worker
is killed (SIGKILL) again and again, the first time after half of the interval, then each time an interval after a group
without the last victim stands; the run goes on until all have been replaced, a step is committed after the last kill,
and half an interval has passed since that, too. Every worker's process writes down when it has applied a step; a step
is *committed* when the first of them has. Lost are the times from a kill until the next step is committed by the group
without the victim, and the waits of the others for one that joins, both beyond a median step, and once where they
overlap::

    goodput = 1 - lost / time

Beside it stand committed steps per minute over those of the run without kills: they count, too, that the others compute
the microbatches of one who is missing, and the load of starting another. Beside both the same kills under the rule of
most trainers: everybody is restarted from the last checkpoint. Here all workers are killed at once instead of one, and
lost is the time until a step is committed that had not been before. The interval is counted from when all stand again,
so no restart is killed before it trains, and there are fewer kills than in the other run: see `kills`. Checkpoints are
made every ten seconds in all runs. What should not happen is counted beside the figures and not left out of them:
`backed_off`, restarts from the same checkpoint as the one before, which wait some seconds first (the trainer's own
rule, no part of what is compared); `placed_again`, places in a group that a worker could not take before the group
changed, and was given anew; `not_started`, replacements that failed before they had a place; `lost_otherwise`, workers
that were lost and not killed; `not_lost`, victims that nobody missed; `unfollowed`, kills without a new step. A part
that fails is printed with its error, and the next one begins.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import run  # type: ignore[import-not-found]
from disturb import (  # type: ignore[import-not-found]
    LOOK_S,
    Kill,
    disturbed,
    events_of,
    formed_in,
    kill,
    lost_in,
    members,
    noted,
    wait_until,
)

if TYPE_CHECKING:
    from heliostat.trainer import Trainer

CHECKPOINT_S = 10.0
SETTLE_S = 2.0
Interval = tuple[float, float]


@dataclass(slots=True)
class Found:
    """What a run has left behind: its kills, its events, when which step was applied; timed from when to when."""

    kills: list[Kill] = field(default_factory=list)
    events: list[run.Found] = field(default_factory=list)
    applied: list[tuple[float, int]] = field(default_factory=list)
    began: float = 0.0
    ended: float = math.inf

    def commits(self) -> list[float]:
        """When steps were committed that had not been committed before, those before the beginning left out."""
        reached, times = -1, []
        for at, step in sorted(self.applied):
            if step > reached:
                reached = step
                times.append(at)
        return [at for at in times if self.began <= at <= self.ended]

    def formed(self) -> list[run.Found]:
        """The generations of the group."""
        return list(formed_in(self.events))

    def followed(self) -> list[Interval]:
        """From each kill until the step that ends it, of those kills that have one."""
        commits = self.commits()
        return [each for kill in self.kills if (each := after_kill(kill, self.formed(), commits))]


# -- what is measured -------------------------------------------------------------------------------------------------


def report(found: Found) -> run.Found:
    """Goodput of a run and what is behind it; times in seconds."""
    if math.isinf(found.ended):
        raise RuntimeError("the run was given up before its end")
    commits = found.commits()
    step_s = statistics.median(after - before for before, after in itertools.pairwise(commits))
    by_kills = found.followed()
    by_joins = [each for formed in found.formed() if (each := around_join(formed, commits, found.began))]
    lost_s = sum(max(0.0, end - begin - step_s) for begin, end in merged(by_kills + by_joins))
    seconds = found.ended - found.began
    return {
        "seconds": round(seconds, 1),
        "kills": len(found.kills),
        "joins": len(set(joined(found))),
        "step_ms": round(1000 * step_s, 2),
        "kill_ms": [round(1000 * (end - begin - step_s), 1) for begin, end in by_kills],
        "join_ms": [round(1000 * (end - begin - step_s), 1) for begin, end in by_joins],
        **unexpected(found),
        "goodput": round(1 - lost_s / seconds, 5),
        "steps_per_minute": round(60 * len(commits) / seconds, 1),
    }


def joined(found: Found) -> list[int]:
    """Who was given a place since the run was timed; a worker that could not take its place stands here again."""
    return [worker for each in found.formed() if each["time"] > found.began for worker in each["joined"]]


def unexpected(found: Found) -> dict[str, int]:
    """How often happened what should not happen in such a run."""
    victims = {worker for kill in found.kills for worker in kill.workers}
    lost, places = lost_in(found.events), joined(found)
    return {
        "backed_off": backed_off(found.formed()),
        "placed_again": len(places) - len(set(places)),
        "not_started": sum(event["event"] == "not_started" for event in found.events),
        "lost_otherwise": len(lost - victims),
        "not_lost": len(victims - lost),
        "unfollowed": len(found.kills) - len(found.followed()),
    }


def after_kill(kill: Kill, formed: Sequence[run.Found], commits: Sequence[float]) -> Interval | None:
    """From a kill until the next step of a group without its victims; None if there is none."""
    gone = set(kill.workers)
    later = (each["time"] for each in formed if each["time"] > kill.time and not gone & set(each["workers"]))
    stands = next(later, None)
    ends = None if stands is None else next((at for at in commits if at > stands), None)
    return None if ends is None else (kill.time, ends)


def around_join(formed: run.Found, commits: Sequence[float], began: float) -> Interval | None:
    """From the last step before workers joined until the first one after; None where it was no join in the middle."""
    at = formed["time"]
    before = [each for each in commits if each <= at]
    after = next((each for each in commits if each > at), None)
    if not formed["joined"] or formed["restarted"] or at < began or not before or after is None:
        return None
    return before[-1], after


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Those that overlap as one; where one ends at the step at which the next begins, they stay two."""
    union: list[Interval] = []
    for begin, end in sorted(intervals):
        if union and begin < union[-1][1]:
            union[-1] = union[-1][0], max(end, union[-1][1])
        else:
            union.append((begin, end))
    return union


def backed_off(formed: Sequence[run.Found]) -> int:
    """How many restarts began from the same checkpoint as the one before."""
    names = [each.get("checkpoint") for each in formed if each["restarted"]]
    return sum(before == after for before, after in itertools.pairwise(names))


def next_kill(found: Found, every_s: float, num: int) -> float:
    """When to kill next: an interval after a group of so many workers stands without the last victims."""
    if not found.kills:
        return found.began + every_s / 2
    last = found.kills[-1]
    stand = (
        each["time"]
        for each in found.formed()
        if each["time"] > last.time and len(each["workers"]) >= num and not set(last.workers) & set(each["workers"])
    )
    return next(stand, math.inf) + every_s


# -- runs with kills --------------------------------------------------------------------------------------------------


def applied_in(folder: Path) -> list[tuple[float, int]]:
    """When which step was applied."""
    return [(note["time"], note["step"]) for note in noted(folder, "applied")]


def disturb(
    found: Found, everybody: bool, every_s: float, seconds: float, trainer: Trainer, run_dir: Path, notes: Path
) -> None:
    """Kill again and again until the time is over and all have been replaced; fills `found`."""
    chance, num_workers = random.Random(0), len(trainer.hosts)
    num = num_workers if everybody else min(2, num_workers)

    def look() -> list[int]:
        found.events = events_of(run_dir)
        return list(members(found.events, found.kills))

    def all_followed() -> bool:
        found.applied = applied_in(notes)
        return len(look()) == num_workers and len(found.followed()) == len(found.kills)

    wait_until(lambda: bool(applied_in(notes)), "no step was made")
    time.sleep(SETTLE_S)
    found.began = time.time()
    due = next_kill(found, every_s, num)
    while time.time() < found.began + seconds:
        time.sleep(LOOK_S)
        if time.time() < due:
            continue
        here = [worker for worker in look() if worker in trainer._runs.workers.infos]
        next_s = next_kill(found, every_s, num)
        due = next_s if math.isfinite(next_s) else due
        if time.time() < next_s or len(here) < num:
            continue
        victims = here if everybody else [chance.choice(here)]
        found.kills.append(kill(trainer, victims, signal.SIGKILL, chief=here[0]))
        due = time.time() + every_s
    wait_until(lambda: len(look()) == num_workers, "not all workers were replaced")
    wait_until(all_followed, "the last kill was not followed by a new step", look_s=1.0)
    time.sleep(max(SETTLE_S, next_kill(found, every_s, num) - every_s / 2 - time.time()))
    found.ended = time.time()


def killed(model: str, *, workers: int, every_s: float | None, everybody: bool = False, seconds: float) -> Found:
    """One run with kills, None for none."""
    from heliostat.trainer import EverySeconds

    found = Found()
    killing = partial(disturb, found, everybody, every_s or 1e9, seconds)
    with disturbed(model, killing, workers=workers, checkpoint_every=EverySeconds(CHECKPOINT_S)) as (
        run_dir,
        notes,
    ):
        found.events, found.applied = events_of(run_dir), applied_in(notes)
    return found


def parts(one: Callable[..., Found], chosen: argparse.Namespace) -> dict[str, Callable[[], Found]]:
    """What is to be measured, by name and in order."""
    found: dict[str, Callable[[], Found]] = {"undisturbed": partial(one, every_s=None, seconds=chosen.seconds / 2)}
    for every_s, everybody in itertools.product(chosen.every, (False, True)):
        name = f"{'everybody restarts' if everybody else 'heliostat'}, every {every_s:g} s"
        seconds = max(chosen.seconds, 2 * every_s)
        found[name] = partial(one, every_s=every_s, everybody=everybody, seconds=seconds)
    return found


def main() -> None:
    """Measure part after part; ends with status 1 if one failed."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--model", default="dense256")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", nargs="*", type=float, default=[15.0, 60.0], metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=75.0, help="of a run; at least two intervals")
    chosen = parser.parse_args()
    rows: list[run.Found] = []
    for name, part in parts(partial(killed, chosen.model, workers=chosen.workers), chosen).items():
        try:
            rows.append({"run": name, **report(part())})
        except Exception as error:  # the other parts are measured all the same
            traceback.print_exc()
            rows.append({"run": name, "error": f"{type(error).__name__}: {error}"})
        if {"steps_per_minute"} <= rows[-1].keys() & rows[0].keys():
            rows[-1]["of_undisturbed"] = round(rows[-1]["steps_per_minute"] / rows[0]["steps_per_minute"], 4)
        run.finish(chosen, "goodput", {"rows": rows})
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
