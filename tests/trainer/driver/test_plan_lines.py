"""What a user is told of how a run is computed before its first step, and of how long it takes after the first ones."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from heliostat.cluster.disk.disk import Disk
from heliostat.data import write_dataset
from heliostat.trainer.beginning import ModelState
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import EverySeconds, EverySteps, FitConfig, PassConfig
from heliostat.trainer.driver.expected_time import ExpectedTime
from heliostat.trainer.driver.plan_lines import model_line, pass_lines, plan_lines
from heliostat.trainer.jobs import FitJob, PassJob, Progress, Ready
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare

DISK = cast(Disk, object())  # that there is one is all that counts here


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("here") / "train", {"x": np.arange(71), "y": np.arange(71)})


@pytest.fixture
def lines(data, tmp_path):
    """lines(workers, stored V, hosts=...): what is said of a run over 71 rows in batches of 16."""

    def found(workers, stored=None, *, hosts=(), replicas=1, threads=8, device="cpu", fit=None, disk=None, **settings):
        share = WorkerShare(replicas=replicas, threads=threads, device=device)
        known = TrainerConfig(workers=workers, **settings).for_run(share, stored)
        wanted = {"checkpoint_dir": str(tmp_path / "run/checkpoints"), "global_batch_size": 16, "epochs": 3}
        job = FitJob(
            settings=known,
            wanted=FitConfig(**(wanted | (fit or {}))),
            data=data,
            validation_data=None,
            run_dir=str(tmp_path / "run"),
            disk=disk,
        )
        return list(plan_lines(job, dict(enumerate(hosts)), "here"))

    return found


def test_a_plan_is_three_lines(lines, data):
    assert lines(2, hosts=["here", "here"], num_microbatches=8) == [
        "plan: 2 workers on here, each with 1 CPU replica and 8 threads; 3 epochs of 5 steps; "
        "global batch 16, 8 per replica, in 8 microbatches of 2",
        f"data: 71 rows in {data.name}; a checkpoint every epoch, the last 3 kept in the run folder",
        "the same bits on any workers with num_microbatches=8, threads_per_worker=8",
    ]


def test_threads_do_not_decide_the_bits_of_gpus(lines):
    plan, _, fixed = lines(1, hosts=["here"], replicas=4, num_microbatches=8, device="gpu", fit={"epochs": 1})
    assert "1 worker on here, with 4 GPU replicas and 8 threads; 1 epoch of 5 steps; global batch 16, 4 per" in plan
    assert fixed == "the same bits on any workers with num_microbatches=8"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": 0}, "plan: this process, with 1 CPU replica and 8 threads; "),
        ({"workers": 2, "in_process": True}, "plan: 2 workers as threads of this process, each with "),
        ({"workers": 3, "hosts": ["a", "b", "c"]}, "plan: 3 workers on a, b and c, each with "),
        ({"workers": 3, "hosts": ["a", "b", "a"]}, "plan: 3 workers on a (2) and b (1), each with "),
        ({"workers": 4, "hosts": ["a", "b"], "min_workers": 2}, "plan: 4 workers, 2 of them up, on a and b, each "),
        ({"workers": 6, "hosts": list("abcdef")}, "plan: 6 workers on 6 machines: a, b, c, d and 2 more, each with "),
    ],
)
def test_who_computes_is_told(lines, arguments, said):
    assert lines(**arguments)[0].startswith(said)


def test_the_rows_of_a_replica_are_those_of_its_microbatches(lines):
    assert "global batch 16, in 1 microbatch of 16" in lines(1)[0]
    assert "global batch 16, 4 to 8 per replica, in 4 microbatches of 4" in lines(3)[0]
    assert "global batch 16, 2 to 3 per replica, in 6 microbatches of up to 3" in lines(6, num_microbatches=6)[0]


def test_replicas_that_a_run_has_no_microbatches_for_are_told(lines):
    assert "with 6 replicas 2 of them have nothing to compute" in lines(3, 4, replicas=2)[3]
    assert "0 to 4 per replica" in lines(3, 4, replicas=2)[0]
    assert not any("nothing to compute" in line for line in [*lines(2, 4, replicas=2), *lines(3, replicas=2)])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"workers": 2}, "num_microbatches=8 gives room for balancing"),
        ({"workers": 3}, "as many microbatches as the others, 4 on 3 replicas"),
        ({"workers": 2, "num_microbatches": 4}, ""),
        ({"workers": 2, "balance": False}, ""),
        ({"workers": 1}, ""),
        ({"workers": 0}, ""),
    ],
)
def test_the_plan_says_how_to_make_room(lines, arguments, hint):
    said = " ".join(line for line in lines(**arguments) if "balancing" in line)
    assert hint in said
    assert bool(said) == bool(hint)


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({"checkpoint_every": None}, "; no checkpoints"),
        ({"checkpoint_every": EverySteps(100), "keep": 1}, "; a checkpoint every 100 steps, the last kept in the"),
        ({"checkpoint_every": EverySeconds(90)}, "; a checkpoint every 90 s, the last 3 kept in the run folder"),
        ({"checkpoint_dir": "/mnt/big/run-1"}, "kept in /mnt/big/run-1"),
        ({"checkpoint_dir": "s3://me:secret@bucket/run-1?secret_key=abc"}, "kept in s3://bucket/run-1"),
    ],
)
def test_it_is_told_when_and_where_checkpoints_are_made(lines, fit, said):
    line = lines(1, hosts=["here"], fit=fit)[1]
    assert said in line
    assert "secret@" not in line
    assert "abc" not in line


def test_it_is_told_what_travels_between_machines(lines):
    feeds = "the disk of here feeds 2 other machines, once each, unless they have the same files"
    line = lines(3, hosts=["here", "b", "c"], disk=DISK)[1]
    assert line.endswith(f"; {feeds} and gets the checkpoints that they write")
    line = lines(3, hosts=["here", "b", "c"], disk=DISK, fit={"checkpoint_dir": "s3://bucket/run"})[1]
    assert line.endswith(f"; {feeds}")
    assert "disk of" not in lines(3, hosts=["here", "here", "here"], disk=DISK)[1], "nothing has to travel"
    assert "disk of" not in lines(3, hosts=["here", "b", "c"])[1], "they are the driver's own"


def test_rows_in_the_run_folder_and_those_of_the_validation_are_told(data, tmp_path):
    written = write_dataset(tmp_path / "run/data/train", {"x": np.arange(5), "y": np.arange(5)})
    settings = TrainerConfig(workers=0).for_run(WorkerShare())
    job = FitJob(
        settings=settings, wanted=FitConfig(), data=written, validation_data=data, run_dir=str(tmp_path / "run")
    )
    assert f"data: 5 rows in the run folder, validation on 71 rows in {data.name}; " in list(plan_lines(job, {}, ""))[1]
    elsewhere = FitJob(settings=settings, wanted=FitConfig(), data=written, validation_data=None, run_dir="/run")
    assert "data: 5 rows in the run folder; " in list(plan_lines(elsewhere, {}, "", str(tmp_path)))[1]


def test_a_pass_is_two_lines(data):
    job = PassJob(
        settings=TrainerConfig(workers=2).for_run(WorkerShare()),
        wanted=PassConfig(columns=Columns(), global_batch_size=64),
        data=data,
        model=ModelState(),
        disk=DISK,
    )
    assert list(pass_lines("evaluate", job, {0: "here", 1: "b"}, "here")) == [
        "plan: 2 workers on here and b, each with 1 CPU replica and 1 thread; evaluate: global batch 64, "
        "32 per replica, in 2 microbatches of 32",
        f"data: 71 rows in {data.name}; the disk of here feeds 1 other machine, once each, unless they have the same "
        "files",
    ]
    assert "data: 71 rows in memory" in list(pass_lines("predict", job, {0: "here"}, "here", "memory"))[1]


def test_memory_is_told_by_part():
    platform, memory = {"processor": "EPYC"}, {"weights": 5_000_000}
    ready = Ready(shapes="", num_weights=1_250_000, platform=platform, model={}, memory=memory)
    assert model_line(ready, 1) == "the model has 1,250,000 weights, on EPYC; each worker holds about: weights 5.0 MB"
    assert "; each of a worker's 2 replicas holds about: weights 5.0 MB" in model_line(ready, 2)
    bare = Ready(shapes="", num_weights=1, platform={"processor": "EPYC", "gpu": "H200 (9.0)"}, model={})
    assert model_line(bare, 1) == "the model has 1 weight, on H200 (9.0)"


# -- the expected time ------------------------------------------------------------------------------------------------


def run_of(expected: ExpectedTime, *, epochs: int, steps: int, step_s: Any, between_s: float = 0.0) -> list[str]:
    """What is said while a run goes on, with the time at which it is said; `step_s(n)` is how long step n takes."""
    said, now, number = [], 1000.0, 0
    for epoch in range(epochs):
        for step in range(1, steps + 1):
            now, number = now + step_s(number), number + 1
            progress = Progress(epoch=epoch, step=step, steps=steps, rows=1, logs={}, num_workers=1)
            said.append(expected.after_steps(progress, now))
        now += between_s
        said.append(expected.after_epoch(epoch, now))
    return [line for line in said if line]


def test_the_median_of_the_first_steps_times_those_that_are_left():
    expected = ExpectedTime(10, 100, validates=True)
    slow_at_first = run_of(expected, epochs=10, steps=100, step_s=lambda n: 9.0 if n in (1, 4) else 1.0)
    assert slow_at_first == ["expected: 16 min 34 s more: 994 steps of 1 s, validation not included"]


def test_an_epoch_that_ends_before_shows_what_lies_between_epochs():
    expected = ExpectedTime(101, 20, validates=True)
    said = run_of(expected, epochs=101, steps=20, step_s=lambda _: 0.01, between_s=1.8)
    assert said == ["expected: 3 min 20 s more: 2,000 steps of 10 ms and 100 validations of 1.8 s"]
    expected = ExpectedTime(101, 20, validates=False)
    (line,) = run_of(expected, epochs=101, steps=20, step_s=lambda _: 0.01, between_s=0.9)
    assert line.endswith("more: 2,000 steps of 10 ms and 100 epoch ends of 900 ms")


def test_epochs_of_one_step_are_counted_whole():
    said = run_of(ExpectedTime(50, 1, validates=False), epochs=50, steps=1, step_s=lambda _: 2.0, between_s=1.0)
    assert said == ["expected: 2 min 24 s more: 48 epochs of 3 s"]


def test_a_run_of_seconds_has_no_line():
    assert not run_of(ExpectedTime(3, 20, validates=True), epochs=3, steps=20, step_s=lambda _: 0.1)
    assert not run_of(ExpectedTime(1, 20, validates=True), epochs=1, steps=20, step_s=lambda _: 0.1)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "1 min 40 s"), (59.7 * 60 / 200, "59 min 42 s"), (18.0, "1 h"), (1800.0, "4 d 4 h"), (0.0598, "12 s")],
)
def test_times_are_told_as_people_tell_them(seconds, said):
    (line,) = run_of(ExpectedTime(202, 1, validates=False), epochs=202, steps=1, step_s=lambda _: seconds)
    assert line.startswith(f"expected: {said} more: 200 epochs of ")


def test_a_run_that_goes_on_counts_what_is_left():
    expected = ExpectedTime(10, 100, validates=False)
    said = [
        expected.after_steps(Progress(epoch=8, step=step, steps=100, rows=1, logs={}, num_workers=1), float(step))
        for step in range(40, 60)
    ]
    assert [line for line in said if line] == ["expected: 2 min 35 s more: 155 steps of 1 s"]
