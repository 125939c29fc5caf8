"""Rows per second of shuffled batches of 256: Heliostat, tf.data, TFRecord, Ray Data, Hugging Face, Grain.

    python scripts/benchmarks/reader.py [--kinds fixed tokens images] [--rounds 3] [--seconds 2] [--save]
        [--sources NAME ...] [--python "Grain=/path/to/python"]

Three datasets, made here: 60,000 rows of 784 bytes; 200,000 rows of 10 to 400 tokens, padded to 200 in the batch;
20,000 JPEGs of 28×28 to 64×64, decoded and resized to 32×32. In every round each source runs once in a fresh process,
in changing order: one unmeasured pass, whole passes until `--seconds` are over (hot), then one pass over a copy of its
files that was put out of the page cache by posix_fadvise and has not been opened before (cold; not for sources that
hold all rows in memory). Medians of rows/s, `spread` = (largest - smallest) / median, and the ratio of "Heliostat,
batches" to each within a round. A library that is not installed is left out, and said so; `--python` names the
environment that has it. Memory as a dataset grows and the start of an epoch: reader_limits.py.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from reader_data import KINDS, NUM_ROWS, Kind, make_rows  # type: ignore[import-not-found]
from reader_process import SOURCES  # type: ignore[import-not-found]
from run import Found, child, finish, in_turn, median, parser_of, spread  # type: ignore[import-not-found]

OURS = "Heliostat, batches"


def measure(kind: Kind, pythons: dict[str, str], folder: Path, rounds: int, seconds: float) -> list[Found]:
    """All sources on one kind of rows."""

    def process(job: str, source: str) -> Found:
        options = (job, source, kind, folder, "--seconds", seconds)
        return child("reader_process.py", *options, key="reader", python=pythons[source])["reader"]

    made = {source: process("prepare", source) for source in pythons}
    left_out = [
        {"of": kind, "source": name, "left out": each["missing"]} for name, each in made.items() if "missing" in each
    ]
    present = [source for source, each in made.items() if "missing" not in each]
    runs = in_turn(present, rounds, lambda source: process("measure", source))
    return [row(kind, source, found, runs.get(OURS, [])) for source, found in runs.items()] + left_out


def row(kind: Kind, source: str, found: list[Found], ours: list[Found]) -> Found:
    """Medians, spreads and ratios; cold ones where all rounds have them."""
    result: Found = {"of": kind, "source": source}
    for name in ("hot", "cold"):
        if all(name in run for run in found):
            result |= {name: round(median(found, name)), f"{name} spread": round(spread(found, name), 2)}
        if name in result and ours:
            ratios = [mine[name] / other[name] for mine, other in zip(ours, found, strict=True)]
            result[f"Heliostat is, {name}"] = round(statistics.median(ratios), 2)
    return result | {"RssAnon MB": round(median(found, "rss_anon_mb"))}


def main() -> None:
    """Read kind after kind."""
    parser = parser_of(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--python", action="append", default=[], metavar="SOURCE=PATH", help="another interpreter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--part", type=float, default=1.0, help="of the rows, to try it out")
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    chosen = parser.parse_args()
    others = dict(item.split("=", 1) for item in chosen.python)
    pythons = {source: others.get(source, sys.executable) for source in chosen.sources}
    rows: list[Found] = []
    for kind in chosen.kinds:
        with tempfile.TemporaryDirectory(prefix="heliostat-bench-", dir=chosen.folder) as name:
            make_rows(kind, int(NUM_ROWS[kind] * chosen.part)).save(Path(name) / "arrays")
            rows += measure(kind, pythons, Path(name), chosen.rounds, chosen.seconds)
        finish(chosen, "reader", {"rows": rows})  # now, because the whole takes half an hour


if __name__ == "__main__":
    main()
