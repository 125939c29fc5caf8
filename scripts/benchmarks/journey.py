"""The journey of one step through the code: which files and functions of ours a steady step enters on one worker.

    python scripts/benchmarks/journey.py [--loop fit] [--calls]

Two workers as threads of this process, joined by real sockets; the worker that is not the chief is watched with
`sys.setprofile` from the end of one step to the end of the next, in the middle of an epoch. Printed are the files of
trainer/, cluster/ and data/ that it enters, the calls from trainer/ into cluster/ and back, and how often each is made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
from heliostat.cluster import instruments
from heliostat.trainer import Trainer
from heliostat.trainer.config import LOOP_NAMES

WATCHED_STEP = 4
Place = tuple[str, str]  # file below the package, name of the function


class Journey:
    """What one thread called in one step.

    Attributes:
        entered: calls into functions of ours.
        crossings: calls of trainer's functions to cluster's, and the other way round, by (caller, called).
    """

    def __init__(self) -> None:
        self.entered: Counter[Place] = Counter()
        self.crossings: Counter[tuple[Place, Place]] = Counter()
        self.over = False

    def on_point(self, point: str, step: int | None) -> None:
        """Begin and end at the worker's fault points."""
        if point != "applied" or self.over or _worker() == "0":
            return
        if step == WATCHED_STEP:
            sys.setprofile(self._on_call)
        elif step == WATCHED_STEP + 1:
            sys.setprofile(None)
            self.over = True

    def _on_call(self, frame: FrameType, event: str, _: Any) -> None:
        here = _place(frame)
        if event != "call" or here is None or self.over:
            return
        self.entered[here] += 1
        caller = frame.f_back
        while caller is not None and _place(caller) is None:
            caller = caller.f_back
        there = None if caller is None else _place(caller)
        folders = {} if there is None else {here[0].split("/")[0], there[0].split("/")[0]}
        if there is not None and folders == {"trainer", "cluster"}:
            self.crossings[there, here] += 1


def _worker() -> str:
    """The number in the name of a worker's thread."""
    return threading.current_thread().name.removeprefix("heliostat-worker-")


def _place(frame: FrameType) -> Place | None:
    """The file and function of a frame, if it is ours; comprehensions belong to the function they are in."""
    module = frame.f_globals.get("__name__", "")
    name = frame.f_code.co_name
    if not module.startswith(("heliostat.trainer", "heliostat.cluster", "heliostat.data")) or name.startswith("<"):
        return None
    return module.removeprefix("heliostat.").replace(".", "/"), frame.f_code.co_qualname


def journey(loop: Any) -> Journey:
    """Watch one step of a run; raises RuntimeError if the run had none to watch."""

    def build() -> keras.Model:
        model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(5)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    watched = Journey()
    stop: Callable[[], None] = instruments.listen(watched.on_point)
    rng = np.random.default_rng(0)
    try:
        with tempfile.TemporaryDirectory(prefix="heliostat-journey-") as folder:
            with Trainer(build, workers=2, in_process=True, run_dir=Path(folder, "run")) as trainer:
                x, y = rng.normal(size=(320, 12)).astype(np.float32), rng.integers(0, 5, 320)
                trainer.fit((x, y), loop=loop, global_batch_size=32, checkpoint_every=None, verbose=0)
    finally:
        stop()
    if not watched.over:
        raise RuntimeError("no step was watched")
    return watched


def main() -> None:
    """Print the journey."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--loop", choices=LOOP_NAMES, default="fit")
    parser.add_argument("--calls", action="store_true", help="print every function, not the files alone")
    wanted = parser.parse_args()
    watched = journey(wanted.loop)
    by_file: Counter[str] = Counter()
    for (file, _), count in watched.entered.items():
        by_file[file] += count
    for folder in ("trainer", "cluster", "data"):
        files = {file: count for file, count in by_file.items() if file.split("/")[0] == folder}
        print(f"{folder}: {len(files)} files, {sum(files.values())} calls")
        for file, count in sorted(files.items()):
            print(f"  {file} {count}")
            for (where, function), number in sorted(watched.entered.items()):
                if wanted.calls and where == file:
                    print(f"      {function} {number}")
    for first, second in (("trainer", "cluster"), ("cluster", "trainer")):
        found = {pair: n for pair, n in watched.crossings.items() if pair[0][0].startswith(first)}
        print(f"{first} calls {second}: {sum(found.values())} calls, {len(found)} pairs of functions")
        for ((_, caller), (file, called)), number in sorted(found.items()):
            print(f"  {caller} -> {file}: {called} {number}")


if __name__ == "__main__":
    main()
