"""Pictures in a folder per class, with augmentation: they stay PNG or JPEG until their rows are read.

    python scripts/examples/images.py        # Pillow makes the pictures: pip install pillow

The layers that turn and shift the pictures draw anew in every epoch, and on every worker other numbers.
"""

from pathlib import Path

import keras
import numpy as np
from heliostat.data import convert
from heliostat.trainer import Trainer

# Pictures that stand in for yours, with noise: photos/disc/0.png ... and photos/ring/1.png ...
rng = np.random.default_rng(0)
across, down = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
for number in range(400):
    kind = ("disc", "ring")[number % 2]
    distance = np.hypot(across - rng.uniform(-0.4, 0.4), down - rng.uniform(-0.4, 0.4))[..., None]
    shape = (distance < 0.5) & (distance > (0.3 if kind == "ring" else 0))
    Path("photos", kind).mkdir(parents=True, exist_ok=True)
    picture = np.where(shape, 180, 80) + rng.normal(0, 20, (32, 32, 3))
    keras.utils.save_img(f"photos/{kind}/{number}.png", picture.clip(0, 255), scale=False)

photos = convert("photos", "photos-set", overwrite=True).decode("image", (32, 32))


def build_model():
    layers = [keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.RandomFlip(), keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")]
    layers += [keras.layers.Conv2D(16, 3, strides=2, activation="relu") for _ in range(2)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


trainer = Trainer(build_model, workers=2)
history = trainer.fit(photos, batch_size=20, epochs=15, validation_split=0.2)
print("validation accuracy by epoch:", [round(float(value), 2) for value in history.history["val_accuracy"]])
