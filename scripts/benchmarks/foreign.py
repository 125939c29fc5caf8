"""Training where files lie: opening a folder of Parquet or TFRecord files, and the first and second epoch over it.

    python scripts/benchmarks/foreign.py [--formats parquet tfrecord] [--gb 2] [--shuffles window full] [--save]
        [--before /other/checkout/.venv/bin/python]

Rows of 784 bytes and a label, in eight files. Each line is a fresh process: seconds to open the folder, seconds of the
first epoch and of the second in batches of 256, bytes that the files have, bytes that lie on disk beside them
afterwards, and the largest RssAnon. What another checkout (`--before`) cannot do is told as its error.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import run  # type: ignore[import-not-found]
from reader_page_cache import files_below  # type: ignore[import-not-found]

ROW_BYTES, NUM_FILES, BATCH_SIZE = 784, 8, 256
_ROWS_AT_ONCE = 4_096


def write(folder: Path, kind: str, num_rows: int) -> None:
    """The rows as files of a format."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for number, rows in enumerate(np.array_split(np.arange(num_rows), NUM_FILES)):
        x = numbers.integers(0, 256, (len(rows), ROW_BYTES), np.uint8)
        write_file = write_parquet if kind == "parquet" else write_tfrecord
        write_file(folder / f"part-{number}.{kind}", x, rows % 10)


def write_parquet(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Row groups of 4,096 rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), ROW_BYTES)
    pq.write_table(pa.table({"x": column, "y": y}), path, row_group_size=_ROWS_AT_ONCE)


def write_tfrecord(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """One `tf.train.Example` per row."""
    import tensorflow as tf

    def example(row: bytes, label: int) -> bytes:
        feature = {
            "x": tf.train.Feature(bytes_list={"value": [row]}),
            "y": tf.train.Feature(int64_list={"value": [label]}),
        }
        return bytes(tf.train.Example(features={"feature": feature}).SerializeToString())

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row, label in zip(x, y.tolist(), strict=True):
            writer.write(example(row.tobytes(), label))


def one(folder: Path, shuffle: str) -> run.Found:
    """In a process of its own: open, and read twice."""
    from heliostat.data import open_dataset

    peak, times = run.Peak(), [time.perf_counter()]
    try:
        dataset = open_dataset(folder)
        times.append(time.perf_counter())
        for epoch in (0, 1):
            rows = sum(len(batch["y"]) for batch in dataset.batches(BATCH_SIZE, shuffle=shuffle, epoch=epoch))
            times.append(time.perf_counter())
            if rows != len(dataset):
                raise run.BenchmarkError(f"an epoch had {rows} of {len(dataset)} rows")
    except Exception as error:  # an older checkout may refuse what this one does
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    found = dict(
        zip(("open s", "first s", "second s"), (round(b - a, 2) for a, b in itertools.pairwise(times)), strict=True)
    )
    return {**found, "RssAnon MB": round(peak.close() / 1e6, 1)}


def main() -> None:
    """Measure format after format."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--formats", nargs="+", choices=("parquet", "tfrecord"), default=["parquet", "tfrecord"])
    parser.add_argument("--shuffles", nargs="+", default=["window", "full"])
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--before", metavar="PYTHON", help="of another checkout, which is measured too")
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    chosen = run.parsed(parser, lambda chosen: {"foreign": one(chosen.folder, chosen.one)})
    pythons = {"heliostat": sys.executable} | ({"before": chosen.before} if chosen.before else {})
    rows: list[run.Found] = []
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=chosen.folder) as name:
        for kind in chosen.formats:
            folder = Path(name) / kind / "files"
            write(folder, kind, int(chosen.gb * 1e9) // ROW_BYTES)
            written = size_of(folder)
            for way, shuffle in itertools.product(pythons, chosen.shuffles):
                with tempfile.TemporaryDirectory(prefix="heliostat-cache-", dir=name) as cache:
                    options = ("--one", shuffle, "--folder", folder)
                    variables = {"TMPDIR": cache, "XDG_CACHE_HOME": cache}
                    found = run.child("foreign.py", *options, key="foreign", python=pythons[way], variables=variables)
                    beside = size_of(Path(cache)) + size_of(folder) - written
                rows.append({"format": kind, "way": way, "shuffle": shuffle, "MB": written / 1e6, **found["foreign"]})
                rows[-1]["MB on disk beside"] = beside / 1e6
                run.finish(chosen, "foreign", {"rows": rows})


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in files_below(folder))


if __name__ == "__main__":
    main()
