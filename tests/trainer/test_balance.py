"""Who computes which microbatches follows how fast workers are, and the result has the same bits for every cut."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import combinations, pairwise

import keras
import numpy as np
import psutil
import pytest
from heliostat.cluster import instruments, pace
from heliostat.cluster.group import calls
from heliostat.cluster.pools import local
from heliostat.cluster.tree import additions_of
from heliostat.trainer import ConfigurationError, Trainer
from heliostat.trainer.driver.event_lines import line_of
from heliostat.trainer.driver.plan import dealing_of
from heliostat.trainer.engine.replica_sum import nodes_among
from heliostat.trainer.events import BalanceMeasured, Rebalanced
from heliostat.trainer.trainer_config import TrainerConfig, WorkerShare
from keras import layers

from .conftest import dense_data, fingerprint, text_data
from .faults import events_of
from .models import chapter, normalised

SLOW_S = 0.005


def cuts(num_microbatches, num_workers):
    """Every way to give so many workers contiguous ranges of at least one microbatch."""
    for inner in combinations(range(1, num_microbatches), num_workers - 1):
        yield tuple(pairwise((0, *inner, num_microbatches)))


@pytest.mark.engine
@pytest.mark.parametrize(
    ("build", "make_data"), [(normalised, dense_data), pytest.param(chapter, text_data, marks=pytest.mark.slow)]
)
def test_every_cut_gives_the_same_bits(train, monkeypatch, build, make_data):
    """One step after another takes the next cut."""
    job = {"num_microbatches": 6, "epochs": 3, "record_rows": True}
    reference = train(build, make_data(), workers=0, **job)
    for workers in (2, 3):
        all_cuts = list(cuts(6, workers))
        monkeypatch.setattr(
            calls,
            "_ranges_by_rank",
            lambda member, _, all_cuts=all_cuts: tuple((own,) for own in all_cuts[member.step % len(all_cuts)]),
        )
        result = train(build, make_data(), workers=workers, **job)
        assert fingerprint(result) == fingerprint(reference)
        steps = [tuple(map(len, rows)) for epoch in result.epochs for rows in epoch.row_ids]
        assert len(set(steps)) >= len(all_cuts), "every cut was there"


@pytest.fixture
def quick_windows(monkeypatch):
    """Windows of the watch last for steps alone, and workers are heard of often."""
    monkeypatch.setattr(pace, "WINDOW_S", 0.0)
    monkeypatch.setattr(local, "HEARTBEAT_S", 0.02)


@pytest.fixture
def slow_worker():
    """slow_worker(worker, seconds): this worker of the process takes longer for every microbatch from now on."""
    extra_s = {}

    def slow(point, step):
        if point == "microbatch":
            time.sleep(extra_s.get(threading.current_thread().name, 0.0))

    remove = instruments.listen(slow)
    yield lambda worker, seconds: extra_s.update({f"heliostat-worker-{worker}": seconds})
    remove()


@pytest.mark.engine
@pytest.mark.usefixtures("quick_windows")
def test_a_slow_worker_gets_fewer_microbatches_and_the_bits_stay(train, slow_worker, capsys):
    job = {"num_microbatches": 8, "epochs": 30, "record_rows": True, "checkpoint_every": None}
    reference = train(normalised, dense_data(), workers=0, **job)
    slow_worker(1, SLOW_S)
    result = train(normalised, dense_data(), workers=2, verbose=2, **job)
    assert fingerprint(result) == fingerprint(reference)

    rebalanced = events_of(result.run_dir, "rebalanced")
    assert rebalanced, "the slow worker was not noticed"
    first = rebalanced[0]
    assert first["before"] == {"0": 4, "1": 4}
    assert first["after"]["1"] < 4 < first["after"]["0"]
    assert first["compute_s"]["1"] > SLOW_S > first["compute_s"]["0"]
    assert first["expected_s"] < 0.9 * first["step_s"]
    rows = [len(rows) for rows in result.epochs[-1].row_ids[0]]
    last = rebalanced[-1]["after"]
    assert rows == [2 * last["0"], 2 * last["1"]], "the last epoch was computed as the last event says"
    printed = capsys.readouterr().out
    assert f"balance: microbatches 4·4 -> {first['after']['0']}·{first['after']['1']} of worker 0 on " in printed

    (measured, *_) = events_of(result.run_dir, "balance_measured")
    assert (measured["before_s"], measured["expected_s"]) == (first["step_s"], first["expected_s"])
    assert "less was expected)" in printed


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.usefixtures("quick_windows")
def test_a_worker_with_two_replicas_keeps_whole_pairs(train, slow_worker):
    job = {"num_microbatches": 12, "epochs": 24, "checkpoint_every": None}
    reference = train(normalised, dense_data(), workers=0, **job)
    slow_worker(0, 2 * SLOW_S)
    result = train(normalised, dense_data(), workers=2, replicas=2, **job)
    assert fingerprint(result) == fingerprint(reference)
    (first, *_) = events_of(result.run_dir, "rebalanced")
    assert first["after"]["0"] in (2, 4)


@pytest.mark.engine
@pytest.mark.parametrize("num_replicas", [2, 4, 8])
def test_whole_rounds_of_replicas_add_up_alike_wherever_they_are(num_replicas):
    """So that replicas have the functions that add them up, whatever the range: nothing is compiled by a change."""
    num_microbatches = 8 * num_replicas
    rounds = [range(lo, lo + num_replicas) for lo in range(0, num_microbatches, num_replicas)]
    found = [nodes_among(indices, num_microbatches) for indices in rounds]
    assert {tuple(additions_of(tuple((0, each) for each in own)) for _, own in nodes) for nodes in found} == {
        (additions_of(tuple((0, each) for each in range(num_replicas))),)
    }


def test_balance_is_a_yes_or_no():
    assert dealing_of(TrainerConfig(workers=2, balance=False).for_run(WorkerShare())) is None
    assert dealing_of(TrainerConfig(workers=2, num_microbatches=8).for_run(WorkerShare(replicas=2))).num_replicas == 2
    with pytest.raises(ConfigurationError, match="balance='auto'; it takes True or False"):
        TrainerConfig(balance="auto")


def test_lines_of_a_balance():
    moved = Rebalanced(
        before={0: 4, 1: 4},
        after={0: 6, 1: 2},
        hosts={0: "a", 1: "b"},
        compute_s={0: 0.1, 1: 0.3},
        step_s=1.2,
        expected_s=0.6,
    )
    assert line_of(moved, 10) == (
        "balance: microbatches 4·4 -> 6·2 of worker 0 on a, worker 1 on b; steps should take 50% less time"
    )
    many = dict.fromkeys(range(64), 4)
    of_many = replace(moved, before=many, after={**many, 7: 5, 9: 3}, hosts=dict.fromkeys(many, "c"))
    assert line_of(of_many, 10) == (
        "balance: microbatches of worker 7 on c 4 -> 5, worker 9 on c 4 -> 3; steps should take 50% less time"
    )
    came = BalanceMeasured(before_s=1.2, expected_s=0.6, step_s=0.66)
    assert line_of(came, 10) == "balance: steps take 45% less time than before (50% less was expected)"
    worse = BalanceMeasured(before_s=1.0, expected_s=0.6, step_s=1.1)
    assert line_of(worse, 10) == "balance: steps take 10% more time than before (40% less was expected)"
    unknown = BalanceMeasured(before_s=1.0, expected_s=0.6, step_s=None)
    assert "not measured" in line_of(unknown, 10)


def wide():
    """A model whose microbatches take longer than the kernel lets a process run at a time."""
    model = keras.Sequential([layers.Dense(512, activation="relu") for _ in range(4)] + [layers.Dense(5)])
    model.compile(
        optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model


def pin(pid, core):
    """Let a process, with all its threads, run on one core only."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {core})


