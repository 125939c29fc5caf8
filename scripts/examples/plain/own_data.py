"""own_data.py in plain Keras: all files are read into memory."""

from glob import glob

import keras
import numpy as np

keras.utils.set_random_seed(0)

# Files that stand in for yours: the power that a wind turbine gives, by wind, air and angle of the blades.
rng = np.random.default_rng(0)
for month in ("may", "june"):
    wind, air, pitch = rng.uniform(3, 12, 2000), rng.normal(1.2, 0.05, 2000), rng.uniform(0, 20, 2000)
    power = air * wind**3 * np.cos(np.radians(2 * pitch)) / 100 + rng.normal(0, 0.2, 2000)
    rows = np.stack([wind, air, pitch, power], axis=1)
    np.savetxt(f"turbine-{month}.csv", rows, "%.6f", delimiter=",", header="wind,air,pitch,power", comments="")

table = np.concatenate(
    [np.loadtxt(file, np.float32, delimiter=",", skiprows=1) for file in sorted(glob("turbine-*.csv"))]
)
x, y = table[:, :3], table[:, 3]

model = keras.Sequential(
    [
        keras.Input((3,)),
        keras.layers.Rescaling([0.1, 1, 0.1]),
        keras.layers.Dense(32, activation="tanh"),
        keras.layers.Dense(1),
    ]
)
model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])

history = model.fit(x, y, batch_size=100, epochs=12, validation_split=0.2)
print("mean error of the power by epoch:", [round(float(value), 2) for value in history.history["val_mae"]])
