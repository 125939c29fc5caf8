"""Machines that are taken away: the run stops with a checkpoint, and the same command goes on, with the same result.

    python scripts/examples/spot_machines.py       # Ctrl-C or kill it in the middle, and run it again

A worker that is lost is replaced while the others go on. When the machine of this script gets notice (SIGTERM), the
step is finished, a checkpoint written, and the script ends with status 75, "try again". After a `kill -9` the run goes
on from the last checkpoint, here one of every two seconds. Let `run_dir` lie on a disk that outlives the machine.
"""

import keras
import numpy as np
from heliostat.trainer import EverySeconds, Trainer

rng = np.random.default_rng(0)
x = rng.normal(size=(20_000, 16)).astype("float32")
y = np.tanh(x[:, :8] * x[:, 8:]).sum(axis=1)


def build_model():
    layers = [keras.layers.Dense(128, activation="tanh") for _ in range(3)]
    model = keras.Sequential([keras.Input((16,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


trainer = Trainer(build_model, workers=2, run_dir="runs/spot")
history = trainer.fit(x, y, batch_size=100, epochs=15, validation_split=0.1, checkpoint_every=EverySeconds(2))
print("validation error by epoch:", [round(float(value), 3) for value in history.history["val_mae"]])
