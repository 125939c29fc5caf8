"""One process of one source of `reader.py`: prepares its files, or measures it, and prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import reader_others as others  # type: ignore[import-not-found]
import reader_sources as sources  # type: ignore[import-not-found]
from reader_data import NUM_ROWS, Kind  # type: ignore[import-not-found]
from reader_page_cache import drop, files_below, rss_anon_bytes  # type: ignore[import-not-found]

SOURCES: dict[str, sources.Source] = {
    "Heliostat, batches": sources.Heliostat(),
    "Heliostat, own buffers": sources.HeliostatBuffers(),
    "Heliostat, tensors": sources.HeliostatTensors(),
    "Heliostat, tf.data": sources.HeliostatTfData(),
    "tf.data in memory": sources.TfDataMemory(),
    "tf.data in memory, by index": sources.TfDataIndices(),
    "TFRecord": sources.TfRecord(),
    "Ray Data": others.RayData(),
    "Hugging Face": others.HuggingFace(),
    "MosaicML Streaming": others.MosaicStreaming(),
    "Grain": others.Grain(),
}
_ROWS_PER_LOOK = 100


def prepare(name: str, kind: Kind, folder: Path) -> dict[str, Any]:
    source = SOURCES[name]
    target = folder / source.folder_name
    if not target.exists():
        source.prepare(sources.Rows.load(kind, folder / "arrays"), target)
    with ExitStack() as exits:
        source.open(kind, target, exits)  # imports what it needs
    return {"num_bytes": sum(path.stat().st_size for path in files_below(target))}


def measure(name: str, kind: Kind, folder: Path, seconds: float) -> dict[str, Any]:
    source = SOURCES[name]
    target = folder / source.folder_name
    found: dict[str, Any] = {}
    with ExitStack() as exits:
        one_pass = source.open(kind, target, exits)
        run_passes(one_pass, kind, 0.0, epoch=0)  # traces, and fills caches
        before = rss_anon_bytes()
        rows, elapsed_s, peak = run_passes(one_pass, kind, seconds, epoch=1)
        found |= {"hot": rows / elapsed_s, "rss_anon_mb": peak / 1e6, "rss_anon_growth_mb": (peak - before) / 1e6}
        del one_pass
    if not source.in_memory:
        found["cold"] = cold(source, kind, target, folder / "cold")
    return found


def cold(source: sources.Source, kind: Kind, target: Path, copy: Path) -> float:
    """Rows per second of one pass over files that are not in the page cache.

    It reads a copy, because pages that this process has mapped would stay in the cache.
    """
    shutil.copytree(target, copy)
    try:
        drop(files_below(copy))
        with ExitStack() as exits:
            one_pass = source.open(kind, copy, exits)
            rows, elapsed_s, _ = run_passes(one_pass, kind, 0.0, epoch=1000)
    finally:
        shutil.rmtree(copy)
    return rows / elapsed_s


def run_passes(one_pass: sources.Pass, kind: Kind, seconds: float, *, epoch: int) -> tuple[int, float, int]:
    """Whole passes, one at least, until the seconds are over: rows, seconds, largest RssAnon."""
    rows, peak, start = 0, 0, time.perf_counter()
    while not rows or time.perf_counter() - start < seconds:
        in_pass = 0
        for number, batch_rows in enumerate(one_pass(epoch)):
            in_pass += batch_rows
            if number % _ROWS_PER_LOOK == 0:
                peak = max(peak, rss_anon_bytes())
        if in_pass != NUM_ROWS[kind]:
            raise RuntimeError(f"A pass gave {in_pass} rows instead of {NUM_ROWS[kind]}: not the same work.")
        rows, epoch = rows + in_pass, epoch + 1
    return rows, time.perf_counter() - start, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job", choices=["prepare", "measure"])
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("kind")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
    try:
        if chosen.job == "prepare":
            found = prepare(chosen.source, chosen.kind, chosen.folder)
        else:
            found = measure(chosen.source, chosen.kind, chosen.folder, chosen.seconds)
    except ModuleNotFoundError as error:
        found = {"missing": str(error)}
    print("\n" + json.dumps({"reader": found}), flush=True)


if __name__ == "__main__":
    main()
