"""Published models whose steps have several phases, through a death in each of them."""

from __future__ import annotations

import threading

import pytest
from heliostat.cluster import instruments

from ..trainer.helpers import die
from .published.catalogue import MODELS
from .test_published import trial

SEVERAL_PHASES = [name for name, model in MODELS.items() if model.phases > 1]


class DiesIn:
    """Lets worker 1 die in a phase of a step: where it makes that phase's call."""

    def __init__(self, phase: int, step: int) -> None:
        self.phase, self.step, self.calls, self.died = phase, step, 0, False

    def __call__(self, point, step) -> None:
        mine = threading.current_thread().name == "heliostat-worker-1"
        if point != "reduce" or step != self.step or not mine:
            return
        self.calls += 1
        if self.calls == self.phase + 1 and not self.died:
            self.died = True
            die()


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "phase"), [(name, phase) for name in SEVERAL_PHASES for phase in range(MODELS[name].phases)]
)
def test_a_death_in_a_phase_changes_nothing(tmp_path, float64, name, phase):
    tried = trial(name)
    undisturbed = tried.heliostat(tmp_path / "undisturbed", workers=3, num_microbatches=6)
    death = DiesIn(phase, step=2)
    stop = instruments.listen(death)
    try:
        disturbed = tried.heliostat(tmp_path / "disturbed", workers=3, num_microbatches=6)
    finally:
        stop()
    assert death.died
    assert disturbed.sha256 == undisturbed.sha256
    assert disturbed.history == undisturbed.history
    rows = [set(epoch.rows_by_worker) for epoch in disturbed.epochs]
    assert {0, 2} <= rows[0], "the others went on within the epoch"