@pytest.mark.ray
@pytest.mark.slow
def test_a_process_slowed_by_its_neighbours_gets_fewer_microbatches(tmp_path, ray_here):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("it takes two cores")
    data = dense_data(rows=1024, width=512)
    job = {"global_batch_size": 256, "epochs": 24, "verbose": 0, "checkpoint_every": None}
    settings = {"num_microbatches": 8, "threads_per_worker": 1, "seed": 7}
    with Trainer(wide, workers=0, run_dir=tmp_path / "alone", **settings) as trainer:
        reference = trainer.fit(data, **job)
    busy = []

    class Slows(keras.callbacks.Callback):
        """Where two other processes come to the core of one of the workers, once steps are made."""

        def on_epoch_end(self, epoch, logs=None):
            (tmp_path / "trains").touch()

    def disturb(trainer):
        while not (tmp_path / "trains").exists():
            time.sleep(0.05)
        infos = sorted(trainer._runs.workers.infos.items())
        for (_, info), core in zip(infos, cores, strict=False):
            pin(info.pid, core)
        for _ in range(2):
            child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            busy.append(child)
            pin(child.pid, cores[1])

    with Trainer(wide, workers=2, run_dir=tmp_path / "run", **settings) as trainer:
        watcher = threading.Thread(target=disturb, args=(trainer,), daemon=True)
        watcher.start()
        try:
            result = trainer.fit(data, callbacks=[Slows()], **job)
        finally:
            for child in busy:
                child.kill()
                child.wait()
    assert len(busy) == 2, "the worker was slowed"
    assert not any(psutil.pid_exists(child.pid) for child in busy)
    assert fingerprint(result) == fingerprint(reference)
    rebalanced = events_of(result.run_dir, "rebalanced")
    assert any(each["after"]["1"] < each["before"]["1"] for each in rebalanced)
    assert np.isfinite(result.history["loss"][-1])
