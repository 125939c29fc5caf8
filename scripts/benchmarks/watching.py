"""What looking at a run costs: screen, report and trackers together, in pairs within one process, with a bound.

    python scripts/benchmarks/watching.py [--pairs 12] [--seconds 10] [--save]

The chapter's model on two workers of one thread. In every pair one fit of `--seconds` is watched by all there is, the
live block on a terminal (a pseudo-terminal that somebody reads), TensorBoard, Prometheus with a fetch each second, W&B
offline and MLflow with a server that takes everything, and one by nobody (``verbose=0``), in alternating order, on
workers of their own that stay up; the machine's other work meets both. Measured is the time of a step from the end of
the first epoch to the end of the last, by the lines of ``metrics.jsonl``. Samples, events and the report are part of
every run, so they are in both: what those cost `paired.py` says, between two checkouts. The bound is that of `paired`:
the geometric mean of watched / alone, and the ends of its 95 % confidence interval, one-sided each. Beside it stands
the driver's processor time per step, the start of the fit included, which a busy machine blurs less; W&B's own process
is not in it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import models  # type: ignore[import-not-found]
import ray
from heliostat_process import Stop  # type: ignore[import-not-found]
from paired import bounds  # type: ignore[import-not-found]
from run import ENDLESS_EPOCHS, Found, epochs_of, finish, free_ports, median, parser_of, training  # type: ignore[import-not-found]

MODEL = "chapter"
FETCH_EVERY_S = 1.0


RUN = {"info": {"run_id": "1", "run_uuid": "1", "experiment_id": "0", "status": "RUNNING"}, "data": {}}


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers what MLflow's client asks as its server does, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"run": RUN} if self.path.endswith("/create") else {"run_info": RUN["info"]})

    def do_GET(self) -> None:
        self._answer({"run": RUN})

    def _answer(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def taking_everything() -> Iterator[str]:
    """The address of a server that answers MLflow's client."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Standard output is a terminal of 120 columns in the block, which somebody reads."""
    ours, theirs = pty.openpty()
    kept, sys.stdout = sys.stdout, os.fdopen(theirs, "w")
    reader = threading.Thread(target=_drained, args=(ours,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = kept
        reader.join()
        os.close(ours)


def _drained(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while os.read(descriptor, 65536):
            pass


@contextlib.contextmanager
def fetching(url: str) -> Iterator[None]:
    """What Prometheus does: fetch the metrics again and again."""
    over = threading.Event()

    def fetch() -> None:
        while not over.wait(FETCH_EVERY_S):
            urllib.request.urlopen(url).read()

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def measured(trainer: Any, data: Any, seconds: float, verbose: int) -> Found:
    """What a step takes, and what of the driver's processor time, in a fit of so many seconds after its first epoch."""
    began_s = time.process_time()
    result = trainer.fit(
        data,
        epochs=ENDLESS_EPOCHS,
        global_batch_size=models.WORKLOADS[MODEL].global_batch_size,
        callbacks=[Stop(seconds)],
        checkpoint_every=None,
        initial_weights="new",
        verbose=verbose,
    )
    driver_s, (first, *timed) = time.process_time() - began_s, epochs_of(result)
    seconds, steps = timed[-1]["time"] - first["time"], len(timed) * models.STEPS_PER_EPOCH
    return {"step_s": seconds / steps, "driver_s": driver_s / (steps + models.STEPS_PER_EPOCH)}


def main() -> None:
    """Time the pairs."""
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    os.environ.update(WANDB_MODE="offline", WANDB_ERROR_REPORTING="false", TERM="xterm", COLUMNS="120")
    x, y = models.make_data(MODEL)
    (port,) = free_ports(1)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")  # room for both
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(taking_everything())
        build, rows = partial(models.build_model, MODEL), {"x": x, "y": y}
        alone, data = stack.enter_context(training(build, rows, workers=2))
        all_there_is = {"tensorboard": True, "mlflow": server, "wandb": "watching"}
        watched, _ = stack.enter_context(
            training(build, {"x": x[:1], "y": y[:1]}, workers=2, metrics_port=f"127.0.0.1:{port}", **all_there_is)
        )

        def of_alone() -> Found:
            return measured(alone, data, chosen.seconds, verbose=0)

        def of_watched() -> Found:
            with terminal(), fetching(f"http://127.0.0.1:{port}/metrics"):
                return measured(watched, data, chosen.seconds, verbose=1)

        of_watched(), of_alone()  # starts workers, and loads what clients need
        pairs = list[tuple[Found, Found]]()
        for number in range(chosen.pairs):
            if number % 2:
                pairs.append((of_alone(), of_watched()))
            else:
                pairs.append((of_watched(), of_alone())[::-1])
            before, after = pairs[-1]
            print(f"  pair {number + 1}: alone {before}, watched {after}", file=sys.stderr, flush=True)
    mean, low, high = bounds([after["step_s"] / before["step_s"] for before, after in pairs])
    alone_s, of_driver_s = (median([pair[0] for pair in pairs], name) for name in ("step_s", "driver_s"))
    row: Found = {
        "model": MODEL,
        "pairs": len(pairs),
        "step_ms": round(1000 * alone_s, 2),
        "watched / alone": round(mean, 4),
        "lower bound": round(low, 4),
        "upper bound": round(high, 4),
        "driver_ms alone": round(1000 * of_driver_s, 3),
        "driver_ms watched": round(1000 * median([pair[1] for pair in pairs], "driver_s"), 3),
    }
    finish(chosen, "watching", {"rows": [row]})


if __name__ == "__main__":
    main()
