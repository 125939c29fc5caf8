"""Converting files, beside their own reader: twice reading and once writing for CSV and JSON lines, once for Parquet.

    python scripts/benchmarks/converting.py [--formats csv json parquet] [--rows 3000000] [--rounds 3] [--save]
        [--before /other/checkout/.venv/bin/python]

One file of each format with the same rows: two whole numbers, two fractions, a word. In every round, in changing order
and fresh processes: `heliostat convert` here, by another checkout's Python if one is given, and pyarrow alone, which
reads the file in record batches as often as is needed (`pyarrow.dataset` for CSV, `open_json`, `ParquetFile`) and
writes them into an Arrow file. Reported: medians of seconds and of processor seconds (of all threads, which say more
where others use the machine too), their ratios within a round, and the largest RssAnon.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.dataset as pd
import pyarrow.json as pj
import pyarrow.parquet as pq
from run import Found, Peak, child, finish, in_turn, median, parsed, parser_of  # type: ignore[import-not-found]

# How often a format is read: to know its types, and to convert it.
READINGS = {"csv": 2, "json": 2, "parquet": 1}
_ROWS_AT_ONCE = 100_000
_BUFFER_BYTES = 1 << 20


def tables(num_rows: int) -> Iterator[pa.Table]:
    """The rows, some at a time."""
    numbers = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(1000)])
    for first in range(0, num_rows, _ROWS_AT_ONCE):
        num = min(_ROWS_AT_ONCE, num_rows - first)
        whole = {"id": np.arange(first, first + num), "count": numbers.integers(0, 1 << 40, num)}
        fractions = {name: numbers.normal(size=num) for name in ("a", "b")}
        yield pa.table({**whole, **fractions, "word": numbers.choice(words, num)})


def write(path: Path, num_rows: int) -> None:
    """A file of the format that its name ends with."""
    if path.suffix == ".json":
        with path.open("w") as file:
            for table in tables(num_rows):
                file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
        return
    schema = next(tables(1)).schema
    with (pc.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter)(path, schema) as writer:
        for table in tables(num_rows):
            writer.write_table(table)


def record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """A file by its own reader, in bounded memory."""
    if path.suffix == ".csv":
        return pd.dataset(path, format="csv").to_batches()
    if path.suffix == ".json":
        return iter(pj.open_json(path))
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES).iter_batches()


def plain(path: Path, target: Path) -> None:
    """Read as often as is needed, and write the last time."""
    for _ in range(READINGS[path.suffix[1:]] - 1):
        for _batch in record_batches(path):
            pass
    batches = record_batches(path)
    first = next(batches)
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, first.schema) as writer:
        for batch in itertools.chain([first], batches):
            writer.write_batch(batch)


def one(way: str, path: Path) -> Found:
    """In a process of its own: seconds and memory of one way."""
    from heliostat.data import convert

    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=path.parent) as name:
        peak, began, processor = Peak(), time.perf_counter(), time.process_time()
        if way == "plain":
            plain(path, Path(name) / "plain.arrow")
        else:
            convert(path, Path(name) / "set")
        seconds = {"seconds": time.perf_counter() - began, "processor s": time.process_time() - processor}
        return {**seconds, "RssAnon MB": peak.close() / 1e6}


def main() -> None:
    """Convert format after format."""
    parser = parser_of(__doc__)
    parser.add_argument("--formats", nargs="+", choices=READINGS, default=list(READINGS))
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", metavar="PYTHON", help="of another checkout, whose conversion is timed too")
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    chosen = parsed(parser, lambda chosen: one(chosen.one, chosen.folder))
    ways = ["heliostat", *(["before"] if chosen.before else []), "plain"]
    rows: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=chosen.folder) as name:
        for kind in chosen.formats:
            path = Path(name) / f"rows.{kind}"
            write(path, chosen.rows)

            def measure(way: str, path: Path = path) -> Found:
                python = chosen.before if way == "before" else sys.executable
                return child("converting.py", "--one", way, "--folder", path, key="seconds", python=python)

            runs = in_turn(ways, chosen.rounds, measure)
            for way, found in runs.items():
                figures = {name: round(median(found, name), 2) for name in found[0]}
                for each in ("seconds", "processor s"):
                    ratios = [{"x": mine[each] / p[each]} for mine, p in zip(found, runs["plain"], strict=True)]
                    figures[f"{each} to plain"] = round(median(ratios, "x"), 2)
                rows.append({"format": kind, "way": way, **figures})
            rows[-1]["MB"] = round(path.stat().st_size / 1e6, 1)
            finish(chosen, "converting", {"rows": rows})


if __name__ == "__main__":
    main()
