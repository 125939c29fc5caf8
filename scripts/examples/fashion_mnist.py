"""Fashion-MNIST from its IDX files: 70,000 pictures of clothes, a small convolutional network, no download by Keras.

sudo apt-get install dataset-fashion-mnist
python scripts/examples/fashion_mnist.py [--data /usr/share/datasets/fashion-mnist] [--epochs 3]
"""

import argparse
from pathlib import Path

import keras
from heliostat.data import write_dataset
from heliostat.data.conversion.idx import read_idx
from heliostat.trainer import Trainer
from keras import layers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()

if not options.data.joinpath("train-images-idx3-ubyte.gz").exists():
    raise SystemExit(f"No pictures in {options.data}. Install Debian's dataset-fashion-mnist, or give --data FOLDER.")
for name, prefix in (("train", "train"), ("valid", "t10k")):
    x = read_idx(options.data / f"{prefix}-images-idx3-ubyte.gz")[..., None]
    y = read_idx(options.data / f"{prefix}-labels-idx1-ubyte.gz").astype("int64")
    write_dataset(f"fashion/{name}", {"x": x, "y": y}, overwrite=True)


def build_model():
    convolutions = []
    for filters in (16, 32):
        convolutions += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    end = [layers.Flatten(), layers.Dropout(0.3), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), *convolutions, *end])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
    return model


with Trainer(build_model, workers=2) as trainer:
    result = trainer.fit("fashion/train", validation_data="fashion/valid", epochs=options.epochs, batch_size=128)
    print(result.history)
    print(trainer.predict("fashion/valid")[:5].argmax(-1))
