"""Rows per second of shuffled batches of 256 out of 60,000 rows of 784 bytes: Heliostat against tf.data and Ray Data.

    python scripts/benchmarks/reader.py [--blocks 5] [--without-ray] [--json]

Every source in turn runs one block (whole passes until a second is over), several rounds long, so that all meet the
same noise; the first, unmeasured round opens files and fills caches. "heliostat" yields numpy arrays out of a ring of
buffers, "heliostat tensors" hands these to TensorFlow without a copy. tf.data shuffles over all rows from memory; Ray
Data holds its blocks in memory and shuffles locally over all rows. Medians of rows/s, and of the ratio to Heliostat
within a round.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from heliostat.data import BatchPlan, Dataset, Reader, RowOrder, aligned_empty, row_ids, write_dataset

NUM_ROWS, ROW_BYTES, BATCH_SIZE, NUM_CLASSES = 60_000, 784, 256, 10
RING_LENGTH = 4
BLOCK_S = 1.0

Pass = Callable[[int], Iterator[int]]
"""Makes one pass of an epoch and yields the rows of every batch."""


def heliostat_pass(dataset: Dataset, reader: Reader) -> Pass:
    plan = BatchPlan(num_rows=len(dataset), global_batch_size=BATCH_SIZE, num_microbatches=1)
    ring = [
        {name: aligned_empty((BATCH_SIZE, *column.shape), column.dtype) for name, column in dataset.schema.items()}
        for _ in range(RING_LENGTH)
    ]

    def run(epoch: int, use: Callable[[dict[str, np.ndarray]], Any] = lambda batch: batch) -> Iterator[int]:
        order = RowOrder(num_rows=len(dataset), epoch=epoch)
        for step in range(plan.num_steps):
            ids = row_ids(order, plan, step, 0)
            buffers = ring[step % RING_LENGTH]
            use(reader.gather(ids, out={name: buffer[: ids.size] for name, buffer in buffers.items()}))
            yield ids.size

    return run


def heliostat_tensor_pass(dataset: Dataset, reader: Reader) -> Pass:
    import tensorflow as tf

    run: Any = heliostat_pass(dataset, reader)

    def to_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: tf.experimental.dlpack.from_dlpack(array.__dlpack__()) for name, array in batch.items()}

    return lambda epoch: run(epoch, to_tensors)


def tf_data_pass(arrays: dict[str, np.ndarray]) -> Pass:
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices(arrays).shuffle(NUM_ROWS, seed=0).batch(BATCH_SIZE).prefetch(2)
    return lambda _epoch: (int(batch["y"].shape[0]) for batch in source)


def ray_data_pass(arrays: dict[str, np.ndarray], exits: ExitStack) -> Pass:
    try:
        import pandas  # noqa: F401
    except ModuleNotFoundError:
        raise SystemExit("Ray Data needs pandas, which is not installed: add it, or give --without-ray.") from None
    import ray

    ray.init(num_cpus=2, logging_level=logging.ERROR, include_dashboard=False)
    exits.callback(ray.shutdown)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items([0]).map_batches(lambda _: arrays, batch_size=None).materialize()

    def run(epoch: int) -> Iterator[int]:
        batches = rows.iter_tf_batches(
            batch_size=BATCH_SIZE, local_shuffle_buffer_size=NUM_ROWS, local_shuffle_seed=epoch
        )
        return (int(batch["y"].shape[0]) for batch in batches)

    return run


def rows_per_second(one_pass: Pass, first_epoch: int) -> float:
    rows, epoch, start = 0, first_epoch, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < BLOCK_S:
        in_pass = sum(one_pass(epoch))
        if in_pass != NUM_ROWS:
            raise RuntimeError(
                f"A pass gave {in_pass} rows instead of {NUM_ROWS}; the sources do not do the same work."
            )
        rows, epoch = rows + in_pass, epoch + 1
    return rows / elapsed


def measure(sources: dict[str, Pass], num_blocks: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in sources}
    for block in range(num_blocks + 1):
        for name, one_pass in sources.items():
            speed = rows_per_second(one_pass, first_epoch=1000 * block)
            if block > 0:
                speeds[name].append(speed)
    return speeds


def summarise(speeds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    ours = speeds["heliostat"]
    return {
        name: {
            "rows_per_s": statistics.median(values),
            "heliostat_ratio": statistics.median(mine / other for mine, other in zip(ours, values, strict=True)),
        }
        for name, values in speeds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--without-ray", action="store_true", help="leave Ray Data out")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    options = parser.parse_args()
    numbers = np.random.default_rng(0)
    arrays = {
        "x": numbers.integers(0, 256, (NUM_ROWS, ROW_BYTES), dtype=np.uint8),
        "y": numbers.integers(0, NUM_CLASSES, NUM_ROWS),
    }
    with ExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-benchmark-"))
        dataset = write_dataset(f"{folder}/rows", arrays)
        reader = exits.enter_context(dataset.reader())
        sources = {
            "heliostat": heliostat_pass(dataset, reader),
            "heliostat tensors": heliostat_tensor_pass(dataset, reader),
            "tf.data": tf_data_pass(arrays),
        }
        if not options.without_ray:
            sources["Ray Data"] = ray_data_pass(arrays, exits)
        summary = summarise(measure(sources, options.blocks))
    if options.json:
        print(json.dumps({"num_rows": NUM_ROWS, "row_bytes": ROW_BYTES, "batch_size": BATCH_SIZE, "sources": summary}))
        return
    for name, numbers_of in summary.items():
        print(
            f"{name:<18} {numbers_of['rows_per_s']:>12,.0f} rows/s   heliostat is {numbers_of['heliostat_ratio']:.2f} ×"
        )


if __name__ == "__main__":
    main()
