"""Verdicts on simulated runs: the planted cause is found, and what is promised is what its absence brings there."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.verdict import HEADLINES, LEAST_GAIN, Verdict, verdict_of
from heliostat.trainer.samples import Sample, WorkerSample
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .simulated import Simulation, World

STEP_S = 0.0282  # of a usual world with two workers: what plants are measured by


def seconds(world: World) -> float:
    return Simulation(world).seconds


def verdict(world: World) -> Verdict:
    return verdict_of(Simulation(world).run)


PLANTS = {
    "input": lambda size: World(input_s=(size * STEP_S,) * 8),
    "input of one": lambda size: World(input_s=(0.0005, size * STEP_S, *(0.0005,) * 6)),
    "slow worker": lambda size: World(slowness=(1.0, 1.0 + size, *(1.0,) * 6)),
    "network": lambda size: World(network_s=size * STEP_S),
    "callbacks": lambda size: World(hook_s=size * STEP_S),
    "checkpoints": lambda size: World(save_s=10 * size * STEP_S, save_every=10),
    "validation": lambda size: World(validate_s=100 * size * STEP_S),
}


@pytest.mark.parametrize("plant", PLANTS)
@settings(max_examples=6, deadline=None)
@given(
    size=st.floats(0.2, 3.0), workers=st.integers(2, 4), seed=st.integers(0, 999), jitter=st.sampled_from((0.0, 0.05))
)
def test_a_planted_cause_is_found_and_its_gain_is_that_of_the_same_run_without_it(plant, size, workers, seed, jitter):
    planted = replace(PLANTS[plant](size), workers=workers, microbatches=4 * workers, seed=seed, jitter=jitter)
    planted = replace(planted, batch=32 * planted.microbatches)
    cause = plant.removesuffix(" of one")
    gain = seconds(planted) / seconds(planted.without(cause))
    assume(not 1.05 < gain < 1.15)
    found = verdict(planted)
    assert found.cause == (cause if gain >= LEAST_GAIN else "healthy")
    # Waiting for steps that happen to be long stays in the model; without the cause there is less or more of it.
    assert found.gains[cause] == pytest.approx(gain, rel=0.02 + 2 * jitter)


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0)),
    plants=st.tuples(st.sampled_from(sorted(PLANTS)), st.sampled_from(sorted(PLANTS))),
)
def test_of_two_causes_the_one_is_named_without_which_the_run_is_fastest(sizes, plants):
    causes = [plant.removesuffix(" of one") for plant in plants]
    assume(causes[0] != causes[1])
    one, other = (PLANTS[plant](size) for plant, size in zip(plants, sizes, strict=True))
    usual = World()
    changed = {name: value for name, value in vars(one).items() if value != vars(usual)[name]}
    both = replace(other, **changed)
    gains = {cause: seconds(both) / seconds(both.without(cause)) for cause in causes}
    largest, other_gain = max(gains.values()), min(gains.values())
    assume(largest > 1.15 and other_gain < 0.95 * largest)
    assert gains[verdict(both).cause] == largest


@pytest.mark.parametrize("batch", [4, 16, 64])
def test_small_batches_are_found_and_the_batch_that_is_proposed_brings_what_is_promised(batch):
    small = World(batch=batch, microbatches=2, steps=2000, epochs=2, input_s=(0.00005,) * 8)
    found = verdict(small)
    times = found.settings["global_batch_size"] // batch
    large = replace(small, batch=times * batch, steps=small.steps // times)
    assert found.cause == "small batches"
    assert found.remedy == f"global_batch_size={times * batch}"
    assert found.gain == pytest.approx(seconds(small) / seconds(large), rel=0.25)


def test_a_healthy_run_is_called_so():
    found = verdict(World())
    assert (found.cause, found.remedy, found.gain) == ("healthy", "", 1.0)
    assert found.sentence.startswith("healthy: computing gradients is ")


@settings(max_examples=4, deadline=None)
@given(size=st.floats(0.3, 2.0), plant=st.sampled_from(sorted(PLANTS)), order=st.randoms(use_true_random=False))
def test_the_order_of_workers_in_samples_changes_nothing(size, plant, order):
    run = Simulation(replace(PLANTS[plant](size), workers=3, microbatches=12)).run
    shuffled = [replace(each, workers=tuple(order.sample(each.workers, 3))) for each in run.samples]
    assert verdict_of(replace(run, samples=tuple(shuffled))) == verdict_of(run)


@settings(max_examples=4, deadline=None)
@given(factor=st.sampled_from((0.5, 8.0, 1000.0)), plant=st.sampled_from(sorted(PLANTS)))
def test_a_machine_that_is_slower_in_all_has_the_same_cause_and_gains(factor, plant):
    run = Simulation(PLANTS[plant](1.0)).run
    found, other = verdict_of(run), verdict_of(slower(run, factor))
    assert other.cause == found.cause
    for cause in set(found.gains) - {"small batches"}:  # of these, what a call costs at most is known in seconds
        assert other.gains[cause] == pytest.approx(found.gains[cause], abs=0.002)


def slower(run: RecordedRun, factor: float) -> RecordedRun:
    """The same run on machines on which everything takes so many times as long."""

    def worker(each: WorkerSample) -> WorkerSample:
        return replace(
            each,
            seconds={name: factor * value for name, value in each.seconds.items()},
            hooks={name: factor * value for name, value in each.hooks.items()},
        )

    def sample(each: Sample) -> Sample:
        return replace(each, time=factor * each.time, workers=tuple(map(worker, each.workers)))

    epochs = [replace(each, time=factor * each.time) for each in run.epochs]
    return replace(run, samples=tuple(map(sample, run.samples)), epochs=tuple(epochs))


def test_what_one_machine_lost_by_standing_still_is_not_blamed_on_the_steps():
    run = Simulation(World(epochs=10)).run
    at = run.samples[20].time

    def worker(each: WorkerSample) -> WorkerSample:
        return replace(each, seconds={**each.seconds, "input_s": each.seconds["input_s"] + 20.0})

    stood = [
        replace(each, time=each.time + 20, workers=(worker(each.workers[0]), *each.workers[1:]))
        if each.time >= at
        else each
        for each in run.samples
    ]
    assert verdict_of(replace(run, samples=tuple(stood))).gains["input"] == pytest.approx(
        verdict_of(run).gains["input"], abs=0.02
    )


def test_a_run_of_few_steps_is_not_judged():
    found = verdict(World(epochs=1, steps=20))
    assert (found.cause, found.gain, found.remedy) == ("unknown", 1.0, "")
    assert "too short to tell" in found.sentence


def test_a_run_without_anything_recorded_is_not_judged():
    assert verdict_of(RecordedRun(record={"state": "failed"})).cause == "unknown"


def test_a_run_of_an_earlier_version_is_judged_by_its_epochs():
    run = Simulation(World(input_s=(0.02,) * 8)).run
    found = verdict_of(replace(run, samples=()))
    assert found.cause == "input"
    assert found.gains["input"] == pytest.approx(verdict_of(run).gains["input"], rel=0.05)


def test_a_short_training_after_a_long_start_is_its_start():
    run = Simulation(World(epochs=2, steps=50)).run
    found = verdict_of(replace(run, record={**run.record, "start_s": {"first_step": 9.0}}))
    assert found.cause == "start"
    assert found.gain == pytest.approx(1 + 9.0 / seconds(World(epochs=2, steps=50)), rel=0.1)


def test_a_slow_worker_gets_fewer_microbatches_where_that_is_turned_off():
    found = verdict(World(slowness=(1.0, 3.0, *(1.0,) * 6), plan={"balance": False}))
    assert (found.cause, found.remedy) == ("slow worker", "balance=True")
    assert "worker 1 (host-1)" in found.evidence
    dealt = World(slowness=(1.0, 3.0, *(1.0,) * 6))
    compute_s = dealt.call_s + dealt.row_s * dealt.batch / dealt.microbatches
    rest_s = STEP_S - 4 * compute_s
    assert found.gain == pytest.approx((4 * 3 * compute_s + rest_s) / (2 * 3 * compute_s + rest_s), rel=0.05)


def test_over_a_slow_network_of_machines_halving_the_gradient_or_one_worker_alone_is_proposed():
    slow = World(network_s=0.02)
    found = verdict(slow)
    assert (found.cause, found.settings) == ("network", {"global_batch_size": 1024})
    assert found.gain == pytest.approx(seconds(slow) / seconds(replace(slow, batch=1024, steps=25)), rel=0.1)
    last = verdict(replace(slow, steps=12, epochs=25))  # no epoch has rows for larger batches
    assert (last.cause, last.remedy) == ("network", 'gradient_dtype="bfloat16"')
    assert last.gain == pytest.approx(seconds(slow) / seconds(replace(slow, network_s=0.01)), rel=0.1)
    stuck = verdict(replace(slow, steps=12, epochs=25, plan={"gradient_dtype": "bfloat16"}))
    assert (stuck.cause, stuck.remedy, stuck.gain) == ("network", "", 1.0)
    worse = verdict(World(network_s=0.2, steps=100, batch=64, microbatches=2, epochs=1))
    assert (worse.cause, worse.settings) == ("network", {"workers": 1})


def test_every_verdict_has_a_headline_and_a_form_that_comes_back():
    found = verdict(World(hook_s=0.03))
    assert found.sentence.startswith("held up by callbacks: all workers wait for callbacks for ")
    assert found.sentence.endswith(f"would bring about {found.gain:.1f} ×")
    assert Verdict.from_json(found.to_json()) == found
    assert set(found.gains) <= set(HEADLINES)


def test_a_loss_and_a_worker_that_joins_leave_the_rest_of_the_run_to_be_judged():
    """Worker 1 begins anew at half of the run: its sums start at zero, with a first step of its own."""
    run = Simulation(World(input_s=(0.02,) * 8, epochs=4)).run
    half = len(run.samples) // 2
    origin = run.samples[half].workers[1]

    def anew(each: WorkerSample) -> WorkerSample:
        since = {name: value - origin.seconds[name] for name, value in each.seconds.items()}
        return replace(each, worker=2, seconds={**since, "first_step_s": 1.0}, computed=each.computed - origin.computed)

    joined = [
        replace(each, workers=(each.workers[0], anew(each.workers[1]))) if at >= half else each
        for at, each in enumerate(run.samples)
    ]
    found = verdict_of(replace(run, samples=tuple(joined)))
    assert found.cause == "input"
    assert found.gain == pytest.approx(verdict_of(run).gain, rel=0.05)


def test_random_records_never_break_it():
    """Samples of a damaged or foreign file: whatever the numbers are, there is a verdict."""
    dice = random.Random(1)
    for _ in range(200):
        run = Simulation(World(epochs=1, steps=30, seed=dice.randrange(99))).run
        samples = [each for each in run.samples if dice.random() < 0.7]
        dice.shuffle(samples)
        epochs = tuple(each for each in run.epochs if dice.random() < 0.5)
        plan = {} if dice.random() < 0.5 else run.record["plan"]
        found = verdict_of(RecordedRun(record={"plan": plan}, epochs=epochs, samples=tuple(samples)))
        assert found.cause in HEADLINES
        assert found.gain >= 1.0
