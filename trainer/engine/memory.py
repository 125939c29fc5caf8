"""What a worker needs memory for, told when there is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ..errors import MemoryExhaustedError
from .model import BuiltModel

# What TensorFlow and Python raise where memory is asked for and there is none.
OUT_OF_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)


def memory_exhausted(built: BuiltModel, num_microbatches: int, rows: int, error: BaseException) -> MemoryExhaustedError:
    """The error that says what memory goes to.

    Args:
        built: the model.
        num_microbatches: V of the run.
        rows: of a microbatch.
        error: one of `OUT_OF_MEMORY`.
    """
    cause = next((line for line in str(error).splitlines() if line.startswith("OOM")), str(error).split("\n", 1)[0])
    parts = memory_parts(built, rows)
    return MemoryExhaustedError(num_microbatches, rows, cause.strip().rstrip(".") or type(error).__name__, parts)


def memory_in_use(strategy: tf.distribute.Strategy) -> dict[str, int]:
    """Bytes that are in use: "host" by this process, "device" on all its GPUs, at most so far; without one of them no
    "device".
    """
    devices = [tf.DeviceSpec.from_string(name) for name in strategy.extended.worker_devices]
    gpus = [f"GPU:{device.device_index}" for device in devices if device.device_type == "GPU"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {"host": pages * os.sysconf("SC_PAGE_SIZE")}
    return (
        found if not gpus else found | {"device": sum(tf.config.experimental.get_memory_info(g)["peak"] for g in gpus)}
    )


def memory_parts(built: BuiltModel, rows: int, *, trains: bool = True) -> dict[str, int]:
    """Bytes of what a worker holds, by name, with microbatches of so many rows; what a model does not tell is left out.

    Args:
        built: the model.
        rows: of a microbatch.
        trains: whether it is trained.
    """
    weights = _num_bytes((v.shape, v.dtype) for v in [*built.trainable, *built.non_trainable])
    gradients = _num_bytes((v.shape, built.float_dtype) for v in built.trainable)
    optimizer = _num_bytes((v.shape, v.dtype) for v in built.optimizer_state)
    parts = {"weights": weights}
    if trains:
        parts |= {"their gradients": gradients, "the optimizer's state": optimizer}
    if given := _activations(built.model, rows):
        parts["what layers give out for a microbatch"] = given
    return parts


def _activations(model: keras.Model, rows: int) -> int:
    """Bytes of what all layers give out for so many rows; 0 where a model does not tell."""
    try:
        outputs = [keras.tree.flatten(layer.output) for layer in model.layers]
    except (AttributeError, ValueError):  # a model that is no graph of layers
        return 0
    return rows * _num_bytes((each.shape, each.dtype) for layer in outputs for each in layer)


def _num_bytes(arrays: Iterable[tuple[Iterable[int | None], object]]) -> int:
    """Bytes of arrays, given by shape and dtype; unknown axes, those of rows, count as one."""
    return sum(int(np.prod([each or 1 for each in shape])) * int(tf.as_dtype(dtype).size) for shape, dtype in arrays)
