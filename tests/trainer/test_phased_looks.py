"""Steps of several phases that are not finite, and such that are computed again to look at them."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from heliostat.trainer import NonfiniteGradientError
from heliostat.trainer.environment import Command, ReplayWanted

from .faults import outcome
from .helpers import local_trainer
from .phased_cases import NOISE, WIDTH, KeepWeights, data, dense
from .phased_models import aggregating
from .phased_players import Players, adams

pytestmark = [pytest.mark.engine, pytest.mark.slow]

JOB = {"epochs": 1, "global_batch_size": 16, "verbose": 0, "record_rows": True}
POISON, BAD_ROW = 1e6, 9


class Poisoned(Players):
    """Rows that are poisoned spoil the generator's gradient, in the second phase, and nothing else."""

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        tame = tf.clip_by_value(x, -3.0, 3.0)
        spoilt = tf.where(x[:, :1] > POISON / 2, np.nan, 1.0)
        d = self.train_d(lambda: tf.reduce_mean(tf.nn.softplus(-self.d(tame)) + tf.nn.softplus(self.d(self.fakes(x)))))
        g = self.train_g(lambda: tf.reduce_mean(spoilt * tf.nn.softplus(-self.d(self.fakes(x)))))
        return {"d": d, "g": g}


def poisoned_gan(optimizers=adams):
    def player(name, first, inputs, outputs):
        hidden = dense(5, first, activation="tanh", name=f"{name}_hidden")
        return keras.Sequential([keras.Input((inputs,)), hidden, dense(outputs, first + 1, name=name)])

    model = Poisoned(player("critic", 1, WIDTH, 1), player("painter", 11, NOISE, WIDTH))
    model.compile(*optimizers())
    return model


def poisoned(rows=40):
    x, y = data(rows)
    x[BAD_ROW, 0] = POISON
    return x, y


def test_a_later_phase_that_is_not_finite_leaves_the_whole_step_out(tmp_path):
    job = {"on_nonfinite": "skip", "epochs": 2}
    found = []
    for workers in (0, 2):
        with local_trainer(poisoned_gan, tmp_path / str(workers), workers=workers) as trainer:
            found.append(trainer.fit(poisoned(), **JOB | job))
    assert outcome(found[0]) == outcome(found[1])
    assert np.isfinite([each for values in found[0].history.values() for each in values]).all()
    keep = KeepWeights(tmp_path / "weights.npz")
    with local_trainer(poisoned_gan, tmp_path / "one") as trainer:
        alone = trainer.fit(poisoned(16), **JOB | job | {"callbacks": [keep]})
    assert all(epoch.rows == 0 for epoch in alone.epochs)
    for kept, first in zip(keep.weights, poisoned_gan().get_weights(), strict=True):
        np.testing.assert_array_equal(kept, first)  # of the discriminator, too


def test_a_later_phase_that_is_not_finite_stops_the_run_and_names_its_weights(tmp_path):
    with local_trainer(poisoned_gan, tmp_path) as trainer:
        with pytest.raises(NonfiniteGradientError, match=r"not finite, for .*painter/kernel") as raised:
            trainer.fit(poisoned(16), **JOB)
    assert "critic" not in str(raised.value)


# -- replay -----------------------------------------------------------------------------------------------------------

RATE = 0.125


def plain_gan():
    return poisoned_gan(lambda: (keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE)))


@pytest.fixture
def replayed(tmp_path, monkeypatch):
    """replayed(build, rows, **trainer arguments) -> what is found of the microbatches of the first step of a run."""

    def replay(build, rows, **arguments):
        command = Command(run_dir=tmp_path / "run", fit=1, replay=ReplayWanted(step=0))
        monkeypatch.setattr("heliostat.trainer.driver.runs.begin_fit", lambda: (1, command))
        with local_trainer(build, tmp_path, **arguments) as trainer, pytest.raises(SystemExit):
            trainer.fit(rows, **JOB)
        return json.loads((tmp_path / "run" / "replay.json").read_text())["microbatches"]

    return replay


def test_a_step_of_several_phases_is_computed_again(tmp_path, replayed):
    """The norms of the gradients of all its phases are those of what plain gradient descent has changed."""
    before = plain_gan().get_weights()
    keep = KeepWeights(tmp_path / "weights.npz")
    with local_trainer(plain_gan, tmp_path, num_microbatches=1) as trainer:
        result = trainer.fit(data(16), **JOB | {"callbacks": [keep]})
    (found,) = replayed(plain_gan, data(16), num_microbatches=1)
    assert {name.rpartition(" (phase ")[2] for name in found["norms"]} == {"0)", "1)"}
    after = keep.weights
    pairs = zip(after, before, strict=True)
    changed = [float(np.linalg.norm((new - old).astype(np.float64))) / RATE for new, old in pairs]
    np.testing.assert_allclose(sorted(found["norms"].values()), sorted(changed), rtol=1e-3)
    assert found["logs"] == pytest.approx({name: values[0] for name, values in result.history.items()})
    assert found["nonfinite"] == []


def test_only_what_was_computed_is_shown_of_a_step_that_is_not_finite(tmp_path, replayed):
    with local_trainer(poisoned_gan, tmp_path) as trainer, pytest.raises(NonfiniteGradientError):
        trainer.fit(poisoned(16), **JOB)
    found = replayed(poisoned_gan, poisoned(16))
    (bad,) = (each for each in found if BAD_ROW in each["row_ids"])
    assert bad["nonfinite"]
    assert [name for name in bad["nonfinite"] if "painter" not in name or not name.endswith(" (phase 1)")] == []
    assert not any(each["nonfinite"] for each in found if each is not bad)


def test_what_lies_behind_the_metrics_of_a_step_is_not_taken_for_them(tmp_path, replayed):
    with local_trainer(aggregating, tmp_path) as trainer:
        history = trainer.fit(data(16), **JOB).history
    found = replayed(aggregating, data(16))
    losses = [len(each["row_ids"]) * each["logs"]["loss"] for each in found]
    assert sum(losses) / 16 == pytest.approx(history["loss"][0])
