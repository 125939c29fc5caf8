"""The Reuters news wire: 11,228 texts in 46 topics, the chapter's model, one of the three ways to train.

    python scripts/examples/reuters.py [--workers 2] [--loop fit|train_on_batch|custom] [--epochs 10]

Keras downloads the texts once (2 MB). Without internet: `heliostat demo` does the same on text that is already here.
"""

import argparse
from typing import Any

from heliostat.data import write_dataset
from heliostat.trainer import Trainer


def build_model() -> Any:
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((300,), dtype="int32"),
            layers.Embedding(10_000, 7),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(),
            layers.Conv1D(32, 3, activation="relu"),
            layers.MaxPooling1D(),
            layers.Flatten(),
            layers.Dense(46, activation="softmax"),
        ]
    )
    top_5 = keras.metrics.SparseTopKCategoricalAccuracy(5, name="top_5")
    model.compile("nadam", "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy", top_5])
    return model


def write_news() -> None:
    import keras

    try:
        splits = keras.datasets.reuters.load_data(num_words=10_000)
    except Exception as error:  # Keras raises bare Exception when it can not download
        raise SystemExit(f"Could not get the Reuters texts: {error}\nNo internet? Try `heliostat demo`.") from error
    for name, (texts, topics) in zip(("train", "valid"), splits, strict=True):
        x = keras.utils.pad_sequences(texts, maxlen=300)
        write_dataset(f"news/{name}", {"x": x, "y": topics.astype("int64")}, overwrite=True)


def halve_learning_rate() -> Any:
    import keras

    return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch + 1 == 5 else rate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--loop", choices=("fit", "train_on_batch", "custom"), default="fit")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    write_news()
    callbacks = [halve_learning_rate()] if options.loop == "train_on_batch" else []
    with Trainer(build_model, workers=options.workers) as trainer:
        settings = {"epochs": options.epochs, "loop": options.loop, "callbacks": callbacks}
        trainer.fit("news/train", validation_data="news/valid", **settings)
        print(trainer.evaluate("news/valid"))
