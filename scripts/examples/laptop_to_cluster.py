"""One script for a laptop and for a cluster: nothing in it changes, and neither does the result.

    python laptop_to_cluster.py                                                         # two workers, here
    HELIOSTAT_WORKERS=8 HELIOSTAT_ADDRESS=auto python laptop_to_cluster.py              # on a machine of a Ray cluster
    HELIOSTAT_WORKERS=8 HELIOSTAT_ADDRESS=http://HEAD:8265 python laptop_to_cluster.py  # from here, computed there
    heliostat submit laptop_to_cluster.py --address http://HEAD:8265 --workers 8        # the script itself runs there

Arrays and run folder are on the disk of the machine where the script runs; other machines fetch what they need from it.
`num_microbatches` and `threads_per_worker` are given, so two workers and eight compute the same numbers.
"""

import keras
import numpy as np
from heliostat.trainer import Trainer

rng = np.random.default_rng(0)
x = rng.normal(size=(10_000, 20)).astype("float32")
y = np.sin(x.sum(axis=1) / 4)


def build_model():
    layers = [keras.layers.Dense(64, activation="tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((20,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model


trainer = Trainer(build_model, workers=2, num_microbatches=8, threads_per_worker=1)
history = trainer.fit(x, y, batch_size=200, epochs=5, validation_split=0.1)
print("validation error by epoch:", [round(float(value), 4) for value in history.history["val_mae"]])
trainer.save("waves.keras")
