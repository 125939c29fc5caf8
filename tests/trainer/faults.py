"""Faults at exact points of a worker's life, by orders in a folder that the workers' processes look at.

An order says where, in whom and what: a file. Who carries it out claims it by creating a second file beside it that
says when and by which process, so that it happens once, and a test can tell that it did. Orders are grouped in waves:
a wave begins when the faults before it have happened and the group is complete again.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled

from ..phase_of_step import PhaseOfStep
from ..slow import SLOW

GONE_S = 20.0 * SLOW
PACE_S = 0.2  # duration of a step while a wave waits for a replacement: else the run would be over before
STOPPED_S = 1.0
LETHAL = ("raise", "kill", "abort", "stop", "gil")  # the first ends a thread, the others a process
WORKER_THREAD, CHECKPOINT_THREAD = "heliostat-worker-", "heliostat-checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One fault.

    Attributes:
        point: where, a point of `heliostat.cluster.instruments`, or "callback" (see `KillInCallback`).
        who: number of the worker, "any", "chief", "other" (no chief), or "new" (one that joined later).
        wave: earlier waves must have happened, and the group must be complete.
        step: step of the run, None for any.
        phase: of the step, counted from 0 among those that have a sum; None for any.
        action: kill, raise (in process), abort, stop (SIGSTOP), pause (SIGSTOP and soon SIGCONT), gil (never let go
            of Python's lock), full (files cannot grow), room (they can again).
        at_once: do not wait for a complete group: only for the orders before this one.
    """

    point: str
    who: int | str = "any"
    wave: int = 0
    step: int | None = None
    phase: int | None = None
    action: str = "kill"
    at_once: bool = False


class Faults:
    """The test's side: gives orders, and says what has happened.

    Args:
        folder: for the orders.
        run_dir: the run folder, whose events tell who is in the group; None for tasks without one.
        size: workers of a complete group.
    """

    def __init__(self, folder: Path, run_dir: Path | None = None, size: int = 1) -> None:
        self.folder, self.run_dir, self.size = folder, run_dir, size
        folder.mkdir(parents=True, exist_ok=True)

    def order(self, *orders: Order) -> None:
        """Give orders, in addition to those given before."""
        begin = len(list(self.folder.glob("*.json")))
        for number, each in enumerate(orders, begin):
            path = self.folder / f"{number:03}.json"
            path.with_suffix(".new").write_text(json.dumps(asdict(each)))
            path.with_suffix(".new").rename(path)

    def build(self, build: Callable) -> Callable:
        """`build` as a function that also makes the worker's process look at the orders."""
        folder, run_dir, size = str(self.folder), None if self.run_dir is None else str(self.run_dir), self.size

        def build_model():
            install(folder, run_dir, size)
            return build()

        return build_model

    def fired(self) -> list[dict]:
        """What has happened so far, in order of the orders."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.fired"))]

    def check(self) -> None:
        """All orders were carried out, and who was killed is dead."""
        orders = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        missing = [each for number, each in enumerate(orders) if not (self.folder / f"{number:03}.fired").exists()]
        assert not missing, f"these faults did not happen: {missing}; these did: {self.fired()}"
        killed = [each["pid"] for each in self.fired() if each["action"] in LETHAL[1:]]
        assert_gone(killed)


def assert_gone(pids) -> None:
    """These processes have ended, or do soon."""
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(alive, timeout=GONE_S)
    alive = [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not alive, f"processes still run: {alive}"


class _Installed:
    """What this process looks at."""

    key: tuple | None = None
    remove: Callable[[], None] | None = None
    reached: Callable[[str, int | None], None] | None = None


def install(folder: str, run_dir: str | None, size: int) -> None:
    """Look at the orders in a folder from now on, in a worker's own process."""
    worker = int(threading.current_thread().name.removeprefix(WORKER_THREAD))
    if _Installed.key == (folder, worker):
        return
    uninstall()
    _Installed.key = folder, worker
    _Installed.reached = Watcher(Path(folder), None if run_dir is None else Path(run_dir), size, worker)
    _Installed.remove = instruments.listen(_Installed.reached)


def uninstall() -> None:
    """Look at no orders any more."""
    if _Installed.remove is not None:
        _Installed.remove()
    _Installed.key = _Installed.remove = _Installed.reached = None


def in_process(faults: Faults) -> Callable[[], None]:
    """Look at the orders from this process, whose threads are the workers; returns a function that ends that."""
    watcher = Watcher(faults.folder, faults.run_dir, faults.size, None)
    _Installed.reached = watcher
    stop = instruments.listen(watcher)

    def end() -> None:
        _Installed.reached = None
        stop()

    return end


