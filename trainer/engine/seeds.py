"""Random seeds that depend on the place in the run, never on the worker."""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def microbatch_seeds(seed: int, step: int, microbatch: int, num_generators: int) -> np.ndarray:
    """The states of all seed generators at the start of one microbatch.

    Args:
        seed: seed of the run.
        step: step of the run, counted from 0 over all epochs.
        microbatch: number of the microbatch in its step.
        num_generators: how many `keras.random.SeedGenerator` the model holds.

    Returns:
        int64 ``[num_generators, 2]``: 62 hashed bits (blake2b), and 0, the counter that
        `SeedGenerator.next` increments at every draw.
    """
    seeds = np.zeros((num_generators, 2), np.int64)
    for generator in range(num_generators):
        key = struct.pack("<qqqq", seed, step, microbatch, generator)
        digest = hashlib.blake2b(key, digest_size=8, person=b"heliostat-seed").digest()
        seeds[generator, 0] = int.from_bytes(digest, "little") >> 2
    return seeds
