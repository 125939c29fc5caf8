"""When would a ring or a tree beat the full mesh? A model, with costs fitted to a measurement.

    python scripts/benchmarks/allreduce.py --ways heliostat-sockets --workers 2,3,4,6,8 \
        --sizes 4096,32768,262144,1000000,8000000,32000000 > growth.json
    python scripts/benchmarks/allreduce_model.py growth.json [--latency-us 50] [--gbit-s 10]

Fitted is the processor time of a worker per call, because on one machine the workers share cores:

    cpu(P, S) = fixed + per_peer (P - 1) + per_byte S

From it, with the latency of the network (alpha) and its seconds per byte (beta), for S bytes on P machines:

    mesh   2 alpha + fixed + per_peer (P - 1) + per_byte S + 2 (P - 1) / P S beta
    ring   2 (P - 1) (alpha + per_message) + fixed + per_byte S + 2 (P - 1) / P S beta
    tree   2 log2(P) (alpha + per_message) + fixed + per_byte S + 2 (P - 1) / P S beta   (halving and doubling)

A message costs per_message = per_peer / 2, since each peer means one message per round and there are two rounds. The
ring adds in the order of the ring, so it could not keep the bits of the fixed tree; it is here for comparison.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MACHINES = (2, 4, 8, 16, 32, 64)
SIZES_BYTES = (100_000, 1_000_000, 10_000_000, 100_000_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor seconds of a worker: per call, per call and peer, per byte of the vector."""

    fixed_s: float
    per_peer_s: float
    per_byte_s: float


def fit(rows: Sequence[dict[str, Any]]) -> tuple[Costs, float]:
    """Fit by least squares of relative errors; returns the costs and the median relative error."""
    measured = np.array([row["cpu_ms"] / 1e3 for row in rows])
    terms = np.array([[1.0, row["workers"] - 1.0, float(row["bytes"])] for row in rows])
    found, *_ = np.linalg.lstsq(terms / measured[:, None], np.ones(len(rows)), rcond=None)
    costs = Costs(*(max(0.0, float(value)) for value in found))
    errors = np.abs(terms @ np.array([costs.fixed_s, costs.per_peer_s, costs.per_byte_s]) / measured - 1.0)
    return costs, float(np.median(errors))


def call_s(way: str, costs: Costs, machines: int, num_bytes: float, alpha_s: float, beta_s: float) -> float:
    """Return the time of an all-reduce by the model."""
    moving_s = costs.fixed_s + costs.per_byte_s * num_bytes + 2 * (machines - 1) / machines * num_bytes * beta_s
    message_s = alpha_s + costs.per_peer_s / 2
    if way == "mesh":
        return moving_s + 2 * alpha_s + costs.per_peer_s * (machines - 1)
    return moving_s + 2 * message_s * (machines - 1 if way == "ring" else math.log2(machines))


def main() -> None:
    """Fit, and print what the model says."""
    parser = argparse.ArgumentParser(description="When a ring or a tree would beat the full mesh")
    parser.add_argument("measured", type=Path)
    parser.add_argument("--latency-us", type=float, default=50.0)
    parser.add_argument("--gbit-s", type=float, default=10.0)
    options = parser.parse_args()
    costs, error = fit(json.loads(options.measured.read_text())["rows"])
    print(
        f"fixed {costs.fixed_s * 1e6:.0f} us, per peer {costs.per_peer_s * 1e6:.0f} us, "
        f"per byte {costs.per_byte_s * 1e9:.3f} ns; median error of the fit {error:.0%}"
    )
    alpha_s, beta_s = options.latency_us * 1e-6, 8e-9 / options.gbit_s
    for size in SIZES_BYTES:
        for machines in MACHINES:
            times = {way: call_s(way, costs, machines, size, alpha_s, beta_s) for way in ("mesh", "ring", "tree")}
            gain = times["mesh"] - times["tree"]
            print(
                f"{size / 1e6:6.1f} MB  {machines:2} machines  "
                + "  ".join(f"{way} {time_s * 1e3:8.2f} ms" for way, time_s in times.items())
                + f"  a tree gains {gain * 1e3:6.2f} ms ({gain / times['mesh']:.0%})"
            )


if __name__ == "__main__":
    main()
