"""A step over a slow network: two hosts as network namespaces, their link limited by a token bucket (`tc tbf`).

    python scripts/benchmarks/network.py [--rates 1gbit 100mbit] [--models dense256 dense1024] [--save]

Needs root, network namespaces and the kernel's tbf; the hosts are those of the tests (`tests/trainer/hosts.py`), each
with a node of Ray and one worker. A step is compared with the sum of what cannot be saved without overlap: this run's
own gradient, local sum, update and input, and 2(P-1)/P * bytes of the gradient at the link's nominal rate. What is
above 1 is headers, latency, waiting for the slower of the two, and everything that happens between steps.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
import run  # type: ignore[import-not-found] # noqa: E402

from tests.trainer.hosts import Hosts, why_not  # noqa: E402

NUM_WORKERS, STEPS_PER_EPOCH, TIMED_EPOCHS = 2, 8, 4
NEEDED = ("compute_s", "local_sum_s", "apply_s", "input_s")
_UNITS = {"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
SCRIPT = f"""
import json, sys
sys.path.insert(0, {str(HERE)!r})
import cloudpickle, models
from heliostat.trainer import Trainer
cloudpickle.register_pickle_by_value(models)
name, data, folder, more = sys.argv[1:]
with Trainer(lambda: models.build_model(name), workers={NUM_WORKERS}, min_workers={NUM_WORKERS}, run_dir=folder,
             address="auto", deadline_s=60, threads_per_worker=1, **json.loads(more)) as trainer:
    links = trainer.measure_links()
    result = trainer.fit(data, epochs={1 + TIMED_EPOCHS}, steps_per_epoch={STEPS_PER_EPOCH}, checkpoint_every=None,
                         global_batch_size=models.WORKLOADS[name].global_batch_size, verbose=0)
    with open(folder + ".json", "w") as file:
        json.dump([[link.bytes_per_s, link.latency_s] for link in links], file)
"""


def bytes_per_s(rate: str) -> float:
    """Of a rate as tc takes it, such as 100mbit."""
    found = re.fullmatch(r"([0-9.]+)(kbit|mbit|gbit)", rate)
    if found is None:
        raise SystemExit(f"--rates {rate}: give a number and kbit, mbit or gbit, such as 100mbit")
    return float(found[1]) * _UNITS[found[2]]


def measure(hosts: Hosts, folder: Path, model: str, rate: str, gradient_dtype: str | None) -> run.Found:
    """One run over the link at a rate."""
    from heliostat.data import write_dataset
    from models import WORKLOADS, make_data  # type: ignore[import-not-found]

    batch = WORKLOADS[model].global_batch_size
    data, run_dir = folder / f"data-{model}", folder / f"run-{model}-{rate}"
    if not data.exists():
        x, y = (column[: STEPS_PER_EPOCH * batch] for column in make_data(model))
        write_dataset(data, {"x": x, "y": y})
    hosts.limit(rate)
    more = {} if gradient_dtype is None else {"gradient_dtype": gradient_dtype}
    process = hosts.run(SCRIPT, model, str(data), str(run_dir), json.dumps(more))
    said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"the run failed:\n{said[-3000:]}")
    ((link_bytes_per_s, latency_s),) = json.loads(run_dir.with_suffix(".json").read_text())
    record = json.loads((run_dir / "run.json").read_text())
    timed = [each for line in run.lines(run_dir / "metrics.jsonl")[1:] for each in line["seconds_by_worker"].values()]
    steps = TIMED_EPOCHS * STEPS_PER_EPOCH

    def step_ms(*parts: str) -> float:
        return 1000 * sum(times.get(part, 0.0) for times in timed for part in parts) / steps / NUM_WORKERS

    # From the first step of an epoch to its last; what happens at its end is left out of the comparison.
    whole_ms = step_ms(*timed[0])
    moved = 2 * (NUM_WORKERS - 1) / NUM_WORKERS * record["num_weights"] * (2 if gradient_dtype == "bfloat16" else 4)
    transfer_ms = 1000 * moved / bytes_per_s(rate)
    local_ms = step_ms(*NEEDED)
    needed_ms = local_ms + transfer_ms
    return {
        "model": model,
        "rate": rate,
        "gradient_dtype": gradient_dtype,
        "moved_mb": moved / 1e6,
        "step_ms": whole_ms,
        **{f"{part.removesuffix('_s')} ms": round(step_ms(part), 2) for part in timed[0]},
        "transfer_ms": transfer_ms,
        "needed_ms": needed_ms,
        "ratio": whole_ms / needed_ms,
        "link_mb_per_s": link_bytes_per_s / 1e6,
        "latency_ms": 1000 * latency_s,
    }


def main() -> None:
    parser = run.parser_of(__doc__)
    parser.add_argument("--rates", nargs="+", default=["1gbit", "100mbit"])
    parser.add_argument("--models", nargs="+", default=["dense256", "dense1024"])
    parser.add_argument("--gradient-dtype", help="handed to the Trainer, where it knows that argument")
    chosen = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"This machine cannot have two hosts: {reason}")
    rows: list[run.Found] = []
    with tempfile.TemporaryDirectory(prefix="heliostat-net-") as name, Hosts(Path(name)) as hosts:
        for model, rate in itertools.product(chosen.models, chosen.rates):
            rows.append(measure(hosts, Path(name), model, rate, chosen.gradient_dtype))
            run.finish(chosen, "network", {"rows": rows})


if __name__ == "__main__":
    main()
