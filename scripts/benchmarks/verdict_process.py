"""The runs of one case of `verdict.py`, one after another in a process of its own, and the verdict on the first.

The workers are threads of this process. Their device is simulated: besides what a small model really computes, each
microbatch takes so many seconds per row, asleep, so that what else the machine does hardly counts. What slows a run is
planted the same way (rows that take long to come, a worker that is slower, a callback, the copy of the state), or is
real: small batches, and a network of a limited rate, for which this process runs in a network namespace of its own and
its workers are to each other as on different machines.

What is compared is run in turn: as planted, without each planted cause, and with what the verdict proposes where that
can be tried here. Printed are the verdict, and seconds per row after the first third of the epochs of every run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import run  # type: ignore[import-not-found]

if TYPE_CHECKING:
    import keras
    from heliostat.data import Dataset
    from heliostat.trainer.report.verdict import Verdict

NUM_PIXELS = 16
SLOW_WORKER = "heliostat-worker-1"
ITSELF, REMEDIED = "itself", "with the remedy"
LIMIT_S, LEAST_STEPS = 1800.0, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which a run trains.

    Attributes:
        rows: of the data.
        batch: of a step; likewise `microbatches`.
        row_s: seconds that the simulated device takes for a row; `slowness` times as long on worker 1.
        input_row_s: seconds that a row takes to come, in the whole batch or only in the half that worker 1 computes.
        hook: of the callback that takes `hook_s`; empty for none.
        copy_s: how long the simulated device takes to hand out its state for a checkpoint.
        save_every: steps from checkpoint to checkpoint; `save_every_s` the same in seconds; 0 for none.
        width: of the model's layers.
        rate: of the network, as ``tc`` takes it; empty for that of this machine.
    """

    workers: int = 2
    rows: int = 1024
    epochs: int = 4
    batch: int = 64
    microbatches: int = 8
    row_s: float = 0.008
    slowness: float = 1.0
    balance: bool = False
    input_row_s: float = 0.0
    input_of_one: bool = False
    is_cached: bool = False
    hook: str = ""
    hook_s: float = 0.0
    copy_s: float = 0.0
    save_every: int = 0
    save_every_s: float = 0.0
    width: int = 32
    rate: str = ""


# -- what is planted --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def simulated_device(given: Conditions) -> Iterator[None]:
    """In the block microbatches and copies of the state take as long as on the simulated device."""
    from heliostat.cluster import instruments
    from heliostat.trainer.worker import session

    rows, make_snapshot = given.batch / given.microbatches, session.make_snapshot

    def compute(point: str, step: int | None) -> None:
        if point == "microbatch":
            is_slow = threading.current_thread().name == SLOW_WORKER
            time.sleep(given.row_s * rows * (given.slowness if is_slow else 1.0))

    def copied(*state: Any, **more: Any) -> Any:  # what a snapshot is made of
        time.sleep(given.copy_s)
        return make_snapshot(*state, **more)

    ends = instruments.listen(compute)
    session.make_snapshot = copied
    try:
        yield
    finally:
        ends()
        session.make_snapshot = make_snapshot


def with_slow_rows(dataset: Dataset, given: Conditions, cache: Path) -> Dataset:
    """The dataset with rows that take long to come; with a cache of them if that is what is tried."""
    if not given.input_row_s:
        return dataset

    def load(rows: dict[str, Any]) -> Any:  # a column
        is_slow = rows["id"] % given.batch >= given.batch // 2 if given.input_of_one else rows["id"] >= 0
        time.sleep(given.input_row_s * int(is_slow.sum()))
        return rows["x"]

    found = dataset.map(load, ["x", "id"], "x", version="slow")
    return found.cache(cache) if given.is_cached else found


def callbacks_of(given: Conditions) -> list[keras.callbacks.Callback]:
    """A callback that takes long in one of its hooks."""
    import keras

    if not given.hook:
        return []

    def wait(self: object, number: int, logs: object = None) -> None:
        time.sleep(given.hook_s)

    return [type("Slow", (keras.callbacks.Callback,), {given.hook: wait})()]


def part_workers() -> None:
    """Let the workers of this process know no way to each other but the network, whose namespace is its own."""
    from heliostat.cluster.allreduce.listener import Listener

    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
    make: Callable[..., None] = Listener.__init__

    def init(self: Listener, *args: Any, **more: Any) -> None:  # those of Listener
        make(self, *args, **more)
        if self.local is not None:
            self.local.close()
            self.local = None

    Listener.__init__ = init  # type: ignore[method-assign]


