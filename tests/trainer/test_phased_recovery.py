"""Runs whose steps have several phases are disturbed, stopped and gone on with: the bits of an undisturbed run.

Who outlives a death goes on inside of the step; when all are lost others begin at the last checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from heliostat.cluster import instruments

from ..slow import SLOW
from .faults import events_of, outcome
from .helpers import die, local_trainer
from .phased_cases import CASES, data
from .phased_players import gan, gan_with_batch_normalization, wgan_gp

pytestmark = pytest.mark.engine

JOB = {"epochs": 4, "global_batch_size": 16, "verbose": 0, "record_rows": True}


class Watch:
    """What the workers of this process come to, phase by phase, and what befalls whom there.

    Attributes:
        seen: how often (worker, point, step, phase) was reached; worker None stands for the calling process.
    """

    def __init__(self) -> None:
        self.seen: Counter = Counter()
        self._at: dict[str, tuple[int, int]] = {}  # by thread the step, and how many of its sums are there
        self._orders: list[tuple] = []
        self._lock = threading.Lock()

    def at(self, point, step, phase, action, worker=None) -> None:
        """Do something once, when a worker is at a point of a phase; phases with a sum are counted, from 0."""
        self._orders.append((point, step, phase, worker, action))

    def reached(self, point, step) -> None:
        name = threading.current_thread().name
        worker = int(name.split("-")[-1]) if name.startswith("heliostat-worker-") else None
        with self._lock:
            at, phase = self._at.get(name, (-1, 0))
            if step is not None and step != at:
                at, phase = step, 0
            self._at[name] = at, phase + (point == "summed")
            self.seen[worker, point, at, phase] += 1
            found = [o for o in self._orders if o[:3] == (point, at, phase) and o[3] in (None, worker)]
            for order in found:
                self._orders.remove(order)
        for order in found:
            order[-1]()

    @staticmethod
    def wait(until) -> None:
        """Wait until something is true."""
        until_s = time.monotonic() + 60 * SLOW
        while not until():
            assert time.monotonic() < until_s, "what was waited for did not happen"
            time.sleep(0.01)

    def computed(self, step: int, phases: int, workers) -> dict[tuple, int]:
        """How often these workers have begun to compute the first phases of a step."""
        return {
            (worker, phase): self.seen[worker, "compute", step, phase] for worker in workers for phase in range(phases)
        }

    @property
    def missing(self) -> list[tuple]:
        return [order[:4] for order in self._orders]


@pytest.fixture
def watch():
    made = Watch()
    remove = instruments.listen(made.reached)
    yield made
    remove()
    assert not made.missing, "what was planned did not happen"


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
