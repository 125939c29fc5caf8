"""Goodput: how much of the time goes into steps while workers are killed; and an epoch with a slow worker.

    python scripts/benchmarks/goodput.py [--every 15 60] [--workers 4] [--model dense256] [--seconds 75]
                                         [--slow-model dense1024] [--slow-epochs 8] [--json FILE]

**Kills.** One run of the trainer on Ray actors of this machine for each interval and one without kills. A random worker
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

**A slow worker.** Two workers with eight microbatches, each pinned to a core of its own; with one of them, two busy
processes are pinned to its core, so that it has a third of it. Reported: the median time of an epoch without and with
balancing, the latter once microbatches have been dealt out anew; the weights must be the same.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

CHECKPOINT_S = 10.0
SETTLE_S, LIMIT_S, LOOK_S = 2.0, 120.0, 0.1
ENDLESS_EPOCHS = 1_000_000
SLOW_STEPS, SLOW_MICROBATCHES = 16, 8
Interval = tuple[float, float]


@dataclass(slots=True)
class Kill:
    """When, and which workers."""

    time: float
    workers: tuple[int, ...]


@dataclass(slots=True)
class Found:
    """What a run has left behind: its kills, its events, when which step was applied; timed from when to when."""

    kills: list[Kill] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
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

    def formed(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "formed"]

    def followed(self) -> list[Interval]:
        """From each kill until the step that ends it, of those kills that have one."""
        commits = self.commits()
        return [each for kill in self.kills if (each := after_kill(kill, self.formed(), commits))]


# -- what is measured -------------------------------------------------------------------------------------------------


def report(found: Found) -> dict[str, Any]:
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


def after_kill(kill: Kill, formed: Sequence[dict[str, Any]], commits: Sequence[float]) -> Interval | None:
    """From a kill until the next step of a group without its victims; None if there is none."""
    gone = set(kill.workers)
    later = (each["time"] for each in formed if each["time"] > kill.time and not gone & set(each["workers"]))
    stands = next(later, None)
    ends = None if stands is None else next((at for at in commits if at > stands), None)
    return None if ends is None else (kill.time, ends)


def around_join(formed: dict[str, Any], commits: Sequence[float], began: float) -> Interval | None:
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


def backed_off(formed: Sequence[dict[str, Any]]) -> int:
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


def build_noting(build_model: Callable[[], Any], folder: str) -> Any:
    """Build the model in a worker, and begin to write down when steps are applied."""
    from heliostat.cluster import instruments

    Path(folder).mkdir(parents=True, exist_ok=True)
    file = (Path(folder) / f"{os.getpid()}.txt").open("a", buffering=1)

    def note(point: str, step: int | None) -> None:
        if point == "applied":
            file.write(f"{time.time()} {step}\n")

    instruments.listen(note)
    return build_model()


def applied_in(folder: Path) -> list[tuple[float, int]]:
    """When which step was applied; a line that a kill cut short is left out."""
    lines = [line for path in folder.glob("*.txt") for line in path.read_text().splitlines(keepends=True)]
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [(float(at), int(step)) for at, step in pairs]


def events_of(run_dir: Path) -> list[dict[str, Any]]:
    """The run's events so far."""
    path = run_dir / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def lost_in(events: Sequence[dict[str, Any]]) -> set[int]:
    """Workers that were lost."""
    return {event["worker"] for event in events if event["event"] == "lost"}


def members_of(found: Found) -> list[int]:
    """Who is in the group, as far as it is written down, and has not been killed."""
    formed = found.formed()
    gone = lost_in(found.events).union(*(kill.workers for kill in found.kills))
    return [worker for worker in formed[-1]["workers"] if worker not in gone] if formed else []


def wait_until(true: Callable[[], bool], what: str, look_s: float = LOOK_S) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > until_s:
            raise RuntimeError(f"{what} within {LIMIT_S:.0f} s")
        time.sleep(look_s)


