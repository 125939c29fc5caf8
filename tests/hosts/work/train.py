"""A user's script: one model, trained on one or several forms of the same data; prints what came out as JSON."""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import keras
import mylayers
import numpy as np
from heliostat.data import open_dataset
from heliostat.trainer import Trainer

BATCH = 32
GATE = Path("/tmp/gate")  # on whatever machine the chief is


class Odd(Exception):
    """An error of the user's that no pickle can carry."""

    def __init__(self, lock):
        super().__init__("the user's own trouble")
        self.lock = lock


def build_model():
    print("a word of the user's model")
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="tanh"), mylayers.Scaled(), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Pace(keras.callbacks.Callback):
    """Makes every step slow, until the gate of the chief's machine is open."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        until = time.monotonic() + self.seconds
        while not GATE.exists() and time.monotonic() < until:
            time.sleep(0.05)


class Gate(keras.callbacks.Callback):
    """Waits in the middle of an epoch, on whatever machine the chief is, until that machine's gate is open."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch
        self.now = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.now == self.epoch and batch == 5:
            print("at the gate")
            while not GATE.exists():
                time.sleep(0.05)


class Diary(keras.callbacks.Callback):
    """A user's own file: a line per epoch, in the run folder."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a") as file:
            file.write(f"{epoch} {logs['loss']!r}\n")
        print(f"the diary has epoch {epoch}")


class Trouble(keras.callbacks.Callback):
    """Raises in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise Odd(mylayers.LOCK)


def needy():
    import onlyhere  # a module that is not beside the script

    return onlyhere.model(build_model())


def callbacks_of(run_dir):
    """Callbacks that write into the run folder, in which they work: a relative path begins there."""
    run_dir = run_dir if run_dir.is_absolute() else Path()
    return [
        keras.callbacks.ModelCheckpoint(run_dir / "best.keras", monitor="loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(str(run_dir / "epoch-{epoch}.weights.h5"), save_weights_only=True),
        keras.callbacks.CSVLogger(str(run_dir / "log.csv")),
        keras.callbacks.TensorBoard(str(run_dir / "board")),
        Diary(str(run_dir / "diary.txt")),
    ]


def data_of(kind, folder):
    if kind in ("arrays", "stream"):
        with np.load(folder / "arrays.npz") as file:
            x, y = file["x"], file["y"]
        return (
            (x, y) if kind == "arrays" else lambda: ((x[at : at + 50], y[at : at + 50]) for at in range(0, len(x), 50))
        )
    if kind == "view":
        return open_dataset(folder / "larger").take(len(open_dataset(folder / "stored"))).map(mylayers.same)
    return folder / kind


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("/tmp/data"))
    parser.add_argument("--kinds", nargs="+", default=["stored"])
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--min-workers", type=int)
    parser.add_argument("--max-workers", type=int)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--microbatches", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--address")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--gate", type=int, help="the epoch that waits for the gate")
    parser.add_argument("--pace", type=float, help="seconds of a step while the gate is shut")
    parser.add_argument("--files", action="store_true", help="callbacks that write files")
    parser.add_argument("--trouble", action="store_true", help="a callback that raises")
    parser.add_argument("--needy", action="store_true", help="a model that needs a module of this machine")
    parser.add_argument("--fits", type=int, default=1, help="so many of each kind, one after the other")
    parser.add_argument("--passes", action="store_true", help="evaluate and predict behind each fit")
    parser.add_argument("--start-timeout", type=float, default=float(os.environ.get("START_TIMEOUT_S", "300")))
    options = parser.parse_args()
    found = {}
    with Trainer(
        needy if options.needy else build_model,
        workers=options.workers,
        min_workers=options.min_workers,
        max_workers=options.max_workers,
        replicas_per_worker=options.replicas,
        num_microbatches=options.microbatches,
        threads_per_worker=1,
        device=options.device,
        address=options.address,
        run_dir=options.run_dir,
        seed=7,
        start_timeout_s=options.start_timeout,
    ) as trainer:
        for kind in options.kinds:
            callbacks = [] if options.gate is None else [Gate(options.gate)]
            callbacks += [] if options.pace is None else [Pace(options.pace)]
            callbacks += [Trouble()] if options.trouble else []
            for number in range(options.fits):
                result = trainer.fit(
                    data_of(kind, options.data),
                    validation_data=options.data / "valid",
                    epochs=options.epochs,
                    global_batch_size=BATCH,
                    initial_weights="new" if number == 0 and kind != options.kinds[0] else None,
                    callbacks=callbacks + (callbacks_of(options.run_dir) if options.files else []),
                )
            found[kind] = {"sha256": result.sha256, "history": result.history}
            if options.passes:
                scores = np.asarray(trainer.predict(options.data / "valid"))
                passes = {"evaluate": trainer.evaluate(options.data / "valid")}
                found[kind] |= passes | {"predict": hashlib.sha256(scores.tobytes()).hexdigest()}
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main()
