"""The examples of machines: one that is taken away in the middle, and one script on a laptop and on a cluster."""

from __future__ import annotations

import json
import signal

import pytest

from ..scripts.child import heliostat
from .running import EXAMPLES, ended, epochs, record, run, start, wait_until

pytestmark = pytest.mark.slow


@pytest.mark.faults
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_run_that_was_killed_goes_on_and_nothing_is_different(number, status, tmp_path):
    script = EXAMPLES / "spot_machines.py"
    undisturbed = run(script, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    run_dir = folder / "runs" / "spot"
    process = start(script, folder)
    wait_until(lambda: epochs(run_dir) >= 3 and any(run_dir.glob("checkpoints/*/manifest.json")), process)
    process.send_signal(number)
    found, said = ended(process, folder)
    assert found == status, said[-20:]
    assert epochs(run_dir) < 15
    assert not any(line.startswith("validation error") for line in said)
    again = run(script, folder)
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    began = [(event["epoch"], event["step"]) > (0, 0) for event in events if event["event"] == "resumed"]
    assert began == [True], again
    assert again[-1] == undisturbed[-1]
    assert record(run_dir)["sha256"] == record(tmp_path / "undisturbed" / "runs" / "spot")["sha256"]


@pytest.mark.ray
def test_one_script_gives_one_result_here_and_on_a_cluster(head, tmp_path):
    script = EXAMPLES / "laptop_to_cluster.py"
    said = run(script, tmp_path / "here")
    (run_dir,) = (tmp_path / "here" / "runs").iterdir()
    places = {
        "from elsewhere": {"HELIOSTAT_ADDRESS": head.address},
        "on a machine": {"HELIOSTAT_ADDRESS": "auto", "RAY_ADDRESS": head.gcs},
    }
    for name, variables in places.items():
        folder = tmp_path / name
        assert run(script, folder, HELIOSTAT_WORKERS="1", RAY_AUTH_MODE="token", **variables)[-1] == said[-1]
        (found,) = (folder / "runs").iterdir()
        assert record(found)["sha256"] == record(run_dir)["sha256"]
        assert (folder / "waves.keras").exists()
    folder = tmp_path / "submitted"
    folder.mkdir()
    (folder / script.name).write_text(script.read_text())
    options = ("--address", head.address, "--workers", "1", "--run-dir", "run")
    done = heliostat("submit", script.name, *options, cwd=folder, RAY_AUTH_MODE="token", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    assert record(folder / "run")["sha256"] == record(run_dir)["sha256"]
