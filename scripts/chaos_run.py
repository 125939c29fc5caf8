"""One run of a script for ``heliostat chaos``, in a process of its own; kills workers meanwhile if that is wanted."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from heliostat.cluster.group.driver_loop import TaskLoop
from heliostat.cluster.group.worker_group import WorkerGroup
from heliostat.cluster.pools.local import DirectPool
from heliostat.scripts.errors import ScriptError
from heliostat.scripts.run import run_script
from heliostat.trainer.driver.directions import Directions, directed

KILLS_FILE = "kills.jsonl"
POLL_S = 0.02
_DISTURBABLE = ("running", "regrouping")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosRun:
    """One run.

    Attributes:
        run_dir: run folder of the script's first fit; those of the others have ``-2``, ``-3`` ... behind it.
        kill_every_s: seconds between two kills; None for an undisturbed run.
        seed: chooses who is killed.
    """

    run_dir: Path
    kill_every_s: float | None
    seed: int

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"run_dir": str(self.run_dir), "kill_every_s": self.kill_every_s, "seed": self.seed}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ChaosRun:
        """The opposite of `as_json`."""
        return cls(run_dir=Path(value["run_dir"]), kill_every_s=value["kill_every_s"], seed=value["seed"])


class Killer:
    """Kills a random member of the group at intervals, over all fits of a script.

    The last member is spared until others have come, unless the run has but one worker: then it is killed, and another
    one goes on from the last checkpoint. A kill that is due waits for the group to be in its steps or regrouping.

    Args:
        every_s: from the beginning of the first steps to the first kill, and from one kill to the next.
        seed: chooses who is killed.
    """

    def __init__(self, every_s: float, seed: int) -> None:
        self._every_s = every_s
        self._random = random.Random(seed)
        self._due_s: float | None = None
        self._killed: set[int] = set()  # the group hears of a death a moment later

    def watch(self, folder: Path, group: WorkerGroup, loop: TaskLoop) -> None:
        """Disturb this task until it is over; the kills are noted in the run folder."""
        threading.Thread(target=self._disturb, args=(folder, group, loop), name="heliostat-chaos", daemon=True).start()

    def _disturb(self, folder: Path, group: WorkerGroup, loop: TaskLoop) -> None:
        pause = threading.Event()
        self._killed = set()  # another trainer counts its workers anew
        while not loop.state.over:
            victim = self.victim(loop.state.phase, loop.state.members, group.target, time.monotonic())
            if victim is not None:
                host = group.seen[victim].host
                with (folder / KILLS_FILE).open("a") as file:
                    file.write(json.dumps({"time": time.time(), "worker": victim, "host": host}) + "\n")
                group.pool.crash(victim)
            pause.wait(POLL_S)

    def victim(self, phase: str, members: Sequence[int], target: int, now_s: float) -> int | None:
        """Whom to kill now, given the group's phase, its living members and its wanted size; None for nobody."""
        if phase not in _DISTURBABLE:
            return None
        if self._due_s is None:
            self._due_s = now_s + self._every_s
        living = sorted(set(members) - self._killed)
        if now_s < self._due_s or not living or len(living) < min(2, target):
            return None
        self._due_s = now_s + self._every_s
        victim = self._random.choice(living)
        self._killed.add(victim)
        return victim


def refuse_this_process(group: WorkerGroup) -> None:
    """Raise ScriptError if there is no worker that could be killed without this process."""
    if isinstance(group.pool, DirectPool):
        raise ScriptError(
            "The script trains with workers=0, in its own process, so no worker can be killed. Give it workers=2 or "
            "more."
        )


def main(argv: Sequence[str]) -> None:
    """Run a script: ``argv`` is a `ChaosRun` as JSON, the script, its arguments."""
    wanted = ChaosRun.from_json(json.loads(argv[0]))
    killer = None if wanted.kill_every_s is None else Killer(wanted.kill_every_s, wanted.seed)

    def watch(folder: Path, group: WorkerGroup, loop: TaskLoop) -> None:
        refuse_this_process(group)
        if killer is not None:
            killer.watch(folder, group, loop)

    with directed(Directions(run_dir=wanted.run_dir, fit=None, watch=watch)):
        try:
            run_script(Path(argv[1]), argv[2:], show_traceback=True)
        except click.ClickException as error:
            error.show()
            raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main(sys.argv[1:])