@contextlib.contextmanager
def limited_network(rate: str) -> Iterator[None]:
    """Limit the loopback of this process's network namespace in the block; not at all for an empty rate."""
    if rate:
        shape = ["tbf", "rate", rate, "burst", "32kb", "latency", "400ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", *shape], check=True)
    yield
    if rate:
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


# -- the run ----------------------------------------------------------------------------------------------------------


def build_model(width: int) -> keras.Model:
    """Some dense layers."""
    import keras

    layers = keras.layers
    hidden = [layers.Dense(width, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((NUM_PIXELS,)), *hidden, layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def trained(given: Conditions) -> tuple[Verdict, float]:
    """Train: the verdict, and seconds per row."""
    from heliostat.data import open_dataset
    from heliostat.trainer import EverySeconds, EverySteps
    from heliostat.trainer.driver.run_folder import read_run
    from heliostat.trainer.report.verdict import verdict_of

    ids = np.arange(given.rows)
    columns = {"x": np.random.default_rng(0).random((given.rows, NUM_PIXELS), np.float32), "id": ids, "y": ids % 7.0}
    every = EverySteps(given.save_every) if given.save_every else None
    if given.save_every_s:
        every = EverySeconds(given.save_every_s)
    settings = {
        "workers": given.workers,
        "in_process": True,
        "num_microbatches": given.microbatches,
        "balance": given.balance,
    }
    with (
        simulated_device(given),
        limited_network(given.rate),
        run.training(partial(build_model, given.width), columns, **settings) as (trainer, data),
    ):
        result = trainer.fit(
            with_slow_rows(open_dataset(data), given, data.parent / "cache"),
            epochs=given.epochs,
            global_batch_size=given.batch,
            inputs="x",
            targets="y",
            shuffle=False,
            callbacks=callbacks_of(given),
            checkpoint_every=every,
            probe=False,
            verbose=0,
        )
        recorded = read_run(result.run_dir)
    settled, last = recorded.epochs[given.epochs // 3], recorded.epochs[-1]
    return verdict_of(recorded), (last.time - settled.time) / (given.rows * (last.epoch - settled.epoch))


def with_remedy(given: Conditions, verdict: Verdict) -> Conditions | None:
    """The run with what a verdict proposes; None where that cannot be tried here."""
    settings = verdict.settings
    if verdict.cause == "input":
        return replace(given, is_cached=True)
    if verdict.cause == "callbacks":
        return replace(given, hook="")
    if "global_batch_size" in settings:
        return replace(given, batch=settings["global_batch_size"])
    if "checkpoint_every" in settings:
        return replace(given, save_every=0, save_every_s=settings["checkpoint_every"]["EverySeconds"])
    if "balance" in settings:  # it looks at some dozen steps first
        return replace(given, balance=True, epochs=2 * given.epochs)
    return replace(given, workers=settings["workers"]) if "workers" in settings else None


def compared(planted: Conditions, without: Mapping[str, Conditions], rounds: int) -> run.Found:
    """The runs of a case, in turn."""
    trained(replace(planted, epochs=2, rows=LEAST_STEPS * planted.batch))  # all that is loaded once
    verdict, first_s = trained(planted)
    remedied = with_remedy(planted, verdict)
    runs = {ITSELF: planted, **without} | ({} if remedied is None else {REMEDIED: remedied})
    row_s: dict[str, list[float]] = {name: [] for name in runs}
    for number, order in enumerate(run.turns(list(runs), rounds)):
        for name in order:
            row_s[name].append(trained(runs[name])[1] if number or name != ITSELF else first_s)
    return {"verdict": verdict.to_json() | {"sentence": verdict.sentence}, "row_s": row_s}


def measured(planted: Conditions, without: Mapping[str, Conditions], rounds: int) -> run.Found:
    """See `compared`, in a process of its own."""
    wanted = {"planted": asdict(planted), "without": {name: asdict(each) for name, each in without.items()}}
    command = [sys.executable, str(Path(__file__)), json.dumps(wanted | {"rounds": rounds})]
    inside = ["unshare", "--net", *command] if planted.rate else command
    return run.together([inside], "row_s", json.dumps(wanted), limit_s=LIMIT_S)


def main() -> None:
    """The runs that the argument asks for."""
    wanted = json.loads(sys.argv[1])
    os.environ.update(run.QUIET)
    planted = Conditions(**wanted["planted"])
    if planted.rate:
        part_workers()
    without = {name: Conditions(**each) for name, each in wanted["without"].items()}
    print(json.dumps(compared(planted, without, wanted["rounds"])))


if __name__ == "__main__":
    main()
