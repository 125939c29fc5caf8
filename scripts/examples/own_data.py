"""Files of your own: CSV files become a dataset once, and every worker reads its rows from there.

    python scripts/examples/own_data.py

`convert` also takes Parquet, JSON lines, TFRecord, npz and folders of pictures; what it cannot store as it is, it names
with file, column and row. Memory does not grow with the files.
"""

import keras
import numpy as np
from heliostat.data import convert
from heliostat.trainer import Trainer

# Files that stand in for yours: the power that a wind turbine gives, by wind, air and angle of the blades.
rng = np.random.default_rng(0)
for month in ("may", "june"):
    wind, air, pitch = rng.uniform(3, 12, 2000), rng.normal(1.2, 0.05, 2000), rng.uniform(0, 20, 2000)
    power = air * wind**3 * np.cos(np.radians(2 * pitch)) / 100 + rng.normal(0, 0.2, 2000)
    rows = np.stack([wind, air, pitch, power], axis=1)
    np.savetxt(f"turbine-{month}.csv", rows, "%.6f", delimiter=",", header="wind,air,pitch,power", comments="")

dataset = convert("turbine-*.csv", "turbine", target="power", overwrite=True)


def build_model():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Rescaling([0.1, 1, 0.1]),
            keras.layers.Dense(32, activation="tanh"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    return model


trainer = Trainer(build_model, workers=2)
history = trainer.fit(dataset, batch_size=100, epochs=12, validation_split=0.2)
print("mean error of the power by epoch:", [round(float(value), 2) for value in history.history["val_mae"]])
