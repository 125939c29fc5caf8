"""What a cluster costs in which only the driver's machine has the data and the run folder. Needs root.

    python scripts/benchmarks/reach.py [--megabytes 1000] [--state 1000] [--only data state shared]

Three machines as network namespaces (those of `tests/hosts`), no worker on the driver's, object stores of 1.5 GB:

data    so many megabytes on the driver's disk, trained on for two epochs by two machines: bytes out of the driver's
        machine on the bridge, over machines * size (wanted: 1.1 at most); the most that shared memory held on any
        machine (wanted: 300 MB), and what Ray spilled (nothing).
state   one checkpoint of so many megabytes travels to the driver's disk in the middle of a run of short steps: steps
        per second before and after it was begun, p99 and the longest step.
shared  the same with the run folder on a disk that all machines have.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
import run  # type: ignore[import-not-found] # noqa: E402

from tests.hosts.machines import HEAD, Machines, why_not  # noqa: E402

NODES, HELPERS, STEPS, BATCH, WIDTH = "abc", 2, 400, 64, 1024
PIECE_ROWS = 1000
STORE_BYTES, LIMIT_S, EVERY_S = 1_500_000_000, 1200, 0.1


class Memory(threading.Thread):
    """The most that shared memory has held on each machine, looked at ten times a second."""

    def __init__(self, machines: Machines) -> None:
        super().__init__(daemon=True)
        self._machines, self._over = machines, threading.Event()
        self.most: dict[str, int] = dict.fromkeys(NODES, 0)

    def run(self) -> None:
        while not self._over.wait(EVERY_S):
            for name in NODES:
                self.most[name] = max(self.most[name], self._machines.num_memory_bytes(name))

    def end(self) -> dict[str, float]:
        """Megabytes by machine."""
        self._over.set()
        self.join()
        return {name: round(size / 1e6, 1) for name, size in self.most.items()}


def started(folder: Path, shared: Path | None = None) -> Machines:
    """Machines whose head has no CPU for workers."""
    return Machines(folder, NODES, head_cpus=0, store_bytes=STORE_BYTES, shared=shared)


def write_rows(path: Path, num_rows: int) -> None:
    """Rows of 4 KB, written piece by piece."""
    from heliostat.data import DatasetWriter

    numbers = np.random.default_rng(1)
    with DatasetWriter(path) as writer:
        for start in range(0, num_rows, PIECE_ROWS):
            rows = min(PIECE_ROWS, num_rows - start)
            writer.write({"x": numbers.normal(size=(rows, WIDTH)).astype("float32"), "y": np.zeros(rows, "float32")})


def train(machines: Machines, mode: str, run_dir: str, megabytes: int) -> str:
    """One run from the head; what it printed."""
    numbers = map(str, (STEPS, BATCH, megabytes))
    running = machines.python(HEAD, "reach_process.py", mode, "/tmp/data", run_dir, *numbers)
    if running.wait(LIMIT_S) or "ENDED" not in running.text:
        raise SystemExit(f"the run failed:\n{running.text[-3000:]}")
    return running.text


def spilled(machines: Machines) -> list[str]:
    """What Ray has put on disks for want of memory."""
    return [str(path) for name in NODES for path in machines.disk(name).glob("ray/session_2*/*spill*/*")]


def data_of(folder: Path, megabytes: int) -> run.Found:
    """Two epochs on the driver's data."""
    with started(folder / "data") as machines:
        machines.put(HEAD, HERE / "reach_process.py")
        write_rows(machines.disk(HEAD) / "data", megabytes * 1_000_000 // (4 * WIDTH))
        size = sum(path.stat().st_size for path in (machines.disk(HEAD) / "data").iterdir())
        before, memory = machines.num_sent_bytes(HEAD), Memory(machines)
        memory.start()
        train(machines, "data", "/tmp/run", megabytes)
        sent = machines.num_sent_bytes(HEAD) - before
        return {
            "what": "data",
            "megabytes": size / 1e6,
            "sent_megabytes": sent / 1e6,
            "ratio": sent / (HELPERS * size),
            "shared_memory_mb": memory.end(),
            "spilled": spilled(machines),
        }


def state_of(folder: Path, megabytes: int, shared: bool) -> run.Found:
    """Steps beside a checkpoint that is written."""
    common = folder / "common"
    common.mkdir(exist_ok=True)
    with started(folder / "state", common if shared else None) as machines:
        machines.put(HEAD, HERE / "reach_process.py")
        write_rows(machines.disk(HEAD) / "data", STEPS * BATCH)
        memory = Memory(machines)
        memory.start()
        run_dir = "/mnt/run" if shared else "/tmp/run"
        text = train(machines, "state", run_dir, megabytes)
        here = common / "run" if shared else machines.disk(HEAD) / "run"
        events = [each for each in run.lines(here / "events.jsonl") if each["event"] == "checkpoint"]
        times = next(json.loads(line.split(" ", 1)[1]) for line in text.splitlines() if line.startswith("TIMES "))
        return {
            "what": "shared" if shared else "state",
            "megabytes": megabytes,
            "shared_memory_mb": memory.end(),
        } | pace(times, events[0]["time"])


def pace(times: list[float], committed_s: float) -> run.Found:
    """Steps before the checkpoint, and while it travels: from half of the steps to its commit."""
    middle = times[len(times) // 2 - 1]
    alone = [after - before for before, after in pairwise(times) if after <= middle]
    beside = [after - before for before, after in pairwise(times) if before >= middle and after <= committed_s]

    def told(steps: list[float], name: str) -> run.Found:
        if not steps:
            return {f"{name}_steps": 0}
        p99 = float(np.quantile(steps, 0.99))
        found = {"steps": len(steps), "per_s": len(steps) / sum(steps), "p99_ms": 1000 * p99}
        return {f"{name}_{key}": value for key, value in (found | {"longest_ms": 1000 * max(steps)}).items()}

    return {"travel_s": committed_s - middle, **told(alone[5:], "alone"), **told(beside, "beside")}


def main() -> None:
    parser = run.parser_of(__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of data")
    parser.add_argument("--state", type=int, default=1000, help="megabytes of the checkpoint")
    parser.add_argument("--only", nargs="+", choices=["data", "state", "shared"], default=["data", "state", "shared"])
    chosen = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"This machine cannot have others in it: {reason}")
    rows: list[run.Found] = []
    with tempfile.TemporaryDirectory(prefix="heliostat-reach-") as name:
        for what in chosen.only:
            found = (
                data_of(Path(name), chosen.megabytes)
                if what == "data"
                else state_of(Path(name), chosen.state, what == "shared")
            )
            rows.append(found)
            run.finish(chosen, "reach", {"rows": rows})


if __name__ == "__main__":
    main()
