"""Two hundred faults drawn from a seed, in this process: whatever fails when, the result has the same bits."""

from __future__ import annotations

import random
import threading

import pytest
from heliostat.cluster import instruments
from heliostat.cluster.group.worker_process import WorkerKilled

from .helpers import local_trainer
from .models import normalised
from .test_resume import fit, outcome

pytestmark = [pytest.mark.engine, pytest.mark.slow]

EPOCHS, STEPS = 12, 5
POINTS = (
    "compute",
    "reduce",
    "sending",
    "receiving",
    "summed",
    "applied",
    "validation",
    "regroup",
    "checkpoint",
    "join",
)
FAULTS_OF_A_RUN, RUNS = 20, 10
PATIENCE_STEPS = 3


class Faults:
    """Kills whoever comes first to a point at or after a step; one fault after the other."""

    def __init__(self, chance: random.Random) -> None:
        last = EPOCHS * STEPS - 1 - PATIENCE_STEPS  # the steps of the last fault's patience are still to come then
        steps = sorted(chance.randrange(1, last) for _ in range(FAULTS_OF_A_RUN))
        self.left = [(step, chance.choice(POINTS)) for step in steps]
        self.fired: list[tuple[int, str, str]] = []
        self._lock = threading.Lock()

    def __call__(self, point: str, step: int | None) -> None:
        name = threading.current_thread().name
        if not name.startswith("heliostat-worker"):
            return  # the thread that writes a checkpoint dies with its worker, not before it
        with self._lock:
            if not self.left or step is None or step < self.left[0][0]:
                return
            due, wanted = self.left[0]
            # A point that is rare must not hold up the others: after a few steps any point will do.
            if point != wanted and step < due + PATIENCE_STEPS:
                return
            self.left.pop(0)
            self.fired.append((step, point, name))
        raise WorkerKilled(f"soak: {point} at step {step}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with local_trainer(normalised, tmp_path_factory.mktemp("undisturbed")) as trainer:
        return outcome(fit(trainer, epochs=EPOCHS))


@pytest.mark.parametrize("run", range(RUNS))
def test_twenty_faults_in_a_run_change_nothing(undisturbed, tmp_path, run):
    chance = random.Random(1000 + run)
    faults = Faults(chance)
    stop = instruments.listen(faults)
    loop = ("fit", "train_on_batch", "custom")[run % 3]
    try:
        with local_trainer(normalised, tmp_path, workers=2 + run % 3) as trainer:
            result = fit(trainer, epochs=EPOCHS, loop=loop)
    finally:
        stop()
    assert len(faults.fired) == FAULTS_OF_A_RUN, f"only these faults happened: {faults.fired}"
    assert outcome(result) == undisturbed
