"""Workers that do not see the driver's folders: a run on them is that of one machine, and all of it comes back."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import keras
import psutil
import pytest
from heliostat.cluster.disk.reach import scratch_of
from heliostat.cluster.disk.served import TOKEN
from heliostat.cluster.pools import ray_session
from heliostat.trainer.driver.workers import Workers

from ..slow import SLOW
from .conftest import dense_data, fingerprint
from .helpers import TrainerOn, local_trainer
from .models import normalised
from .ray_pool import nothing_left

pytestmark = pytest.mark.ray


class Elsewhere(Workers):
    """Workers whose machines have other folders at the paths of the driver's: there is another token in each."""

    scratch: ClassVar[set[Path]] = set()

    def serve(self, roots):
        disk = super().serve(roots)
        assert disk is not None, "workers may be on other machines"
        self.scratch.add(scratch_of(disk.id))
        for root in disk.roots:
            if root.is_writable:
                with open(f"{root.path}/{TOKEN}", "w") as token:
                    token.write("of another disk")
        return disk

    def _spec(self, **resources):
        spec = super()._spec(**resources)
        return replace(spec, env={**spec.env, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]})


@pytest.fixture
def elsewhere(ray_here, monkeypatch, tmp_path):
    """elsewhere() -> a trainer on two such workers."""
    monkeypatch.setattr(ray_session, "one_machine", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make():
        arguments = {"workers": 2, "num_microbatches": 4, "threads_per_worker": 1, "seed": 7}
        return TrainerOn(Elsewhere, normalised, run_dir=tmp_path / "run", start_timeout_s=300 * SLOW, **arguments)

    yield make
    while Elsewhere.scratch:  # keepers remove it, and have none to keep on the driver's own machine
        shutil.rmtree(Elsewhere.scratch.pop(), ignore_errors=True)


def test_a_run_goes_on_and_answers_on_machines_that_share_nothing(elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where callbacks' files are linked
    data, valid = dense_data(), dense_data(rows=23, seed=1)
    job = {"validation_data": valid, "global_batch_size": 16, "verbose": 0}
    with local_trainer(normalised, tmp_path / "here") as trainer:
        undisturbed = trainer.fit(data, epochs=3, **job)
        loss = trainer.evaluate(valid)["loss"]
    with elsewhere() as trainer:
        trainer.fit(data, epochs=2, callbacks=[keras.callbacks.CSVLogger("log.csv", append=True)], **job)
    with elsewhere() as trainer:  # others, which begin with the checkpoint
        result = trainer.fit(data, epochs=3, callbacks=[keras.callbacks.CSVLogger("log.csv", append=True)], **job)
        assert trainer.evaluate(valid)["loss"] == loss
    assert fingerprint(result) == fingerprint(undisturbed)
    assert result.model().count_params() > 0
    run = tmp_path / "run"
    assert len((run / "log.csv").read_text().splitlines()) == 4
    assert json.loads((run / "run.json").read_text())["state"] == "finished"


class KillTheDisk(keras.callbacks.Callback):
    """Kills the process that serves the driver's disk, in the middle of an epoch; and writes down that it did."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            with open("killed.txt", "a") as file:
                for process in psutil.Process().parent().children():
                    if " ".join(process.cmdline()).startswith("ray::ServedDisk"):
                        process.kill()
                        file.write(f"{process.pid}\n")


@pytest.mark.slow
def test_the_process_that_serves_the_disk_is_killed_in_every_epoch(elsewhere, tmp_path):
    job = {"epochs": 3, "global_batch_size": 16, "verbose": 0}
    with local_trainer(normalised, tmp_path / "here") as trainer:
        undisturbed = trainer.fit(dense_data(), **job)
    with elsewhere() as trainer:
        result = trainer.fit(dense_data(), callbacks=[KillTheDisk(), keras.callbacks.CSVLogger("log.csv")], **job)
    assert fingerprint(result) == fingerprint(undisturbed)
    assert len(set((tmp_path / "run/killed.txt").read_text().split())) == 3
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 4


def test_checkpoints_lie_where_a_link_in_the_run_folder_leads(elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where callbacks' files are linked
    (tmp_path / "run").mkdir()
    (tmp_path / "large").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "large")
    callbacks = [keras.callbacks.CSVLogger("log.csv")]
    with elsewhere() as trainer:
        trainer.fit(dense_data(), epochs=1, global_batch_size=16, callbacks=callbacks, verbose=0)
    assert {path.parent.name for path in (tmp_path / "large").glob("*/manifest.json")}
    assert (tmp_path / "run/log.csv").exists()


def test_each_task_is_served_what_it_needs_and_a_forgotten_trainer_leaves_no_token(ray_here, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_session, "one_machine", lambda: False)
    made = []

    def make_workers(settings):
        made.append(Workers(settings))
        return made[0]

    trainer = TrainerOn(make_workers, normalised, run_dir=tmp_path / "run", workers=1, threads_per_worker=1)
    trainer.fit(dense_data(), epochs=1, global_batch_size=16, verbose=0)
    before = [len(made[0]._disk.roots)]
    for seed in (1, 2):
        trainer.evaluate(dense_data(rows=23, seed=seed))
        before.append(len(made[0]._disk.roots))
    assert before == [2, 3, 3]
    token, pids = tmp_path / "run" / TOKEN, [info.pid for info in made[0].infos.values()]
    assert token.exists()
    with nothing_left(pids):
        del trainer
        made.clear()
        gc.collect()
    until_s = time.monotonic() + 30 * SLOW  # a thread of its own frees the workers
    while token.exists() and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not token.exists()
