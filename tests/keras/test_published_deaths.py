"""Published models whose steps have several phases, through a death in each of them."""

from __future__ import annotations

import pytest

from ..trainer.helpers import die
from .published.catalogue import MODELS
from .test_published import trial

SEVERAL_PHASES = [name for name, model in MODELS.items() if model.phases > 1]


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "phase"), [(name, phase) for name in SEVERAL_PHASES for phase in range(MODELS[name].phases)]
)
def test_a_death_in_a_phase_changes_nothing(tmp_path, float64, watch, name, phase):
    tried = trial(name)
    undisturbed = tried.heliostat(tmp_path / "undisturbed", workers=3, num_microbatches=6)
    watch.at("reduce", 2, phase, die, worker=1)
    disturbed = tried.heliostat(tmp_path / "disturbed", workers=3, num_microbatches=6)
    assert disturbed.sha256 == undisturbed.sha256
    assert disturbed.history == undisturbed.history
    rows = [set(epoch.rows_by_worker) for epoch in disturbed.epochs]
    assert {0, 2} <= rows[0], "the others went on within the epoch"
