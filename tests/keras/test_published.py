"""Twelve models as people publish them against one device, in one microbatch."""

from __future__ import annotations

import pytest

from .against import Trial, differences
from .published.catalogue import MODELS


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