def disturb(trainer: Any, folder: Path, found: Found, *, every_s: float, everybody: bool, seconds: float) -> None:
    """Kill again and again, and pause the run when the time is over and all have been replaced."""
    chance, num_workers = random.Random(0), len(trainer.hosts)
    num = num_workers if everybody else min(2, num_workers)

    def all_replaced() -> bool:
        found.events = events_of(folder / "run")
        return len(members_of(found)) == num_workers

    def all_followed() -> bool:
        found.events, found.applied = events_of(folder / "run"), applied_in(folder / "points")
        return len(found.followed()) == len(found.kills)

    try:
        wait_until(lambda: bool(applied_in(folder / "points")), "no step was made")
        time.sleep(SETTLE_S)
        found.began = time.time()
        due = next_kill(found, every_s, num)
        while time.time() < found.began + seconds:
            time.sleep(LOOK_S)
            if time.time() < due:
                continue
            found.events = events_of(folder / "run")
            infos = trainer._workers.infos
            members = [worker for worker in members_of(found) if worker in infos]
            next_s = next_kill(found, every_s, num)
            due = next_s if math.isfinite(next_s) else due
            if time.time() < next_s or len(members) < num:
                continue
            victims = tuple(members) if everybody else (chance.choice(members),)
            pids = [infos[worker].pid for worker in victims]
            found.kills.append(Kill(time.time(), victims))
            due = time.time() + every_s
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        wait_until(all_replaced, "not all workers were replaced")
        wait_until(all_followed, "the last kill was not followed by a new step", look_s=1.0)
        time.sleep(max(SETTLE_S, next_kill(found, every_s, num) - every_s / 2 - time.time()))
        found.ended = time.time()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # pauses the run


def killed(model: str, *, workers: int, every_s: float | None, everybody: bool = False, seconds: float) -> Found:
    """One run with kills, None for none."""
    from heliostat.trainer import EverySeconds, RunPausedError, Trainer

    import models  # type: ignore[import-not-found]  # isort: skip

    found = Found()
    with data_of(model) as (folder, data):
        build = partial(build_noting, partial(models.build_model, model), str(folder / "points"))
        with Trainer(build, workers=workers, threads_per_worker=1, run_dir=folder / "run") as trainer:
            trainer.measure_links()  # starts the workers
            thread = threading.Thread(
                target=disturb,
                args=(trainer, folder, found),
                kwargs={"every_s": every_s or 1e9, "everybody": everybody, "seconds": seconds},
                daemon=True,
            )
            thread.start()
            with contextlib.suppress(RunPausedError):
                trainer.fit(
                    data,
                    epochs=ENDLESS_EPOCHS,
                    global_batch_size=models.WORKLOADS[model].global_batch_size,
                    checkpoint_every=EverySeconds(CHECKPOINT_S),
                    verbose=0,
                )
            thread.join()
        found.events, found.applied = events_of(folder / "run"), applied_in(folder / "points")
    return found


@contextlib.contextmanager
def data_of(model: str) -> Iterator[tuple[Path, Path]]:
    """A folder for a run, and the model's data in it."""
    from heliostat.data import write_dataset

    import models  # isort: skip

    x, y = models.make_data(model)
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        write_dataset(Path(name) / "data", {"x": x, "y": y})
        yield Path(name), Path(name) / "data"


# -- a slow worker ----------------------------------------------------------------------------------------------------


def pin(pid: int, core: int) -> None:
    """Let a process, with all its threads, run on one core only."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), {core})


def slow_down(trainer: Any, folder: Path, busy: list[subprocess.Popen[bytes]]) -> None:
    """Pin two workers to a core each, and two busy processes to the second one's."""
    wait_until(lambda: bool(applied_in(folder / "points")), "no step was made")
    cores = sorted(os.sched_getaffinity(0))
    for (_, info), core in zip(sorted(trainer._workers.infos.items()), cores, strict=False):
        pin(info.pid, core)
    for _ in range(2):
        busy.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        pin(busy[-1].pid, cores[1])


