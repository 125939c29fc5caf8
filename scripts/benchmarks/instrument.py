"""Lets a worker's process write down when it reaches which point of a step, and what the parts of a step took."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def build_instrumented(build_model: Callable[[], Any], folder: str) -> Any:
    """Build the model in a worker, and begin to write points of its steps into a file in `folder`."""
    from heliostat.cluster import instruments
    from heliostat.cluster.allreduce.mesh import TcpMesh
    from heliostat.cluster.group.member import Member
    from heliostat.trainer.engine.engine import StepWork
    from heliostat.trainer.session import session
    from heliostat.trainer.session.saver import Saver

    name = threading.current_thread().name
    worker = int(name.removeprefix("heliostat-worker-").split("_")[0])
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = (Path(folder) / f"worker-{worker}.jsonl").open("a", buffering=1)
    inner = {"reduce": 0.0, "compute": 0.0, "snapshot": 0.0, "noted": 0.0}

    def note(point: str, **values: Any) -> None:
        began = time.perf_counter()
        file.write(
            json.dumps({"worker": worker, "pid": os.getpid(), "time": time.time(), "point": point, **values}) + "\n"
        )
        inner["noted"] += time.perf_counter() - began

    def timed(part: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inner[part] += time.perf_counter() - began

        return call

    compute = StepWork.compute

    def counted_compute(self: Any, ranges: Any) -> None:
        missing = [each for each in ranges if each not in self.held]
        note("computed", step=_step(self), num=sum(hi - lo for lo, hi in missing))
        began = time.perf_counter()
        compute(self, ranges)
        inner["compute"] += time.perf_counter() - began

    all_reduce = Member.all_reduce

    def timed_all_reduce(self: Any, work: Any, present: Any, *rest: Any) -> Any:
        _current["step"], _current["num"] = self.step, sum(present)
        inner["reduce"] = inner["compute"] = inner["noted"] = 0.0
        generation, began = self.generation, time.perf_counter()
        result = all_reduce(self, work, present, *rest)
        outer = time.perf_counter() - began
        if self.generation == generation and self.num_workers > 1:
            note("cost", outer_s=outer, inner_s=inner["reduce"] + inner["compute"] + inner["noted"])
        return result

    save = Saver.save

    def timed_save(self: Any, position: int) -> None:
        inner["snapshot"] = 0.0
        began = time.perf_counter()
        save(self, position)
        if inner["snapshot"]:
            note("checkpoint", outer_s=time.perf_counter() - began, inner_s=inner["snapshot"])

    replaced: list[tuple[Any, str, Any]] = [
        (StepWork, "compute", counted_compute),
        (Member, "all_reduce", timed_all_reduce),
        (Saver, "save", timed_save),
        (TcpMesh, "all_reduce", timed("reduce", TcpMesh.all_reduce)),
        (session, "make_snapshot", timed("snapshot", vars(session)["make_snapshot"])),
    ]
    for owner, attribute, function in replaced:
        setattr(owner, attribute, function)

    def on_point(point: str, step: int | None) -> None:
        if point in ("applied", "regroup", "join"):
            note(point, step=step, num=_current["num"])

    instruments.listen(on_point)
    return build_model()


_current: dict[str, Any] = {"step": None, "num": 0}


def _step(_work: Any) -> Any:
    return _current["step"]


def read_points(folder: Path) -> list[dict[str, Any]]:
    """What all workers have written down; a line that a kill cut short is left out."""
    points = []
    for path in sorted(folder.glob("*.jsonl")):
        points += [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return points
