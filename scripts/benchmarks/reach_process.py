"""A run for `reach.py`, on a machine of its cluster: MODE DATA RUN_DIR STEPS BATCH MEGABYTES.

Mode "data" trains a small model on what lies on this machine's disk; "state" one whose state has so many megabytes, and
prints when each of its steps ended, and which of them a checkpoint travelled beside.
"""

import json
import sys
import time

import keras
from heliostat.trainer import EverySteps, Trainer

WIDTH = 1024


def small():
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def large(megabytes):
    """A table that is looked up and does not learn: the state is large, a step is short."""

    def build():
        inputs = keras.Input((WIDTH,))
        table = keras.layers.Embedding(megabytes * 250, 1000, embeddings_initializer="zeros", trainable=False)
        looked_up = keras.layers.Flatten()(table(keras.ops.zeros_like(inputs[:, :1], dtype="int32")))
        outputs = keras.layers.Dense(1)(keras.layers.Concatenate()([inputs, looked_up]))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        return model

    return build


class Times(keras.callbacks.Callback):
    """When each step ended."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.time())

    def on_train_end(self, logs=None):
        print("TIMES", json.dumps(self.times), flush=True)


def main(mode, data, run_dir, steps, batch, megabytes):
    build, every = (small, None) if mode == "data" else (large(int(megabytes)), EverySteps(int(steps) // 2))
    options = {"workers": 2, "num_microbatches": 2, "threads_per_worker": 1, "run_dir": run_dir, "address": "auto"}
    with Trainer(build, **options) as trainer:
        trainer.fit(
            data,
            epochs=2 if mode == "data" else 1,
            global_batch_size=int(batch),
            checkpoint_every=every,
            steps_per_epoch=None if mode == "data" else int(steps),
            callbacks=[] if mode == "data" else [Times()],
            verbose=2,
        )
    print("ENDED")


if __name__ == "__main__":
    main(*sys.argv[1:])
