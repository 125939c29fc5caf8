"""Rows per second of shuffled batches of 256: Heliostat, tf.data, TFRecord, Ray Data, Hugging Face, MosaicML, Grain.

    python scripts/benchmarks/reader.py [--kinds fixed tokens images] [--rounds 3] [--seconds 2] [--json FILE]
        [--sources NAME ...] [--python "MosaicML Streaming=/path/to/python"] [--fashion-mnist IMAGES.idx]

Three datasets, made here: 60,000 rows of 784 bytes; 200,000 rows of 10 to 400 tokens, padded to 200 in the batch;
20,000 JPEGs of 28×28 to 64×64, decoded and resized to 32×32. In every round each source runs once in a fresh process,
in alternating order: one unmeasured pass, whole passes until `--seconds` are over (hot), then one pass over a copy of
its files that was put out of the page cache by posix_fadvise and has not been opened before (cold; not for sources that
hold all rows in memory). Medians of rows/s, `spread` = (largest - smallest) / median, and the ratio of
"Heliostat, batches" to each within a round. A library that is not installed is left out, and said so; `--python` names
the environment that has it. Then, by reader_limits.py, memory as a dataset grows and the start of an epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from reader_data import KINDS, NUM_ROWS, Kind, make_rows  # type: ignore[import-not-found]
from reader_process import SOURCES  # type: ignore[import-not-found]

OURS = "Heliostat, batches"
_TIMEOUT_S = 600
_MARK = '{"reader"'

Runs = dict[str, list[dict[str, float]]]
"""What every source found, by round."""


def run_process(python: str, job: str, source: str, kind: Kind, folder: Path, seconds: float) -> dict[str, Any]:
    """What one fresh process found; raises RuntimeError if it printed no result."""
    script = Path(__file__).with_name("reader_process.py")
    command = [python, str(script), job, source, kind, str(folder), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not results:
        raise RuntimeError(f"{source} on {kind} printed no result:\n{done.stderr[-3000:]}")
    return dict(json.loads(results[-1])["reader"])


def measure(kind: Kind, pythons: dict[str, str], folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """All sources on one kind of rows."""
    missing: dict[str, str] = {}
    for source, python in pythons.items():
        found = run_process(python, "prepare", source, kind, folder, 0.0)
        if "missing" in found:
            missing[source] = found["missing"]
            print(f"  {kind:7} {source:28} left out: {found['missing']}", file=sys.stderr, flush=True)
    present = [source for source in pythons if source not in missing]
    runs: Runs = {source: [] for source in present}
    for number in range(rounds):
        for source in present if number % 2 == 0 else reversed(present):
            found = run_process(pythons[source], "measure", source, kind, folder, seconds)
            runs[source].append(found)
            print(f"  {kind:7} {source:28} {_line(found)}", file=sys.stderr, flush=True)
    return {"kind": kind, "num_rows": NUM_ROWS[kind], "missing": missing, "sources": summarise(runs), "runs": runs}


def summarise(runs: Runs) -> dict[str, dict[str, float]]:
    """Medians, spreads and ratios; cold ones where all rounds have them."""
    return {source: _summary(found, runs.get(OURS, [])) for source, found in runs.items() if found}


def _summary(found: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, float]:
    result: dict[str, float] = {}
    for name in ("hot", "cold"):
        values = [run[name] for run in found if name in run]
        if len(values) < len(found):
            continue
        middle = statistics.median(values)
        result |= {name: round(middle), f"{name}_spread": round((max(values) - min(values)) / middle, 2)}
        if ours:
            ratios = [mine[name] / other for mine, other in zip(ours, values, strict=True)]
            result[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    result["rss_anon_mb"] = round(statistics.median(run["rss_anon_mb"] for run in found))
    return result


def _line(found: dict[str, float]) -> str:
    cold = f"{found['cold']:12,.0f} cold" if "cold" in found else ""
    return f"{found['hot']:12,.0f} rows/s hot {cold}"


def table(found: dict[str, Any]) -> str:
    """One kind's results for people."""
    lines = [
        f"{found['kind']}: {found['num_rows']:,} rows",
        f"{'':28} {'hot':>10} {'±':>5} {'×':>6} {'cold':>10} {'×':>6} {'MB':>5}",
    ]
    for source, values in found["sources"].items():
        cold = f"{values['cold']:10,} {values.get('cold_ratio', 0):6.2f}" if "cold" in values else f"{'–':>10} {'':6}"
        ratio = values.get("hot_ratio", 0)
        lines.append(
            f"{source:28} {values['hot']:10,} {values['hot_spread']:5.0%} {ratio:6.2f} {cold} {values['rss_anon_mb']:5}"
        )
    lines += [f"{source:28} left out: {reason}" for source, reason in found["missing"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--python", action="append", default=[], metavar="SOURCE=PATH", help="another interpreter")
    parser.add_argument("--fashion-mnist", type=Path, metavar="FILE", help="IDX file of images to make the JPEGs of")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the files go for the time  [default: the temporary folder]")
    parser.add_argument("--without-limits", action="store_true", help="leave out memory and the start of an epoch")
    chosen = parser.parse_args()
    others = dict(item.split("=", 1) for item in chosen.python)
    pythons = {source: others.get(source, sys.executable) for source in chosen.sources}
    found: list[dict[str, Any]] = []
    for kind in chosen.kinds:
        with tempfile.TemporaryDirectory(prefix="heliostat-benchmark-", dir=chosen.folder) as name:
            make_rows(kind, NUM_ROWS[kind], chosen.fashion_mnist).save(Path(name) / "arrays")
            found.append(measure(kind, pythons, Path(name), chosen.rounds, chosen.seconds))
        print(table(found[-1]), flush=True)
        save(chosen.json, {"kinds": found})  # now, because the whole takes half an hour
    limits = {} if chosen.without_limits else run_limits(chosen.folder)
    save(chosen.json, {"kinds": found, "limits": limits})


def save(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")


def run_limits(folder: Path | None) -> dict[str, Any]:
    """What reader_limits.py prints."""
    command = [sys.executable, str(Path(__file__).with_name("reader_limits.py"))]
    done = subprocess.run(
        [*command, *(["--folder", str(folder)] if folder else [])], capture_output=True, text=True, check=True
    )
    print(done.stdout, end="", flush=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