class Watcher:
    """Carries out orders where they say; `worker` None for a process whose threads are workers."""

    def __init__(self, folder: Path, run_dir: Path | None, size: int, worker: int | None) -> None:
        self._folder, self._size, self._worker = folder, size, worker
        self._events = None if run_dir is None else run_dir / "events.jsonl"
        self._orders: list[Order] = []
        self._fired: set[int] = set()
        self._read: tuple[int, list[list[int]]] = (-1, [])
        self._formed_s = 0.0
        self._phases = PhaseOfStep()

    def __call__(self, point: str, step: int | None) -> None:
        """This worker is at a point."""
        _, phase = self._phases.reached(point, step)
        self._look()
        pending = [(number, each) for number, each in enumerate(self._orders) if number not in self._fired]
        if point == "compute" and (self._folder / "slow").exists():
            time.sleep(PACE_S / 4)
        if not pending:
            return
        generations = self._generations()
        worker = self._me(generations)
        if worker is None:
            return
        wave, complete = pending[0][1].wave, self._complete(generations)
        for number, order in pending:
            ready = order.wave == wave and (
                all(each in self._fired for each in range(number))
                if order.at_once
                else complete or self._events is None
            )
            is_there = order.point == point and order.step in (None, step) and order.phase in (None, phase)
            fits = is_there and _is(order.who, worker, generations)
            if ready and fits and self._claim(number, order, worker, step):
                _act(order)
                return
        if point == "compute" and not complete and self._events is not None:
            time.sleep(PACE_S)

    def _look(self) -> None:
        while (path := self._folder / f"{len(self._orders):03}.json").exists():
            self._orders.append(Order(**json.loads(path.read_text())))
        for number in range(len(self._orders)):
            if number not in self._fired and (self._folder / f"{number:03}.fired").exists():
                self._fired.add(number)

    def _complete(self, generations: list[list[int]]) -> bool:
        """Whether the group is complete, and has been formed after the last death that was ordered."""
        if not generations or len(generations[-1]) != self._size:
            return False
        deaths = [number for number in self._fired if self._orders[number].action in LETHAL]
        return all(self._formed_s > (self._folder / f"{n:03}.fired").stat().st_mtime for n in deaths)

    def _generations(self) -> list[list[int]]:
        """The groups so far, each in order of rank."""
        if self._events is None or not self._events.exists():
            return []
        size = self._events.stat().st_size
        if size != self._read[0]:
            lines = [line for line in self._events.read_text().splitlines(keepends=True) if line.endswith("\n")]
            formed = [each for each in map(json.loads, lines) if each["event"] == "formed"]
            self._read = size, [each["workers"] for each in formed]
            self._formed_s = formed[-1]["time"] if formed else 0.0
        return self._read[1]

    def _me(self, generations: list[list[int]]) -> int | None:
        name = threading.current_thread().name
        if name.startswith(WORKER_THREAD):
            return int(name.removeprefix(WORKER_THREAD))
        if self._worker is None and name == CHECKPOINT_THREAD:
            return generations[-1][0] if generations else None
        return self._worker

    def _claim(self, number: int, order: Order, worker: int, step: int | None) -> bool:
        try:
            file = os.open(self._folder / f"{number:03}.fired", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        note = {"time": time.time(), "pid": os.getpid(), "worker": worker, "at": step, **asdict(order)}
        os.write(file, json.dumps(note).encode())
        os.close(file)
        self._fired.add(number)
        return True


def _is(who: int | str, worker: int, generations: list[list[int]]) -> bool:
    if who == "any" or who == worker:
        return True
    if not generations or isinstance(who, int):
        return False
    if who == "new":
        return worker not in generations[0]
    return worker in generations[-1] and (worker == generations[-1][0]) == (who == "chief")


def _act(order: Order) -> None:
    if order.action == "raise":
        raise WorkerKilled(f"test: {order}")
    if order.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order.action == "abort":
        os.abort()
    elif order.action == "pause":
        subprocess.Popen(["sh", "-c", f"sleep {STOPPED_S}; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    elif order.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif order.action == "gil":
        ctypes.PyDLL(None).sleep(600)
    elif order.action == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    elif order.action == "room":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    else:
        raise ValueError(f"no action {order.action}")


def reached(point: str, step: int | None = None) -> None:
    """A point that is no part of Heliostat, such as a user's callback."""
    if _Installed.reached is not None:
        _Installed.reached(point, step)


def rows_of(result) -> list[list[list[int]]]:
    """Rows of every committed step of every epoch, whoever computed them."""
    return [[sorted(row for worker in step for row in worker) for step in epoch.row_ids] for epoch in result.epochs]


def outcome(result) -> dict:
    """What a failure must not change."""
    return {**result.sha256, "history": json.dumps(result.history, sort_keys=True), "rows": rows_of(result)}


def events_of(run_dir: Path, name: str) -> list[dict]:
    """The run's events of one kind."""
    events = [json.loads(line) for line in Path(run_dir, "events.jsonl").read_text().splitlines()]
    return [each for each in events if each["event"] == name]


def each_row_once(rows: list[list[list[int]]], num_rows: int) -> None:
    """Every epoch has every row exactly once."""
    for epoch in rows:
        assert sorted(row for step in epoch for row in step) == list(range(num_rows))
