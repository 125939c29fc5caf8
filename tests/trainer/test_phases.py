"""Steps of several phases: as plain Keras takes them, and the same bits in every layout.

Plain Keras computes the whole batch at once, so what draws random numbers is compared at one microbatch, with that
microbatch's seeds.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import open_dataset
from heliostat.trainer import TrainingFailedError, UnsupportedStepError, global_mean, global_sum
from heliostat.trainer.engine import private_api
from heliostat.trainer.worker import tracing

from .conftest import fingerprint, use_floats
from .helpers import SEED, local_trainer
from .models import linear
from .one_device import draw_as_microbatch, largest_difference
from .phased_cases import CASES, NOISE, KeepWeights, data
from .phased_models import aggregating, one_tape_by_xla
from .phased_players import Players, adams

pytestmark = pytest.mark.engine

QUICK = ("gan", "vq_vae")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
# A bias before BatchNormalization has a gradient of zero in exact arithmetic; Adam makes steps of what rounding leaves.
BATCH = 16


@pytest.fixture
def phases(monkeypatch):
    """By step that was opened how many phases it has, and how many of these have no sum."""
    found, original = [], tracing.phases_of

    def watched(microbatches, gradient_dtype):
        made = original(microbatches, gradient_dtype)
        found.append((len(made), sum(not phase.needs_sum for phase in made)))
        return made

    monkeypatch.setattr(tracing, "phases_of", watched)
    return found


def plain_keras(build, result):
    """Weights of plain Keras, fed the batches of a run of one epoch and the seeds of microbatch 0."""
    keras.utils.set_random_seed(SEED)
    model = build()
    generators = private_api.seed_generators(model)
    start = model.get_weights()
    batches = open_dataset(result.run_dir / "data" / "train").batches(BATCH, shuffle="full", seed=SEED, epoch=0)
    for step, rows in enumerate(batches):
        draw_as_microbatch(generators, SEED, step)
        model.train_on_batch(tf.constant(rows["x"]), tf.constant(rows["y"]))
    assert distance(model.get_weights(), start) > 1e-3, "plain Keras did not train"
    return model.get_weights()


def distance(left, right) -> float:
    return largest_difference(left, right, least=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_phases_trains_as_plain_keras_does(train, phases, tmp_path, name):
    use_floats("float64")
    build, number, without_sum = CASES[name]
    keep = KeepWeights(tmp_path / "weights.npz")
    result = train(build, data(), workers=0, num_microbatches=1, epochs=1, callbacks=[keep])
    assert distance(keep.weights, plain_keras(build, result)) <= 1e-10
    assert phases == [(number, without_sum)]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_phases_has_the_same_bits_in_every_layout(train, name):
    build, _, _ = CASES[name]
    use_floats("float64")
    reference = fingerprint(train(build, data(), workers=0, epochs=1))
    for (workers, replicas), loop in (((2, 1), "fit"), ((1, 2), "train_on_batch"), ((3, 1), "fit")):
        assert fingerprint(train(build, data(), workers=workers, replicas=replicas, epochs=1, loop=loop)) == reference
        if name in QUICK:
            break  # the others: with --all


@pytest.mark.parametrize("name", ["vq_vae", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sam", "lookahead"))])
def test_without_draws_several_microbatches_train_as_plain_keras_does(train, tmp_path, name):
    use_floats("float64")
    build, _, _ = CASES[name]
    keep = KeepWeights(tmp_path / "weights.npz")
    result = train(build, data(), workers=2, epochs=1, callbacks=[keep])
    assert distance(keep.weights, plain_keras(build, result)) <= 1e-10


@pytest.mark.slow
def test_phases_are_cut_before_xla_compiles_them(train, phases, tmp_path):
    use_floats("float64")
    keep = KeepWeights(tmp_path / "weights.npz")
    result = train(one_tape_by_xla, data(), workers=0, epochs=1, callbacks=[keep])
    assert distance(keep.weights, plain_keras(CASES["one_tape_over_an_update"][0], result)) <= 1e-10
    assert fingerprint(train(one_tape_by_xla, data(), workers=2, epochs=1)) == fingerprint(result)
    assert phases[0] == (2, 0)


def test_an_aggregation_says_how_state_of_microbatches_meets(train, tmp_path):
    """Five microbatches of a step of sixteen rows have no size that sums of shares give exactly."""
    use_floats("float64")
    keep = KeepWeights(tmp_path / "weights.npz")
    result = train(aggregating, data(), workers=2, num_microbatches=5, epochs=1, callbacks=[keep])
    rows, total, first, mean, steps, tenths = keep.weights[:6]
    batches = list(open_dataset(result.run_dir / "data" / "train").batches(BATCH, shuffle="full", seed=SEED, epoch=0))
    assert (rows, steps) == (40, 3)
    assert tenths == 0.1 + 0.1 + 0.1  # to the bit: what depends on no rows is no mean
    assert total == pytest.approx(sum(batch["x"].sum() for batch in batches), rel=1e-12)
    assert first == batches[-1]["x"][0, 0]
    assert mean == pytest.approx(batches[-1]["x"].mean(), rel=1e-12)


class Unbuilt(Players):
    """Its step is that of the custom loop, with optimizers by name."""


def unbuilt():
    return Unbuilt(), dict(zip("dg", adams(), strict=True))


def players_in_turn(model, optimizers, x, _y):
    logs = {}
    for name, real in (("d", 1.0), ("g", 0.0)):
        weights = getattr(model, name).trainable_variables
        with tf.GradientTape() as tape:
            noise = keras.random.normal((keras.ops.shape(x)[0], NOISE), seed=model.noise, dtype=x.dtype)
            made = model.d(model.g(noise))
            loss = tf.reduce_mean(real * tf.nn.softplus(-model.d(x)) + tf.nn.softplus(made if name == "d" else -made))
        optimizers[name].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        logs[name] = loss
    return logs


def quiet(model, x, _y):
    return tf.reduce_mean(model.d(x))


@pytest.mark.slow
def test_the_custom_loop_takes_optimizers_by_name(train, phases):
    use_floats("float64")
    shared = {"loop": "custom", "train_step": players_in_turn, "valid_step": quiet, "epochs": 1}
    reference = train(unbuilt, data(), workers=0, **shared)
    assert (phases, set(reference.history)) == ([(2, 0)], {"d", "g"})
    assert fingerprint(train(unbuilt, data(), workers=3, **shared)) == fingerprint(reference)


@pytest.mark.slow
def test_passes_need_not_know_which_optimizers_a_step_applies(tmp_path):
    use_floats("float64")
    build, _, _ = CASES["gan"]
    keep, x = KeepWeights(tmp_path / "weights.npz"), data()[0]
    with local_trainer(build, tmp_path, workers=2) as trainer:
        trainer.fit(data(), epochs=1, global_batch_size=BATCH, verbose=0, callbacks=[keep])
        here = trainer.predict(x, verbose=0)
    model = build()
    model.set_weights(keep.weights)
    np.testing.assert_allclose(here, model(x), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gan", "vq_vae"])
def test_a_phase_that_is_not_finite_leaves_out_the_whole_step(train, tmp_path, name):
    """One row of 40 is not finite: one step of three is left out, with all of its phases."""
    use_floats("float64")
    build, _, _ = CASES[name]
    x, y = data()
    x[5, 0] = np.nan
    kept = []
    for workers in (0, 3):
        keep = KeepWeights(tmp_path / f"{workers}.npz")
        kept.append(train(build, (x, y), workers=workers, epochs=1, on_nonfinite="skip", callbacks=[keep]))
        weights = keep.weights
        assert all(np.isfinite(weight).all() for weight in weights)
    assert fingerprint(kept[0]) == fingerprint(kept[1])
    assert distance(weights, build().get_weights()) > 1e-3, "nothing was trained"


# -- what is refused --------------------------------------------------------------------------------------------------


def gradients_of(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    return tape.gradient(loss, model.trainable_variables), loss


def inner_step_of_maml(model, optimizer, x, y):
    for weight, gradient in zip(model.trainable_variables, gradients_of(model, x, y)[0], strict=True):
        weight.assign_sub(0.1 * gradient)
    gradients, loss = gradients_of(model, x, y)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


def applied_in_a_loop_of_the_graph(model, optimizer, x, y):
    for _ in tf.range(2):
        optimizer.apply(gradients_of(model, x, y)[0], model.trainable_variables)
    return 0.0


def applied_in_a_branch(model, optimizer, x, y):
    gradients, loss = gradients_of(model, x, y)
    if loss > 1:
        optimizer.apply(gradients, model.trainable_variables)
    return loss


def gradient_through_a_mean(model, optimizer, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - global_mean(tf.reduce_mean(model(x)))) ** 2)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


def sum_of_rows(model, optimizer, x, y):
    gradients, loss = gradients_of(model, x + 0 * tf.reduce_sum(global_sum(x)), y)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


def jacobian_after_an_update(model, optimizer, x, y):
    gradients, loss = gradients_of(model, x, y)
    with tf.GradientTape() as tape:
        optimizer.apply(gradients, model.trainable_variables)
        values = tf.reduce_sum(model(x), 0)
    tape.jacobian(values, model.trainable_variables)
    return loss


REFUSED = {
    inner_step_of_maml: r"assigns 'sequential.*kernel'.* depends on the rows .*global_mean",
    applied_in_a_loop_of_the_graph: "applies gradients in a loop or a branch of the graph",
    applied_in_a_branch: "applies gradients in a loop or a branch",
    gradient_through_a_mean: "gradient is taken through",
    sum_of_rows: r"gives global_sum\(\) a tensor of the shape \(None, 6\)",
    jacobian_after_an_update: "Jacobian with respect to",
}
QUICKLY = inner_step_of_maml


def regression():
    return linear(loss="mse", metrics=())()


@pytest.mark.parametrize(
    "step",
    [s if s is QUICKLY else pytest.param(s, marks=pytest.mark.slow) for s in REFUSED],
    ids=lambda step: step.__name__,
)
def test_what_no_microbatch_can_know_is_refused_by_name(train, step):
    with pytest.raises((UnsupportedStepError, TrainingFailedError), match=REFUSED[step]):
        train(regression, data(rows=16), workers=0, epochs=1, loop="custom", train_step=step)
