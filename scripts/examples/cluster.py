"""One script for a laptop and for a Ray cluster: only `--workers` and `--address` differ, the weights do not.

    python scripts/examples/cluster.py --workers 2                    # two workers on this machine
    python scripts/examples/cluster.py --workers 8 --address auto     # on a machine of the cluster
    python scripts/examples/cluster.py --workers 8 --address http://HEAD:8265     # from a laptop; all comes back here

The dataset lies on the disk of the machine where this runs; workers of other machines fetch it from there.
The number of microbatches is fixed, so two workers and eight compute the same, bit for bit on one type of CPU.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from heliostat.data import write_dataset
from heliostat.trainer import Trainer


def build_model() -> Any:
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((20,)), layers.Dense(64, activation="tanh"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


def write_waves(path: Path, num_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 20)).astype("float32")
    write_dataset(path, {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True) / 4)}, overwrite=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="'auto' or http://HEAD:8265; left out, a Ray of this machine is used")
    parser.add_argument("--folder", type=Path, default=Path("waves"))
    options = parser.parse_args()
    write_waves(options.folder / "train", 20_000, seed=0)
    write_waves(options.folder / "valid", 2_000, seed=1)
    with Trainer(build_model, workers=options.workers, address=options.address, num_microbatches=8) as trainer:
        result = trainer.fit(
            options.folder / "train", validation_data=options.folder / "valid", epochs=5, global_batch_size=256
        )
    print({name: values[-1] for name, values in result.history.items()})
