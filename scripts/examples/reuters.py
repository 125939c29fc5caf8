"""The Reuters news wire: 11,228 texts in 46 topics, one model, and each of the three ways to train it.

    python scripts/examples/reuters.py [--loop fit|train_on_batch|custom] [--epochs 10]

Keras downloads the texts once (2 MB). Without internet: `heliostat demo` does the same on text that is already here.
"""

import argparse

import keras
from heliostat.data import write_dataset
from heliostat.trainer import Trainer
from keras import layers

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--loop", choices=("fit", "train_on_batch", "custom"), default="fit")
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()

try:
    splits = keras.datasets.reuters.load_data(num_words=10_000)
except Exception as error:  # Keras raises bare Exception when it cannot download
    raise SystemExit(f"Could not get the Reuters texts: {error}\nNo internet? Try `heliostat demo`.") from error
for name, (texts, topics) in zip(("train", "valid"), splits, strict=True):
    x = keras.utils.pad_sequences(texts, maxlen=300)
    write_dataset(f"news/{name}", {"x": x, "y": topics.astype("int64")}, overwrite=True)


def build_model():
    convolutions = []
    for filters, width in ((64, 5), (32, 3)):
        convolutions += [layers.Conv1D(filters, width, activation="relu"), layers.MaxPooling1D()]
    words = [keras.Input((300,), dtype="int32"), layers.Embedding(10_000, 7)]
    model = keras.Sequential([*words, *convolutions, layers.Flatten(), layers.Dense(46, activation="softmax")])
    top_5 = keras.metrics.SparseTopKCategoricalAccuracy(5, name="top_5")
    model.compile("nadam", "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy", top_5])
    return model


with Trainer(build_model, workers=2) as trainer:
    trainer.fit("news/train", validation_data="news/valid", epochs=options.epochs, loop=options.loop)
    print(trainer.evaluate("news/valid"))
