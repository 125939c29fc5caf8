"""Draw what `allreduce.py` measured: time per call by size, one panel per number of workers, with the copy limit.

    /tmp/other/bin/python scripts/benchmarks/allreduce_plot.py allreduce.json allreduce.png

Needs matplotlib, which Heliostat does not install.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LABELS = {
    "heliostat": "Heliostat",
    "heliostat-sockets": "Heliostat, Unix sockets",
    "gloo": "gloo",
    "tensorflow": "TensorFlow's ring",
    "copy": "a copy of the vector (limit)",
}


def main() -> None:
    """Draw the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    source, target = sys.argv[1:]
    rows = json.loads(Path(source).read_text())["rows"]
    counts = sorted({row["workers"] for row in rows})
    figure, panels = pyplot.subplots(1, len(counts), figsize=(5.5 * len(counts), 4.5), sharey=True, squeeze=False)
    for panel, workers in zip(panels[0], counts, strict=True):
        for way, label in LABELS.items():
            points = sorted((r for r in rows if (r["way"], r["workers"]) == (way, workers)), key=lambda r: r["bytes"])
            if not points:
                continue
            size_mb = [row["bytes"] / 1e6 for row in points]
            style = {"linestyle": "--", "color": "grey"} if way == "copy" else {"marker": "o", "markersize": 3}
            (line,) = panel.plot(size_mb, [row["median_ms"] for row in points], label=label, **style)
            low, high = ([pick(row["block_medians_ms"]) for row in points] for pick in (min, max))
            panel.fill_between(size_mb, low, high, alpha=0.15, color=line.get_color())
        panel.set(xscale="log", yscale="log", xlabel="vector, MB", title=f"{workers} workers on one host")
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[0][0].set_ylabel("time of an all-reduce, ms")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(target, dpi=90)


if __name__ == "__main__":
    main()
