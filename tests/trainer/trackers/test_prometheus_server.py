"""A server of Prometheus fetches the metrics of a run, and answers its queries."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from heliostat.trainer import Trainer

from ...slow import SLOW
from .servers import free_port, prometheus_program, running

pytestmark = [pytest.mark.engine, pytest.mark.slow]
X = np.linspace(0, 1, 48, dtype="float32").reshape(16, 3)
CONFIGURATION = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: heliostat
    static_configs: [{targets: ["127.0.0.1:PORT"]}]
"""


def build_model():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def asked(address: str, query: str) -> list:
    """What Prometheus answers, once it has something to answer."""
    until_s = time.monotonic() + 30 * SLOW
    while True:
        with urllib.request.urlopen(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}") as answer:
            found = json.load(answer)["data"]["result"]
        if found or time.monotonic() > until_s:
            return found
        time.sleep(0.1)


def test_prometheus_fetches_a_run(tmp_path):
    port = free_port()
    with Trainer(build_model, workers=0, run_dir=tmp_path / "run", metrics_port=f"127.0.0.1:{port}") as trainer:
        result = trainer.fit(X, X[:, :1], batch_size=8, epochs=3, verbose=0)
        (tmp_path / "prometheus.yml").write_text(CONFIGURATION.replace("PORT", str(port)))
        address = f"http://127.0.0.1:{(own := free_port())}"
        command = [prometheus_program(), f"--config.file={tmp_path / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}"]
        with running(command, address, "/-/ready", tmp_path):
            (rows,) = asked(address, "heliostat_samples_total")
            assert float(rows["value"][1]) == 48
            (loss,) = asked(address, 'heliostat_metric{metric="loss", epoch="done"}')
            assert float(loss["value"][1]) == pytest.approx(result.history["loss"][-1])
            (state,) = asked(address, "heliostat_run_state == 1")
            assert state["metric"]["state"] == "finished"
            shares = asked(address, "heliostat_worker_seconds_total")
            assert {"compute", "input"} <= {each["metric"]["part"] for each in shares}
