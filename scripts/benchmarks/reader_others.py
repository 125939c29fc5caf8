"""Other libraries as sources of the reading benchmarks, each as its documentation shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from reader_data import (  # type: ignore[import-not-found]
    BATCH_SIZE,
    ROW_BYTES,
    Kind,
    Rows,
    decode_row,
    pad_all,
    pad_row,
)
from reader_sources import NUM_FILES, Pass, Source, TfDataMemory, tf_pass  # type: ignore[import-not-found]

_LABEL_BYTES = 8


class RayData(TfDataMemory):
    """`iter_tf_batches` over blocks in memory, a local shuffle buffer of all rows; tokens are padded beforehand."""

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import pandas  # noqa: F401 - Ray Data needs it
        import pyarrow as pa
        import ray

        rows = Rows.load(kind, folder)
        ray.init(num_cpus=2, logging_level=logging.ERROR, include_dashboard=False)
        exits.callback(ray.shutdown)
        ray.data.DataContext.get_current().enable_progress_bars = False
        if kind == "images":
            table = pa.table({"x": [rows.row(number).tobytes() for number in range(len(rows))], "y": rows.y})
            blocks = ray.data.from_arrow(_cut(table)).map_batches(change_batch(kind), batch_size=BATCH_SIZE)
        else:
            x = rows.values if kind == "fixed" else pad_all(rows)
            parts = np.array_split(np.arange(len(rows)), NUM_FILES)
            blocks = ray.data.from_items([int(part[0]) for part in parts], override_num_blocks=NUM_FILES)
            length = len(parts[0])
            blocks = blocks.map_batches(
                lambda first: _slice(x, rows.y, int(first["item"][0]), length), batch_size=None
            ).materialize()

        def run(epoch: int) -> Iterator[int]:
            batches = blocks.iter_tf_batches(
                batch_size=BATCH_SIZE, local_shuffle_buffer_size=len(rows), local_shuffle_seed=epoch
            )
            return (int(batch["y"].shape[0]) for batch in batches)

        return run


class HuggingFace(Source):
    """`to_tf_dataset(shuffle=True)` of a dataset saved to disk; tokens and images by a transform of batches."""

    folder_name = "huggingface"

    def prepare(self, rows: Rows, folder: Path) -> None:
        import datasets
        import pyarrow as pa

        datasets.disable_progress_bars()
        if rows.kind == "fixed":
            x: Any = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.reshape(-1)), ROW_BYTES)
        elif rows.kind == "tokens":
            x = pa.ListArray.from_arrays(pa.array(rows.splits, pa.int32()), pa.array(rows.values))
        else:
            x = pa.array([rows.row(number).tobytes() for number in range(len(rows))])
        datasets.Dataset(pa.table({"x": x, "y": rows.y})).save_to_disk(str(folder))

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import datasets

        dataset = datasets.load_from_disk(str(folder))
        if kind != "fixed":
            dataset = dataset.with_transform(change_batch(kind))
        return tf_pass(dataset.to_tf_dataset(batch_size=BATCH_SIZE, shuffle=True))


class Grain(Source):
    """`grain.MapDataset` over ArrayRecord files, a full shuffle by index, batches read by Grain's threads."""

    folder_name = "array_record"

    def prepare(self, rows: Rows, folder: Path) -> None:
        import grain  # noqa: F401 - to be left out if it is missing
        from array_record.python.array_record_module import ArrayRecordWriter

        folder.mkdir(parents=True)
        for number, part in enumerate(np.array_split(np.arange(len(rows)), NUM_FILES)):
            writer = ArrayRecordWriter(str(folder / f"{number}.array_record"), "group_size:1,uncompressed")
            for row in part.tolist():
                writer.write(rows.y[row].tobytes() + rows.row(row).tobytes())
            writer.close()

    def open(self, kind: Kind, folder: Path, exits: ExitStack) -> Pass:
        import grain

        source = grain.sources.ArrayRecordDataSource([str(path) for path in sorted(folder.iterdir())])
        dtype = np.int32 if kind == "tokens" else np.uint8

        def parse(record: bytes) -> dict[str, Any]:
            x: Any = np.frombuffer(record, dtype, offset=_LABEL_BYTES)
            return {
                "x": CHANGES[kind](x.tobytes() if kind == "images" else x),
                "y": np.frombuffer(record, np.int64, 1)[0],
            }

        def run(epoch: int) -> Iterator[int]:
            batches = grain.MapDataset.source(source).shuffle(seed=epoch).map(parse).batch(BATCH_SIZE)
            # Two threads are the quickest of 0, 2 and the default of 16 on two cores (measured).
            options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
            return (len(batch["y"]) for batch in batches.to_iter_dataset(options))

        return run


# What a row's values become, by kind.
CHANGES: dict[Kind, Callable[[Any], np.ndarray]] = {"fixed": np.asarray, "tokens": pad_row, "images": decode_row}


def change_batch(kind: Kind) -> Callable[[dict[str, Any]], dict[str, np.ndarray]]:
    """Changes the rows of a batch one by one."""
    change = CHANGES[kind]
    return lambda batch: {"x": np.stack([change(row) for row in batch["x"]]), "y": np.asarray(batch["y"])}


def _slice(x: np.ndarray, y: np.ndarray, first: int, length: int) -> dict[str, np.ndarray]:
    return {"x": x[first : first + length], "y": y[first : first + length]}


def _cut(table: Any) -> list[Any]:
    length = -(-len(table) // NUM_FILES)
    return [table.slice(first, length) for first in range(0, len(table), length)]