def slowed(model: str, *, balance: bool, epochs: int) -> dict[str, Any]:
    """Median time of an epoch with one of two workers slowed to a third."""
    from heliostat.trainer import Trainer

    import models  # isort: skip

    busy: list[subprocess.Popen[bytes]] = []
    with data_of(model) as (folder, data):
        build = partial(build_noting, partial(models.build_model, model), str(folder / "points"))
        settings = {"num_microbatches": SLOW_MICROBATCHES, "balance": balance, "run_dir": folder / "run"}
        with Trainer(build, workers=2, threads_per_worker=1, **settings) as trainer:
            trainer.measure_links()  # starts the workers
            threading.Thread(target=slow_down, args=(trainer, folder, busy), daemon=True).start()
            try:
                result = trainer.fit(
                    data,
                    epochs=epochs,
                    steps_per_epoch=SLOW_STEPS,
                    global_batch_size=models.WORKLOADS[model].global_batch_size,
                    checkpoint_every=None,
                    verbose=0,
                )
            finally:
                for child in busy:
                    child.kill()
                    child.wait()
        events = events_of(folder / "run")
    if len(busy) < 2:
        raise RuntimeError("the worker was not slowed: give more epochs")
    changes = [event for event in events if event["event"] == "rebalanced"]
    if balance and not changes:
        raise RuntimeError("microbatches were not dealt anew: give more epochs")
    settled = changes[-1]["time"] if changes else result.epochs[0].time
    ends = [epoch.time for epoch in result.epochs]
    timed = [after - before for before, after in itertools.pairwise(ends) if before >= settled]
    if not timed:
        raise RuntimeError("no whole epoch was left to be timed: give more epochs")
    return {
        "epoch_s": round(statistics.median(timed), 3),
        "epochs": len(timed),
        "microbatches": [change["after"] for change in changes],
        "weights": result.sha256["weights"],
    }


def slow_worker(model: str, epochs: int) -> dict[str, Any]:
    """An epoch with a slow worker, without and with balancing."""
    off, on = (slowed(model, balance=balance, epochs=epochs) for balance in (False, True))
    if off["weights"] != on["weights"]:
        raise RuntimeError("balancing has changed the weights")
    return {"off": off, "on": on, "times_faster": round(off["epoch_s"] / on["epoch_s"], 3)}


def main() -> None:
    """Run what the command line asks for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dense256")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", nargs="*", type=float, default=[15.0, 60.0], metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=75.0, help="of a run; at least two intervals")
    parser.add_argument("--slow-model", default="dense1024")
    parser.add_argument("--slow-epochs", type=int, default=8, help="0 leaves the slow worker out")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND="tensorflow")
    import cloudpickle
    import models

    cloudpickle.register_pickle_by_value(models)  # workers cannot import a script's neighbour
    run = partial(killed, chosen.model, workers=chosen.workers)
    failed, found = False, {}
    for name, part in parts(run, chosen).items():
        found[name] = done = measured(part)
        failed |= "error" in done
        if {"steps_per_minute"} <= done.keys() & found.get("undisturbed", {}).keys():
            done["of_undisturbed"] = round(done["steps_per_minute"] / found["undisturbed"]["steps_per_minute"], 4)
        print(json.dumps({name: done}), flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1))
    sys.exit(failed)


def parts(run: Callable[..., Found], chosen: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is to be measured, by name and in order."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    if chosen.every:
        found["undisturbed"] = lambda: report(run(every_s=None, seconds=chosen.seconds / 2))
    for every_s, everybody in itertools.product(chosen.every, (False, True)):
        name = f"{'everybody restarts' if everybody else 'heliostat'}, every {every_s:g} s"
        seconds = max(chosen.seconds, 2 * every_s)
        one = partial(run, every_s=every_s, everybody=everybody, seconds=seconds)
        found[name] = lambda one=one: report(one())
    if chosen.slow_epochs:
        found["slow worker"] = partial(slow_worker, chosen.slow_model, chosen.slow_epochs)
    return found


def measured(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures of a part, or the error that ended it; the other parts are measured all the same."""
    try:
        return part()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
