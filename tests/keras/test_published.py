"""Models as people publish them against one device, and on any workers."""

from __future__ import annotations

import pytest

from ..trainer.helpers import local_trainer
from .against import Trial, differences, weights_of
from .published.catalogue import MODELS
from .published.tuning import unfreeze

EXACT = [name for name, model in MODELS.items() if not model.forbids]
OTHERS = [name for name, model in MODELS.items() if model.forbids]


def trial(name):
    model = MODELS[name]
    return Trial(build=model.build, rows=model.rows(), epochs=model.epochs, batch=model.batch)


def too_far(found, model):
    """The differences beyond what the model allows, but of weights whose exact gradient is zero."""
    zero = model.zero
    return {
        name: far for name, far in found.items() if not far <= model.within and not any(word in name for word in zero)
    }


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_in_one_microbatch_is_that_of_one_device(tmp_path, float64, name):
    tried = trial(name)
    wanted = tried.plain(draws=True)
    assert not too_far(differences(tried.heliostat(tmp_path, workers=0, num_microbatches=1), wanted), MODELS[name])


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", EXACT)
def test_a_published_model_on_two_workers_is_that_of_one_device(tmp_path, float64, name):
    tried = trial(name)
    assert not too_far(differences(tried.heliostat(tmp_path, num_microbatches=2), tried.plain()), MODELS[name])


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", OTHERS)
def test_what_two_microbatches_are_not_is_the_same_bits_on_any_workers(tmp_path, float64, name):
    tried = trial(name)
    assert tried.alike(tmp_path, num_microbatches=4)


ASKED = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}


def in_two_fits(tried, folder, workers, num_microbatches):
    """A head on a frozen base, then all of it."""
    with local_trainer(tried.build, folder, workers=workers, num_microbatches=num_microbatches) as trainer:
        return [trainer.fit(tried.rows.x, tried.rows.y, prepare=p, probe=True, **ASKED) for p in (None, unfreeze)]


@pytest.mark.slow
@pytest.mark.engine
def test_transfer_in_two_fits_is_that_of_one_device(tmp_path, float64):
    tried = trial("transfer")
    model = tried.new_model()
    wanted = [model.fit(tried.rows.x, tried.rows.y, **ASKED).history]
    unfreeze(model)
    wanted.append(model.fit(tried.rows.x, tried.rows.y, **ASKED).history)

    results = in_two_fits(tried, tmp_path, workers=0, num_microbatches=1)
    for result, history in zip(results, wanted, strict=True):
        assert {name: pytest.approx(values, rel=1e-10) for name, values in history.items()} == result.history
    trained = weights_of(results[1].model())  # in the same order, under names that go on counting
    for (path, value), got in zip(weights_of(model).items(), trained.values(), strict=True):
        assert got == pytest.approx(value, rel=1e-9, abs=1e-12), path


@pytest.mark.slow
@pytest.mark.engine
def test_transfer_in_two_fits_is_the_same_bits_on_any_workers(tmp_path, float64):
    """In the second fit Keras lets the base train, whatever it is called with: it takes statistics of microbatches."""
    one, two = (in_two_fits(trial("transfer"), tmp_path / str(n), workers=n, num_microbatches=2) for n in (1, 2))
    assert [result.sha256 for result in one] == [result.sha256 for result in two]
    assert [result.history for result in one] == [result.history for result in two]
