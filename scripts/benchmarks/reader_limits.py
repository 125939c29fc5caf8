"""Two limits of reading: anonymous memory as a dataset grows tenfold, and the start of an epoch of 100 million rows.

    python scripts/benchmarks/reader_limits.py [--rounds 5] [--folder FOLDER]

Memory: the largest RssAnon of a fresh process that makes a fully shuffled pass over 60,000 and over 600,000 rows of 784
bytes, in numpy batches of 256. Start: the time from nothing to the row ids of the first batch of an epoch (row order
and batch plan, no data), in fresh processes; the imports are not in it. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reader_data import BATCH_SIZE, NUM_CLASSES, ROW_BYTES  # type: ignore[import-not-found]
from reader_page_cache import rss_anon_bytes  # type: ignore[import-not-found]

SIZES = (60_000, 600_000)
MANY_ROWS = 100_000_000
MOST_START_S, MOST_GROWTH = 0.05, 0.1
SHUFFLES = ("full", "window")
_PIECE_ROWS = 10_000


def write(path: Path, num_rows: int) -> None:
    from heliostat.data import DatasetWriter

    numbers = np.random.default_rng(0)
    with DatasetWriter(path) as writer:
        for _ in range(num_rows // _PIECE_ROWS):
            x = numbers.integers(0, 256, (_PIECE_ROWS, ROW_BYTES), dtype=np.uint8)
            writer.write({"x": x, "y": numbers.integers(0, NUM_CLASSES, _PIECE_ROWS)})


def memory(path: Path, shuffle: str) -> dict[str, float]:
    """Of one pass in this process."""
    from heliostat.data import open_dataset

    rows, peak = 0, 0
    for number, batch in enumerate(open_dataset(path).batches(BATCH_SIZE, shuffle=shuffle)):
        rows += len(batch["y"])
        if number % 10 == 0:
            peak = max(peak, rss_anon_bytes())
    return {"rows": rows, "rss_anon_mb": peak / 1e6}


def start(shuffle: str) -> dict[str, float]:
    """Of the first epoch and of the next one in this process, to the first batch and to one in the middle."""
    from heliostat.data import BatchPlan, RowOrder, row_ids

    found: dict[str, float] = {}
    for epoch in (0, 1):
        begin = time.perf_counter()
        order = RowOrder(num_rows=MANY_ROWS, seed=7, epoch=epoch, shuffle=shuffle)
        plan = BatchPlan(num_rows=MANY_ROWS, global_batch_size=BATCH_SIZE, num_microbatches=1)
        row_ids(order, plan, 0, 0)
        found[f"epoch_{epoch}_ms"] = (time.perf_counter() - begin) * 1e3
    begin = time.perf_counter()
    row_ids(order, plan, plan.num_steps // 2, 0)
    found["resume_in_the_middle_ms"] = (time.perf_counter() - begin) * 1e3
    return found


def child(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        job, *rest = chosen.child
        print(json.dumps(memory(Path(rest[0]), rest[1]) if job == "memory" else start(rest[0])))
        return
    found: dict[str, Any] = {"memory": {}, "start": {}}
    with tempfile.TemporaryDirectory(prefix="heliostat-benchmark-", dir=chosen.folder) as name:
        for num_rows in SIZES:
            write(Path(name) / str(num_rows), num_rows)
        for shuffle in SHUFFLES:
            runs: dict[int, list[dict[str, float]]] = {num_rows: [] for num_rows in SIZES}
            for _ in range(chosen.rounds):
                for num_rows in SIZES:
                    runs[num_rows].append(child("memory", str(Path(name) / str(num_rows)), shuffle))
            small, large = (medians(runs[num_rows])["rss_anon_mb"] for num_rows in SIZES)
            verdict = "reached" if large < small * (1 + MOST_GROWTH) else "missed"
            print(
                f"RssAnon, {shuffle}: {small:.1f} MB for {SIZES[0]:,} rows, {large:.1f} MB for {SIZES[1]:,}: {verdict}"
            )
            found["memory"][shuffle] = {str(num_rows): medians(runs[num_rows]) for num_rows in SIZES}
    for shuffle in SHUFFLES:
        starts = medians([child("start", shuffle) for _ in range(chosen.rounds)])
        verdict = "reached" if starts["epoch_0_ms"] < MOST_START_S * 1e3 else "missed"
        times = ", ".join(
            f"{key.replace('_', ' ').removesuffix(' ms')} {value:.1f} ms" for key, value in starts.items()
        )
        print(f"{MANY_ROWS:,} rows, {shuffle}: {times}; bar of {MOST_START_S * 1e3:.0f} ms {verdict}")
        found["start"][shuffle] = starts
    print(json.dumps(found))


if __name__ == "__main__":
    main()
