"""What a run says of itself when it begins: whole lines, for every way to compute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from heliostat.cluster.disk.disk import Disk
from heliostat.data import write_dataset
from heliostat.trainer.config import FitConfig
from heliostat.trainer.driver.start_lines import (
    first_step,
    idle_cores_line,
    model_built,
    shared_cores_line,
    shown_path,
    start_lines,
)
from heliostat.trainer.jobs import FitJob, Ready
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare

DISK = cast(Disk, object())  # that there is one is all that counts here
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("here") / "train", {"x": np.arange(640), "y": np.arange(640)})


@pytest.fixture
def lines(data, tmp_path, monkeypatch):
    """lines(workers, hosts=...): what is said of a run over 640 rows in batches of 16 in the folder runs/news."""
    monkeypatch.chdir(tmp_path)

    def found(
        workers: int,
        hosts: Any = (),
        *,
        replicas: int = 1,
        device: Any = "gpu",
        stored: int | None = None,
        batch: int = 16,
        disk: Disk | None = None,
        fit: Any = None,
        **settings: Any,
    ) -> list[str]:
        share = WorkerShare(replicas=replicas, threads=8, device=device)
        run_dir = tmp_path / "runs/news"
        wanted = {"checkpoint_dir": str(run_dir / "checkpoints"), "global_batch_size": batch} | (fit or {})
        job = FitJob(
            settings=TrainerConfig(workers=workers, **settings).for_run(share, stored),
            wanted=FitConfig(**wanted),
            data=data,
            validation_data=None,
            run_dir=str(run_dir),
            disk=disk,
        )
        return list(start_lines(job, dict(enumerate(hosts)), "here"))

    return found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": 1, "hosts": ["here"], "replicas": 2}, "2 GPUs · batch 16 (8 each)"),
        ({"workers": 1, "hosts": ["here"]}, "1 GPU · batch 16"),
        ({"workers": 0, "replicas": 2}, "2 GPUs, in this process · batch 16 (8 each)"),
        ({"workers": 2, "hosts": ["here", "here"]}, "2 GPUs in 2 workers · batch 16 (8 each)"),
        ({"workers": 2, "hosts": "ab", "replicas": 4}, "8 GPUs in 2 workers, on a and b · batch 16 (2 each)"),
        ({"workers": 1, "hosts": ["a"], "replicas": 4}, "4 GPUs, on a · batch 16 (4 each)"),
        ({"workers": 0} | CPU, "this process on CPU · batch 16"),
        ({"workers": 0, "replicas": 2} | CPU, "2 CPU devices, in this process · batch 16 (8 each)"),
        ({"workers": 1, "hosts": ["here"]} | CPU, "1 worker on CPU · batch 16"),
        ({"workers": 2, "hosts": ["here", "here"]} | CPU, "2 workers on CPU · batch 16 (8 each)"),
        ({"workers": 2, "in_process": True} | CPU, "2 workers on CPU, in this process · batch 16 (8 each)"),
        (
            {"workers": 2, "hosts": ["here", "here"], "replicas": 2} | CPU,
            "4 CPU devices in 2 workers · batch 16 (4 each)",
        ),
        ({"workers": 4, "hosts": "abab"} | CPU, "4 workers on CPU, on a and b · batch 16 (4 each)"),
        (
            {"workers": 4, "hosts": "ab", "min_workers": 2} | CPU,
            "4 workers on CPU, 2 of them up, on a and b · batch 16 (4 each)",
        ),
        (
            {"workers": 8, "hosts": list("abcdefgh")} | CPU,
            "8 workers on CPU, on 8 machines: a, b, c, d and 4 more · batch 16 (2 each)",
        ),
        ({"workers": 2, "batch": 15} | CPU, "2 workers on CPU · batch 15 (7 or 8 each)"),
        (
            {"workers": 2, "num_microbatches": 8} | CPU,
            "2 workers on CPU · batch 16 (8 each) in 8 microbatches of 2",
        ),
        ({"workers": 0, "num_microbatches": 3} | CPU, "this process on CPU · batch 16 in 3 microbatches of up to 6"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_begins_with_one_line(lines, arguments, said):
    steps = 43 if arguments.get("batch") == 15 else 40
    assert lines(**arguments) == [f"{said} · {steps} steps per epoch · run folder runs/news"]


def test_where_checkpoints_are_is_told_if_not_in_the_run_folder(lines):
    line = "this process on CPU · batch 16 · 40 steps per epoch · {} · run folder runs/news"
    assert lines(0, **CPU, fit={"checkpoint_every": None}) == [line.format("no checkpoints")]
    elsewhere = {"checkpoint_dir": "s3://me:secret@bucket/run-1?secret_key=abc"}
    assert lines(0, **CPU, fit=elsewhere) == [line.format("checkpoints in s3://bucket/run-1")]


def test_what_travels_between_machines_has_a_line(lines):
    assert lines(2, "ab", disk=DISK)[1:] == [
        "the disk of here feeds 2 other machines, once each, unless they have the same files and gets the checkpoints "
        "that they write"
    ]
    assert lines(2, ["here", "here"], disk=DISK)[1:] == []


def test_replicas_that_would_make_a_step_faster_have_a_line(lines):
    assert lines(3, **CPU) == [
        "3 workers on CPU · batch 16 (4 to 8 each) in 4 microbatches of 4 · 40 steps per epoch · run folder runs/news",
        "3 replicas share 4 microbatches, so a step takes as long as on 2; a new run with num_microbatches=3 uses all "
        "of them (results depend on that number)",
    ]
    assert lines(3, **CPU, num_microbatches=8)[1:] == [], "an eighth of the time is no matter"
    assert lines(3, **CPU, stored=2) == [
        "3 workers on CPU · batch 16 (0 to 8 each) in 2 microbatches of 8 · 40 steps per epoch · run folder runs/news",
        "the run began with 2 microbatches, and keeps them; with 3 replicas 1 of them have nothing to compute. Fewer "
        "workers are as fast, and a new run with num_microbatches=3 uses them all",
    ]


def test_a_folder_is_shown_from_the_current_directory_where_it_lies_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "runs/news") == "runs/news"
    assert shown_path(Path("runs/news")) == "runs/news"
    assert shown_path(Path("/nowhere/runs/news")) == "/nowhere/runs/news"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shown_path(tmp_path / "runs/news") == f"{tmp_path}/runs/news"


def test_the_model_and_the_first_step_have_a_short_line_each():
    ready = Ready(shapes="", num_weights=1_250_000, platform={}, model={}, memory={"weights": 5_000_000})
    assert model_built(ready) == "the model has 1,250,000 weights; compiling its step"
    assert first_step(9.04) == "first step after 9.0 s"


def test_cores_that_a_run_leaves_idle_since_it_began_on_fewer_are_told():
    assert idle_cores_line(2, 8) == (
        "2 of 8 cores per worker: a run keeps the number of threads that it began with, for results depend on it; a "
        "new run uses all"
    )
    assert idle_cores_line(5, 8) == idle_cores_line(1, 1) == ""


def test_cores_that_are_shared_are_told(monkeypatch):
    monkeypatch.setattr("heliostat.trainer.driver.start_lines.usable_cores", lambda: 2)
    assert shared_cores_line(3, 1) == "3 workers with 1 thread each share the 2 cores of this machine"
    assert shared_cores_line(1, 3) == "1 worker with 3 threads shares the 2 cores of this machine"
    assert shared_cores_line(2, 1) == ""
