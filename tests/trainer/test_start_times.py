"""Time to the first step by parts; workers and their models are kept between tasks."""

from __future__ import annotations

import json
import threading
import time

import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.engine.times import StartTimes

from ..slow import SLOW
from .conftest import dense_data
from .helpers import local_trainer
from .models import normalised

# In the order in which they happen.
WORKER_PARTS = ("imports", "set_up", "open", "build", "trace", "compile", "join", "probe", "step")


def record_of(result):
    return json.loads((result.run_dir / "run.json").read_text())


def first_steps(result):
    events = [json.loads(line) for line in (result.run_dir / "events.jsonl").read_text().splitlines()]
    return [each for each in events if each["event"] == "first_step"]


def test_parts_add_up_over_blocks():
    times = StartTimes()
    for name in ("open", "trace", "open"):
        before = dict(times.seconds)
        with times.part(name):
            pass
        assert times.seconds[name] > before.get(name, 0.0)
    assert list(times.rounded()) == ["open", "trace"]


def test_a_part_counts_when_its_block_fails():
    times = StartTimes()
    with pytest.raises(ValueError, match="no"), times.part("build"):
        raise ValueError("no")
    assert "build" in times.seconds


@pytest.mark.engine
def test_a_run_records_its_start_on_every_worker_and_says_it_once(tmp_path, capfd):
    data = dense_data()
    with Trainer(normalised, workers=2, in_process=True, run_dir=tmp_path / "run") as trainer:
        results = [trainer.fit(data, epochs=2, global_batch_size=16, verbose=verbose) for verbose in (2, 0)]
    first, second = (record_of(result)["start_s"] for result in results)
    assert list(first["driver"]) == ["data", "devices", "workers"]
    assert list(first["worker"]) == list(WORKER_PARTS)
    total = sum(first["driver"].values()) + sum(first["worker"][part] for part in WORKER_PARTS[2:])
    assert 0 < total <= first["first_step"]
    assert list(second["driver"]) == ["data"]  # the workers were there
    assert list(second["worker"]) == list(WORKER_PARTS[2:])
    assert {each["worker"] for each in first_steps(results[0])} == {0, 1}
    line = f"first step after {first['first_step']:.1f} s"
    assert [each for each in capfd.readouterr().out.splitlines() if "first step" in each] == [line], "and no parts"


@pytest.mark.engine
def test_models_are_built_once_for_a_fit_and_kept_for_what_follows(tmp_path):
    built = []

    def build():
        built.append(threading.current_thread().name)
        return normalised()

    x, y = dense_data()
    with Trainer(build, workers=2, in_process=True, run_dir=tmp_path / "run") as trainer:
        trainer.fit((x, y), validation_data=(x, y), epochs=2, global_batch_size=16, verbose=0)
        assert len(built) == len(set(built)) == 2
        trainer.evaluate((x, y))
        trainer.predict(x)
        trainer.evaluate((x, y))
        assert len(built) == 2


@pytest.mark.ray
def test_ray_workers_are_kept_between_tasks(warm_trainer):
    x, y = dense_data()
    trainer = warm_trainer(normalised)
    first = trainer.fit((x, y), epochs=1, global_batch_size=16, verbose=0)
    pids = {each["pid"] for each in record_of(first)["workers"]}
    trainer.evaluate((x, y))
    trainer.predict(x)
    second = trainer.fit((x, y), epochs=1, global_batch_size=16, verbose=0)
    assert {each["pid"] for each in record_of(second)["workers"]} == pids
    assert list(record_of(second)["start_s"]["driver"]) == ["data"]


def num_up(trainer):
    """Workers that are up; none before the first is started."""
    try:
        return trainer.workers.group.pool.statistics().up
    except RuntimeError:
        return 0


@pytest.mark.engine
def test_workers_start_while_a_stream_is_written(tmp_path):
    x, y = dense_data()
    found = []

    def batches():
        yield x[:16], y[:16]  # a stream's first batch tells its columns, before anything is started
        until_s = time.monotonic() + 60 * SLOW
        while num_up(trainer) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        found.append(num_up(trainer))
        yield x[16:], y[16:]

    with local_trainer(normalised, tmp_path, workers=2) as trainer:
        trainer.fit(batches, epochs=1, global_batch_size=16, verbose=0)
    assert found == [2]  # both were up before the rest was written
