"""Every callback of Keras, and how it is tried: what it leaves behind, beside history and weights."""

from __future__ import annotations

import csv
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks

from .against import Rows
from .recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A callback, made for a folder, and what it has left there: numbers by name."""

    make: Callable[[Path], keras.callbacks.Callback]
    left: Callable[[Path], dict[str, Any]] = lambda folder: {}


def _csv(folder: Path) -> dict[str, Any]:
    with (folder / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    return {
        f"line {at} {name}": np.asarray(float(value.replace("NA", "nan")))
        for at, line in enumerate(lines)
        for name, value in line.items()
    }


def _best(folder: Path) -> dict[str, Any]:
    model = keras.saving.load_model(folder / "best.keras")
    return {f"best {v.path}": np.asarray(v) for v in model.trainable_variables}


def _lines(folder: Path) -> dict[str, Any]:
    return {
        f"line {at}": np.asarray(json.loads(each)) for at, each in enumerate((folder / "lines").read_text().split())
    }


def _writes_lines(folder: Path) -> keras.callbacks.Callback:
    def write(epoch, logs):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lines").open("a") as file:
            file.write(json.dumps(float(logs["loss"])) + "\n")

    return callbacks.LambdaCallback(on_epoch_end=write)


def _events(folder: Path) -> dict[str, Any]:
    found = {}
    for file in sorted(folder.glob("board/**/*tfevents*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag.startswith("epoch_"):
                    found[f"{value.tag} {event.step}"] = np.asarray(tf.make_ndarray(value.tensor))
    return found


CALLBACKS: dict[str, Recipe] = {
    "BackupAndRestore": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.BackupAndRestore(folder / "backup")),
        verdict="refused",
        reason="`run_dir=`: runs go on by themselves ([stop and go on](../how-to/stop-and-go-on.md))",
    ),
    "CSVLogger": Recipe(make=lambda: Tried(make=lambda folder: callbacks.CSVLogger(folder / "log.csv"), left=_csv)),
    "Callback": Recipe(verdict="base", reason="the class that callbacks of one's own are made of"),
    "CallbackList": Recipe(verdict="base", reason="a container"),
    "EarlyStopping": Recipe(make=lambda: Tried(make=lambda folder: callbacks.EarlyStopping("loss", 0.05, patience=1))),
    "History": Recipe(make=lambda: Tried(make=lambda folder: callbacks.History())),
    "LambdaCallback": Recipe(make=lambda: Tried(make=_writes_lines, left=_lines)),
    "LearningRateScheduler": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7))
    ),
    "ModelCheckpoint": Recipe(
        make=lambda: Tried(
            make=lambda folder: callbacks.ModelCheckpoint(folder / "best.keras", "loss", save_best_only=True),
            left=_best,
        )
    ),
    "OrbaxCheckpoint": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.OrbaxCheckpoint.__new__(callbacks.OrbaxCheckpoint)),
        verdict="refused",
        reason="its distributed mode is JAX's; `ModelCheckpoint`, or the run's checkpoints",
    ),
    "ProgbarLogger": Recipe(make=lambda: Tried(make=lambda folder: callbacks.ProgbarLogger())),
    "ReduceLROnPlateau": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=0.05))
    ),
    "RemoteMonitor": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.RemoteMonitor((folder / "address").read_text()), left=_posted)
    ),
    "SwapEMAWeights": Recipe(verdict="base", reason="needs an optimizer with `use_ema`: equal, by a test of its own"),
    "TensorBoard": Recipe(
        make=lambda: Tried(make=lambda folder: callbacks.TensorBoard(folder / "board"), left=_events)
    ),
    "TerminateOnNaN": Recipe(make=lambda: Tried(make=lambda folder: callbacks.TerminateOnNaN())),
}
"""The classes, by name."""


def _posted(folder: Path) -> dict[str, Any]:
    lines = (folder / "posted").read_text().splitlines()
    return {
        f"posted {at} {name}": np.asarray(value)
        for at, line in enumerate(lines)
        for name, value in json.loads(line).items()
    }


@contextmanager
def monitor(folder: Path) -> Iterator[None]:
    """A server for `RemoteMonitor`, whose address stands in the folder; what is posted is written beside it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with (folder / "posted").open("a") as file:
                file.write(parse_qs(body)["data"][0] + "\n")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    folder.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (folder / "address").write_text(f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def rows(count: int = 28) -> Rows:
    """Inputs and a number for each."""
    x = np.random.default_rng(0).normal(size=(count, 6))
    return Rows(x=x, y=np.tanh(x.sum(1, keepdims=True)))


def build() -> keras.Model:
    """A small model whose loss falls and then stands."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model
