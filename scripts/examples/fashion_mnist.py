"""Fashion-MNIST from its IDX files: 70,000 pictures of clothes, a small convolutional network, no download by Keras.

sudo apt-get install dataset-fashion-mnist
python scripts/examples/fashion_mnist.py [--data /usr/share/datasets/fashion-mnist] [--workers 2] [--epochs 3]
"""

import argparse
from pathlib import Path
from typing import Any

from heliostat.data import write_dataset
from heliostat.data.conversion.idx import read_idx
from heliostat.trainer import Trainer


def build_model() -> Any:
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
    return model


def write_pictures(folder: Path) -> None:
    for name, prefix in (("train", "train"), ("valid", "t10k")):
        images, labels = (folder / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        if not images.exists():
            raise SystemExit(f"No {images}. Install Debian's package dataset-fashion-mnist, or give --data FOLDER.")
        x, y = read_idx(images)[..., None], read_idx(labels).astype("int64")
        write_dataset(f"fashion/{name}", {"x": x, "y": y}, overwrite=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    write_pictures(options.data)
    with Trainer(build_model, workers=options.workers) as trainer:
        result = trainer.fit(
            "fashion/train", validation_data="fashion/valid", epochs=options.epochs, global_batch_size=128
        )
        print(result.history)
        print(trainer.predict("fashion/valid")[:5].argmax(-1))
