"""Two hosts, as network namespaces with a node of Ray each: a slow link, one that is cut,
and a host that goes away with notice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from heliostat.trainer import Trainer

from ..slow import SLOW
from .conftest import dense_data
from .faults import events_of, outcome
from .hosts import NAMES, Hosts, why_not
from .models import normalised

pytestmark = [pytest.mark.faults, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
ROWS, EPOCHS, DEADLINE_S = 71, 40, 8
FIT = {"epochs": EPOCHS, "global_batch_size": 16, "verbose": 0, "record_rows": True}
SCRIPT = f'''
import importlib.util, json, sys, time
from pathlib import Path
sys.path.insert(0, {str(REPOSITORY)!r})
import cloudpickle
import tests.trainer.conftest, tests.trainer.faults, tests.trainer.models
for module in (tests.trainer.conftest, tests.trainer.faults, tests.trainer.models):
    cloudpickle.register_pickle_by_value(module)
from heliostat.trainer import Trainer
import keras

folder, needed = sys.argv[1:]

class Pace(keras.callbacks.Callback):
    """Slow until both workers have met, however long the second one takes to start."""

    def on_epoch_end(self, epoch, logs=None):
        path = Path(folder, "events.jsonl")
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\\n")]
        have_met = any(each["event"] == "formed" and len(each["workers"]) == 2 for each in events)
        time.sleep(0.25 if have_met else 4)

with Trainer(tests.trainer.models.normalised, workers=2, min_workers=int(needed), num_microbatches=4, seed=7,
             run_dir=folder, address="auto", threads_per_worker=1, balance=False, deadline_s={DEADLINE_S}) as trainer:
    result = trainer.fit(tests.trainer.conftest.dense_data({ROWS}), callbacks=[Pace()], **{FIT!r})
with open(folder + ".json", "w") as file:
    json.dump(tests.trainer.faults.outcome(result), file)
'''


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with Trainer(normalised, workers=0, num_microbatches=4, seed=7, run_dir=folder / "run") as trainer:
        return json.loads(json.dumps(outcome(trainer.fit(dense_data(ROWS), **FIT))))


@pytest.fixture
def hosts(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Hosts(tmp_path_factory.mktemp("hosts")) as made:
        yield made


def finished(process, run_dir):
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text[-4000:]
    return json.loads(run_dir.with_suffix(".json").read_text())


def complete_for(run_dir):
    """How many epochs have ended since both workers are in the group."""
    if not (run_dir / "metrics.jsonl").exists():
        return 0
    complete_s = [each["time"] for each in events_of(run_dir, "formed") if len(each["workers"]) == 2]
    ends = [each["time"] for each in events_of(run_dir, "checkpoint")]
    return sum(end > complete_s[0] for end in ends) if complete_s else 0


def started(hosts, run_dir):
    """A run that both workers have taken part in for a while."""
    process = hosts.run(SCRIPT, str(run_dir), "1")
    stop_s = time.monotonic() + 120 * SLOW
    while complete_for(run_dir) < 3:
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < stop_s
        time.sleep(0.05)
    return process


def test_a_slow_link_between_hosts_changes_nothing(hosts, undisturbed, tmp_path):
    hosts.limit("20mbit")
    before = hosts.num_sent_bytes()
    assert finished(hosts.run(SCRIPT, str(tmp_path / "run"), "2"), tmp_path / "run") == undisturbed
    assert hosts.num_sent_bytes() - before > 100_000
    formed = events_of(tmp_path / "run", "formed")
    assert [len(each["workers"]) for each in formed] == [2]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {each["host"] for each in record["workers"]} == set(NAMES)


def test_a_host_that_will_be_taken_away_is_left_between_two_steps(hosts, undisturbed, tmp_path):
    process = started(hosts, tmp_path / "run")
    complete = len(events_of(tmp_path / "run", "formed"))
    hosts.drain()
    assert finished(process, tmp_path / "run") == undisturbed
    assert not events_of(tmp_path / "run", "lost")
    assert [len(each["workers"]) for each in events_of(tmp_path / "run", "formed")[complete:]] == [1]


def test_the_link_is_cut_and_the_worker_on_the_drivers_side_goes_on(hosts, undisturbed, tmp_path):
    process = started(hosts, tmp_path / "run")
    cut_s = time.time()
    hosts.cut()
    assert finished(process, tmp_path / "run") == undisturbed
    lost = events_of(tmp_path / "run", "lost")
    assert len(lost) == 1
    assert lost[0]["host"] == NAMES[1]
    assert lost[0]["time"] > cut_s
