"""Runs that are disturbed: a run whose workers are killed while it trains, and what its folder tells of that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models  # type: ignore[import-not-found]
import run  # type: ignore[import-not-found]

if TYPE_CHECKING:
    import keras
    from heliostat.trainer import Trainer

Events = Sequence[run.Found]
LIMIT_S, LOOK_S = 120.0, 0.1


@dataclass(frozen=True, slots=True)
class Kill:
    """When, which workers, by which signal, and whether the chief was among them."""

    time: float
    workers: tuple[int, ...]
    signal: str = "SIGKILL"
    of_chief: bool = False


@contextlib.contextmanager
def disturbed(
    model: str, disturb: Callable[[Trainer, Path, Path], None], *, workers: int, **fit: Any
) -> Iterator[tuple[Path, Path]]:
    """A run that `disturb` disturbs from a thread of its own; when that returns, the run is paused.

    Args:
        model: its name in `models`.
        disturb: gets the trainer, the run folder and the folder of notes; what it raises is raised here.
        workers: how many.
        fit: further arguments of `fit`.

    Yields:
        The run folder and the folder of notes.
    """
    from heliostat.trainer import RunPausedError

    x, y = models.make_data(model)
    failures: list[Exception] = []
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        notes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-notes-")))
        building = partial(build_noting, partial(models.build_model, model), str(notes))
        trainer, data = stack.enter_context(run.training(building, {"x": x, "y": y}, workers=workers))
        trainer.measure_links()  # starts the workers

        def in_thread() -> None:
            try:
                disturb(trainer, data.parent / "run", notes)
            except Exception as error:
                failures.append(error)
            finally:
                if not over.is_set():  # else nobody listens to it
                    os.kill(os.getpid(), signal.SIGTERM)  # pauses the run

        thread = threading.Thread(target=in_thread, daemon=True)
        thread.start()
        batch_size = models.WORKLOADS[model].global_batch_size
        try:
            trainer.fit(data, epochs=run.ENDLESS_EPOCHS, global_batch_size=batch_size, verbose=0, **fit)
        except RunPausedError:
            thread.join()
        finally:
            over.set()
        if failures:
            raise failures[0]
        yield data.parent / "run", notes


def build_noting(build_model: Callable[[], keras.Model], folder: str) -> keras.Model:
    """Build the model in a worker, and begin to write down when microbatches begin and when steps are applied."""
    from heliostat.cluster import instruments

    worker = int(threading.current_thread().name.removeprefix("heliostat-worker-"))
    file = (Path(folder) / f"{worker}.jsonl").open("a", buffering=1)
    steps: list[int | None] = [None]

    def note(point: str, step: int | None) -> None:
        if point == "compute":
            steps[0] = step
        if point in ("microbatch", "applied"):
            at = steps[0] if step is None else step
            file.write(json.dumps({"time": time.time(), "worker": worker, "point": point, "step": at}) + "\n")

    instruments.listen(note)
    return build_model()


def noted(folder: Path, point: str) -> list[run.Found]:
    """What all workers have written down of a point so far, in order of time."""
    found = [note for path in folder.glob("*.jsonl") for note in run.lines(path) if note["point"] == point]
    return sorted(found, key=lambda note: note["time"])


def kill(trainer: Trainer, workers: Sequence[int], fault: signal.Signals, *, chief: int) -> Kill:
    """Send a signal to the processes of workers."""
    pids = [trainer._runs.workers.infos[worker].pid for worker in workers]
    done = Kill(time.time(), tuple(workers), fault.name, chief in workers)
    for pid in pids:
        os.kill(pid, fault)
    return done


def events_of(run_dir: Path) -> list[run.Found]:
    """The run's events so far."""
    return list(run.lines(run_dir / "events.jsonl"))


def formed_in(events: Events) -> list[run.Found]:
    """The generations of the group."""
    return [event for event in events if event["event"] == "formed"]


def lost_in(events: Events) -> set[int]:
    """Workers that were lost."""
    return {event["worker"] for event in events if event["event"] == "lost"}


def members(events: Events, kills: Sequence[Kill]) -> list[int]:
    """Who is in the group by rank, as far as it is written down, and has not been killed."""
    gone = lost_in(events).union(*(each.workers for each in kills))
    formed = formed_in(events)
    return [worker for worker in formed[-1]["workers"] if worker not in gone] if formed else []


def wait_until(true: Callable[[], bool], what: str, look_s: float = LOOK_S) -> None:
    """Look until it is true; raises BenchmarkError after two minutes."""
    until_s = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > until_s:
            raise run.BenchmarkError(f"{what} within {LIMIT_S:.0f} s")
        time.sleep(look_s)
