"""One process of one source of `reader.py`: prepares its files, or measures it, and prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import reader_others as others  # type: ignore[import-not-found]
import reader_sources as sources  # type: ignore[import-not-found]
from reader_data import Kind  # type: ignore[import-not-found]
from reader_page_cache import drop, files_below  # type: ignore[import-not-found]
from run import Found, status_bytes  # type: ignore[import-not-found]

SOURCES: dict[str, sources.Source] = {
    "Heliostat, batches": sources.Heliostat(),
    "Heliostat, tf.data": sources.HeliostatTfData(),
    "Heliostat, twelve lines": sources.HeliostatTwelveLines(),
    "tf.data in memory": sources.TfDataMemory(),
    "tf.data in memory, by index": sources.TfDataIndices(),
    "TFRecord": sources.TfRecord(),
    "Ray Data": others.RayData(),
    "Hugging Face": others.HuggingFace(),
    "Grain": others.Grain(),
}
_BATCHES_PER_LOOK = 100


def prepare(name: str, kind: Kind, folder: Path) -> Found:
    source = SOURCES[name]
    target = folder / source.folder_name
    if not target.exists():
        source.prepare(sources.Rows.load(kind, folder / "arrays"), target)
    with ExitStack() as exits:
        source.open(kind, target, exits)  # imports what it needs
    return {"num_bytes": sum(path.stat().st_size for path in files_below(target))}


def measure(name: str, kind: Kind, folder: Path, seconds: float) -> Found:
    source = SOURCES[name]
    target = folder / source.folder_name
    num_rows = len(np.load(folder / "arrays" / "y.npy", mmap_mode="r"))
    with ExitStack() as exits:
        one_pass = source.open(kind, target, exits)
        run_passes(one_pass, num_rows, 0.0, epoch=0)  # traces, and fills caches
        rows, elapsed_s, peak = run_passes(one_pass, num_rows, seconds, epoch=1)
        found = {"hot": rows / elapsed_s, "rss_anon_mb": peak / 1e6}
        del one_pass
    if not source.in_memory:
        found["cold"] = num_rows / cold_s(source, kind, target, num_rows)
    return found


def cold_s(source: sources.Source, kind: Kind, target: Path, num_rows: int) -> float:
    """Seconds of one pass over files that are not in the page cache.

    It reads a copy, because pages that this process has mapped would stay in the cache.
    """
    copy = target.with_name("cold")
    shutil.copytree(target, copy)
    try:
        drop(files_below(copy))
        with ExitStack() as exits:
            return run_passes(source.open(kind, copy, exits), num_rows, 0.0, epoch=1000)[1]
    finally:
        shutil.rmtree(copy)


def run_passes(one_pass: sources.Pass, num_rows: int, seconds: float, *, epoch: int) -> tuple[int, float, int]:
    """Whole passes, one at least, until the seconds are over: rows, seconds, largest RssAnon."""
    passes, peak, start = 0, 0, time.perf_counter()
    while not passes or time.perf_counter() - start < seconds:
        rows = 0
        for number, batch_rows in enumerate(one_pass(epoch + passes)):
            rows += batch_rows
            if number % _BATCHES_PER_LOOK == 0:
                peak = max(peak, status_bytes("RssAnon"))
        if rows != num_rows:
            raise RuntimeError(f"A pass gave {rows} rows instead of {num_rows}: not the same work.")
        passes += 1
    return passes * num_rows, time.perf_counter() - start, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", choices=["prepare", "measure"])
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("kind")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    try:
        if chosen.job == "prepare":
            found = prepare(chosen.source, chosen.kind, chosen.folder)
        else:
            found = measure(chosen.source, chosen.kind, chosen.folder, chosen.seconds)
    except ModuleNotFoundError as error:
        found = {"missing": str(error)}
    print(json.dumps({"reader": found}), flush=True)


if __name__ == "__main__":
    main()
