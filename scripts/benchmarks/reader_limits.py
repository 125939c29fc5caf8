"""Two limits of reading: anonymous memory as a dataset grows tenfold, and the start of an epoch of 100 million rows.

    python scripts/benchmarks/reader_limits.py [--rounds 5] [--folder FOLDER] [--save]

Memory: the largest RssAnon of a fresh process that makes a fully shuffled pass over 60,000 and over 600,000 rows of 784
bytes, in numpy batches of 256. Start: the time from nothing to the row ids of the first batch of an epoch (row order
and batch plan, no data), of the next epoch, and of one in the middle, in fresh processes; the imports are not in it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from reader_data import BATCH_SIZE, NUM_CLASSES, ROW_BYTES  # type: ignore[import-not-found]
from run import Found, child, finish, in_turn, median, parsed, parser_of, status_bytes  # type: ignore[import-not-found]

SIZES = (60_000, 600_000)
MANY_ROWS = 100_000_000
SHUFFLES = ("full", "window")
_ROWS_AT_ONCE = 10_000


def write(path: Path, num_rows: int) -> None:
    """A dataset of so many rows."""
    from heliostat.data import DatasetWriter

    numbers = np.random.default_rng(0)
    with DatasetWriter(path) as writer:
        for _ in range(-(-num_rows // _ROWS_AT_ONCE)):
            x = numbers.integers(0, 256, (_ROWS_AT_ONCE, ROW_BYTES), dtype=np.uint8)
            writer.write({"x": x, "y": numbers.integers(0, NUM_CLASSES, _ROWS_AT_ONCE)})


def memory(path: Path, shuffle: str) -> Found:
    """Of one pass in this process."""
    from heliostat.data import open_dataset

    peak = 0
    for number, _ in enumerate(open_dataset(path).batches(BATCH_SIZE, shuffle=shuffle)):
        if number % 10 == 0:
            peak = max(peak, status_bytes("RssAnon"))
    return {"RssAnon MB": round(peak / 1e6, 1)}


def start(shuffle: str) -> Found:
    """Milliseconds to the row ids of the first batch, of the next epoch's, and of a batch in the middle."""
    from heliostat.data.order.order import RowOrder
    from heliostat.data.order.plan import BatchPlan, row_ids

    found, plan = {}, BatchPlan(num_rows=MANY_ROWS, global_batch_size=BATCH_SIZE, num_microbatches=1)
    order = RowOrder(num_rows=BATCH_SIZE, shuffle=shuffle)
    for name, epoch, step in (("first ms", 0, 0), ("next ms", 1, 0), ("middle ms", 1, plan.num_steps // 2)):
        began = time.perf_counter()
        if step == 0:
            order = RowOrder(num_rows=MANY_ROWS, seed=7, epoch=epoch, shuffle=shuffle)
        row_ids(order, plan, step, 0)
        found[name] = round((time.perf_counter() - began) * 1e3, 2)
    return found


def one(chosen: argparse.Namespace) -> Found:
    """In a process of its own: memory of a pass over the dataset that is named, or the start."""
    return {"limits": memory(chosen.path, chosen.one) if chosen.path else start(chosen.one)}


def main() -> None:
    """Measure both."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="ROWS")
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    chosen = parsed(parser, one)
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=chosen.folder) as name:
        jobs = {f"start of {MANY_ROWS:,} rows, {shuffle}": [shuffle] for shuffle in SHUFFLES}
        for num_rows in chosen.sizes:
            write(Path(name) / str(num_rows), num_rows)
            jobs |= {f"memory, {num_rows:,} rows, {each}": [each, "--path", f"{name}/{num_rows}"] for each in SHUFFLES}
        runs = in_turn(
            list(jobs),
            chosen.rounds,
            lambda job: child("reader_limits.py", "--one", *jobs[job], key="limits")["limits"],
        )
    rows = [{"limit": job} | {name: median(found, name) for name in found[0]} for job, found in runs.items()]
    finish(chosen, "reader_limits", {"rows": rows})


if __name__ == "__main__":
    main()
