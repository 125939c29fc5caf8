"""Lets a worker's process write down when it reaches which point of a step, and what the parts of a step took."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import run  # type: ignore[import-not-found]


def build_instrumented(build_model: Callable[[], Any], folder: str) -> Any:
    """Build the model in a worker, and begin to write points of its steps into a file in `folder`."""
    from heliostat.cluster import instruments
    from heliostat.cluster.allreduce.mesh import TcpMesh
    from heliostat.trainer.engine.step import Step
    from heliostat.trainer.worker import session
    from heliostat.trainer.worker.saver import Saver

    name = threading.current_thread().name
    worker = int(name.removeprefix("heliostat-worker-"))
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

    compute, summed = Step._compute, Step.summed

    def counted_compute(self: Any, phase: Any, step: int, lo: int, hi: int) -> None:
        note("computed", step=_current["step"], num=hi - lo)
        began = time.perf_counter()
        compute(self, phase, step, lo, hi)
        inner["compute"] += time.perf_counter() - began

    def timed_sum(self: Any, phase: Any, step: int) -> Any:
        group = self._member
        _current["step"], _current["num"] = group.step, sum(self.plan.present(step))
        inner["reduce"] = inner["compute"] = inner["noted"] = 0.0
        generation, began = group.generation, time.perf_counter()
        result = summed(self, phase, step)
        outer = time.perf_counter() - began
        if group.generation == generation and group.num_workers > 1:
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
        (Step, "_compute", counted_compute),
        (Step, "summed", timed_sum),
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


def read_points(folder: Path) -> list[run.Found]:
    """What all workers have written down; a line that a kill cut short is left out."""
    return [point for path in sorted(folder.glob("*.jsonl")) for point in run.lines(path)]
