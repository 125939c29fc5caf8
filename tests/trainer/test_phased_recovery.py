"""Runs whose steps have several phases are disturbed, stopped and gone on with: the bits of an undisturbed run.

Who outlives a death goes on inside of the step; whoever joins, pauses or leaves has its turn before the next one. When
all are lost others begin at the last checkpoint.
"""

from __future__ import annotations

import os
import signal
import time

import keras
import pytest
from heliostat.trainer import ConfigurationError, RunPausedError
from heliostat.trainer.checkpoints.store import CheckpointStore

from .faults import events_of, outcome
from .helpers import die, local_trainer
from .phased_cases import CASES, data
from .phased_players import gan, gan_with_batch_normalization, wgan_gp

pytestmark = pytest.mark.engine

JOB = {"epochs": 4, "global_batch_size": 16, "verbose": 0, "record_rows": True}
STEPS = 3  # of an epoch: rows 16, 16, 8
WAIT_S = 0.25


def fit(trainer, **arguments):
    return trainer.fit(data(), **JOB | arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(name of a case, fit arguments) -> what a run without faults gives; each is computed once."""
    known = {}

    def get(name, gradient_dtype=None, **arguments):
        key = name, gradient_dtype, repr(arguments)
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            with local_trainer(CASES[name][0], folder, gradient_dtype=gradient_dtype) as trainer:
                known[key] = outcome(fit(trainer, **arguments))
        return known[key]

    return get


def lost_in(result) -> list[int]:
    return [each["worker"] for each in events_of(result.run_dir, "lost")]


def was_restarted(result) -> bool:
    return any(each["restarted"] for each in events_of(result.run_dir, "formed"))


# -- deaths -----------------------------------------------------------------------------------------------------------

POINTS = ("compute", "microbatch", "reduce", "sending", "receiving", "summed")
GAN, WGAN = gan_with_batch_normalization.__name__, wgan_gp.__name__
DEATHS = [
    (gan.__name__, "microbatch", 1, 1, 2, "fit"),
    pytest.param(GAN, "microbatch", 1, 1, 3, "fit", marks=pytest.mark.slow),
    pytest.param(GAN, "summed", 0, 0, 3, "fit", marks=pytest.mark.slow),
    *(
        pytest.param(GAN, point, phase, worker, 3, loop, marks=pytest.mark.slow)
        for point in POINTS
        for phase in (0, 1)
        for worker, loop in ((0, "fit"), (2, "train_on_batch"))
        if (point, phase, worker) != ("summed", 0, 0)
    ),
    *(pytest.param(GAN, point, 1, 1, 2, "fit", marks=pytest.mark.slow) for point in POINTS),
    *(pytest.param(WGAN, "microbatch", phase, 1, 3, "fit", marks=pytest.mark.slow) for phase in range(4)),
    *(pytest.param(WGAN, "sending", phase, 0, 2, "fit", marks=pytest.mark.slow) for phase in range(4)),
]


@pytest.mark.parametrize(("name", "point", "phase", "worker", "workers", "loop"), DEATHS)
def test_survivors_go_on_inside_of_the_step(undisturbed, watch, tmp_path, name, point, phase, worker, workers, loop):
    survivors, computed = set(range(workers)) - {worker}, {}

    def die_when_all_are_here() -> None:  # or nobody else might have the sum of the phase before
        watch.wait(lambda: all(watch.seen[each, "compute", 4, phase] for each in survivors))
        computed.update(watch.computed(4, phase, survivors))
        die()

    watch.at(point, 4, phase, die_when_all_are_here, worker)
    with local_trainer(CASES[name][0], tmp_path, workers=workers) as trainer:
        result = fit(trainer, loop=loop)
    assert watch.computed(4, phase, survivors) == computed, "what was done before this phase was done again"
    assert outcome(result) == undisturbed(name)
    assert lost_in(result) == [worker]
    assert not was_restarted(result)


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 2], ids=["chief", "other"])
def test_a_replacement_joins_before_a_step(undisturbed, watch, tmp_path, worker):
    """Who is left takes its time in the second phase of every step until the replacement has joined."""

    def wait_a_little() -> None:
        lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines(keepends=True)
        if not any('"formed"' in line and '"joined": [3]' in line for line in lines):
            time.sleep(WAIT_S)

    watch.at("compute", 4, 1, die, worker)
    for step in range(5, 20 * STEPS):
        watch.at("compute", step, 1, wait_a_little)
    with local_trainer(CASES[GAN][0], tmp_path, workers=3) as trainer:
        result = fit(trainer, epochs=20)
    assert outcome(result) == undisturbed(GAN, epochs=20)
    assert lost_in(result) == [worker]
    last = events_of(result.run_dir, "formed")[-1]
    assert 3 in last["workers"]
    assert not was_restarted(result)


@pytest.mark.slow
def test_all_are_lost_in_a_later_phase_and_others_begin_at_the_last_checkpoint(undisturbed, watch, tmp_path):
    def die_together() -> None:
        watch.wait(lambda: all(watch.seen[worker, "compute", 7, 1] for worker in (0, 1)))
        die()

    for worker in (0, 1):
        watch.at("compute", 7, 1, die_together, worker)
    with local_trainer(CASES[GAN][0], tmp_path, workers=2) as trainer:
        result = fit(trainer)
    assert outcome(result) == undisturbed(GAN)
    assert sorted(lost_in(result)) == [0, 1]
    assert was_restarted(result)
    assert watch.seen[2, "compute", 7, 0] + watch.seen[3, "compute", 7, 0] > 0, "others have begun the step anew"


class RatesByStep(keras.callbacks.Callback):
    """Sets the rate of every optimizer between steps."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.count += 1
        self.model.d_optimizer.learning_rate = 0.02 / self.count
        self.model.g_optimizer.learning_rate = 0.01 * self.count

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


@pytest.mark.slow
def test_the_rates_of_all_optimizers_reach_all_workers_and_the_next_chief(watch, tmp_path):
    with local_trainer(CASES[GAN][0], tmp_path / "alone") as trainer:
        alone = outcome(fit(trainer, callbacks=[RatesByStep()]))
    watch.at("compute", 4, 1, die, 0)
    with local_trainer(CASES[GAN][0], tmp_path / "group", workers=2) as trainer:
        result = fit(trainer, callbacks=[RatesByStep()])
    assert outcome(result) == alone
    assert lost_in(result) == [0]


# -- pauses, resuming, changes of the group ---------------------------------------------------------------------------


def with_another_rate():
    model = CASES[GAN][0]()
    model.g_optimizer.learning_rate = 0.5
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "then"), [(2, 0), (0, 2), (3, 1)])
def test_a_pause_inside_of_a_step_waits_for_its_end_and_the_run_goes_on(undisturbed, watch, tmp_path, workers, then):
    watch.at("reduce", 4, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with local_trainer(CASES[GAN][0], tmp_path, workers=workers) as trainer, pytest.raises(RunPausedError):
        fit(trainer)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    manifest = store.manifest(store.names()[-1])
    assert (manifest.epoch, manifest.step) >= (1, 2), "the step was finished"
    names = [entry.name for entry in manifest.tensors]
    assert sum(name.endswith("iteration") for name in names) == 2, names
    with local_trainer(with_another_rate, tmp_path) as trainer:
        with pytest.raises(ConfigurationError, match=r"optimizers\[1\].learning_rate"):
            fit(trainer)
    with local_trainer(CASES[GAN][0], tmp_path, workers=then) as trainer:
        assert outcome(fit(trainer)) == undisturbed(GAN)


@pytest.mark.slow
def test_a_group_shrinks_and_grows_in_the_middle_of_steps(undisturbed, watch, tmp_path):
    trainer = local_trainer(CASES[GAN][0], tmp_path, workers=2, max_workers=3)
    watch.at("compute", 4, 1, lambda: trainer.resize(1))
    watch.at("compute", 8, 1, lambda: trainer.resize(3))
    with trainer:
        assert outcome(fit(trainer)) == undisturbed(GAN)


@pytest.mark.slow
def test_gradients_are_rounded_in_every_phase_alike(undisturbed, watch, tmp_path):
    watch.at("reduce", 4, 1, die, 1)
    with local_trainer(CASES[GAN][0], tmp_path, workers=3, gradient_dtype="bfloat16") as trainer:
        result = fit(trainer)
    assert outcome(result) == undisturbed(GAN, "bfloat16")
    assert outcome(result) != undisturbed(GAN)
    assert lost_in(result) == [1]
