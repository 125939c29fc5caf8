"""What a step would take without one of the things that it waits for: the arithmetic behind verdicts.

**The model.** Workers meet in every step. So a step takes as long as the worker that is busy for longest, and then what
all do together:

    step = max over workers (input + compute + local sum + apply + rest; in some steps the copy of the state)
         + all-reduce, once everybody is there
         + callbacks and what follows them on the chief + validation + the meeting at an epoch's end

and all that other workers wait is somebody's busyness. What the model does not explain, the waiting of even the busiest
worker since steps differ from one to the next, stays as it is. To take something away is to change the workers' times
and to look what the maximum becomes: a slow worker made faster helps only until the next one is the slowest, and rows
that come at once on all workers help as much as the busiest one waited for them.

**A larger batch** spreads what a step costs however few rows it has. Of the gradient that is not recorded, but the
update is one traced call without rows, and the gradient about two more (forward and back): the cost of a call is taken
as twice the update's, and at most `CALL_S`. Measured on three models of 3 to 81 layers, that was 0.6 to 1.5 times what
the gradient of four rows takes.

What was not done: a regression of step time on its parts, which needs runs that differ; thresholds on shares ("input
above 20 %"), which say neither whether another worker is slower still nor what a change would bring.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from heliostat.cluster.assignment import assign_by_time

from .step_times import Stretch, WorkerTimes

WhatIf = Callable[[Stretch], float]
"""Seconds that a step would take."""
CALL_S = 0.006  # of large models the update is no measure: it goes through all weights
_FOR_ALL = ("input", "compute", "local_sum")  # what a single worker would do for all others


def changed(stretch: Stretch, own_s: Mapping[int, float], *, saves: bool = True) -> float:
    """Seconds of a step if workers were busy by themselves for so long.

    Args:
        stretch: as it was.
        own_s: by worker, without copies of the state.
        saves: whether the state is copied for checkpoints as before, or never.
    """
    before_s = {number: each.own_s for number, each in stretch.workers.items()}
    return stretch.step_s - _longest_s(stretch, before_s, saves=True) + _longest_s(stretch, own_s, saves=saves)


def _longest_s(stretch: Stretch, own_s: Mapping[int, float], *, saves: bool) -> float:
    """How long workers are busy until the last is ready, the mean over steps with a copy of the state and without."""
    rate = stretch.save_rate if saves else 0.0
    copies_s = {number: each.seconds("save") / rate if rate else 0.0 for number, each in stretch.workers.items()}
    return (1.0 - rate) * max(own_s.values()) + rate * max(own_s[number] + copies_s[number] for number in own_s)


def without(stretch: Stretch, part: str) -> float:
    """Seconds of a step if a part of what workers do by themselves took no time."""
    return changed(stretch, {number: each.own_s - each.seconds(part) for number, each in stretch.workers.items()})


def without_saving(stretch: Stretch) -> float:
    """Seconds of a step if the state were never copied for checkpoints."""
    return changed(stretch, {number: each.own_s for number, each in stretch.workers.items()}, saves=False)


def without_callbacks(stretch: Stretch) -> float:
    """Seconds of a step if the chief ran no callbacks, and told nobody what they have changed."""
    return stretch.step_s - stretch.chief.seconds("hooks", "control")


def without_validation(stretch: Stretch) -> float:
    """Seconds of a step without its share of the validation."""
    return stretch.step_s - stretch.seconds("validate")


# -- the pace of workers ----------------------------------------------------------------------------------------------


def usual_pace_s(stretch: Stretch, number: int) -> float:
    """How long the others of a worker compute one microbatch, their median; its own if there are no others."""
    others = [each.pace_s for other, each in stretch.workers.items() if other != number]
    return statistics.median_low(others or [stretch.workers[number].pace_s])


def without_slow_worker(stretch: Stretch) -> float:
    """Seconds of a step if no worker took longer for a microbatch than the median of the others."""
    return changed(
        stretch,
        {
            number: each.own_s - each.computed * max(0.0, each.pace_s - usual_pace_s(stretch, number))
            for number, each in stretch.workers.items()
        },
    )


def balanced(stretch: Stretch, num_microbatches: int, num_replicas: int) -> float:
    """Seconds of a step if microbatches were dealt out by the workers' pace, as `cluster.pace` does."""
    paces_s = [each.pace_s for each in stretch.workers.values()]
    if min(paces_s) <= 0.0 or -(-num_microbatches // num_replicas) <= len(paces_s):
        return stretch.step_s
    ranges = assign_by_time(num_microbatches, paces_s, num_replicas)
    own_s = {
        number: each.own_s + each.pace_s * (-(-(hi - lo) // num_replicas) - each.computed)
        for (number, each), (lo, hi) in zip(stretch.workers.items(), ranges, strict=True)
    }
    return changed(stretch, own_s)


# -- the network, and the batch ---------------------------------------------------------------------------------------


def network_s(stretch: Stretch) -> float:
    """What the all-reduce takes once all workers are there, where it takes the least."""
    return min(each.seconds("all_reduce") for each in stretch.workers.values())


def alone(stretch: Stretch) -> float:
    """Seconds of a step if one worker did what all do: nothing travels, and nobody waits."""
    workers = stretch.workers.values()
    own_s = sum(each.seconds(*_FOR_ALL) for each in workers)
    own_s += max(each.seconds("apply", "rest", "save") for each in workers)
    return own_s + stretch.chief.seconds("hooks", "control") + stretch.seconds("validate", "epoch_end")


def fixed_s(stretch: Stretch, each: WorkerTimes) -> float:
    """What a worker does by itself in a step however few rows it has."""
    call_s = min(2 * stretch.seconds("apply"), CALL_S, each.pace_s)
    return each.seconds("local_sum", "apply", "rest") + each.computed * call_s


def larger_batch(stretch: Stretch, times: float, *, with_network: bool) -> float:
    """Seconds for the rows of a step if batches were so many times as large.

    Args:
        stretch: as it was.
        times: how many times as many rows a step has.
        with_network: whether the all-reduce is spread over more rows, too, or counts as it is.
    """
    saved = 1.0 - 1.0 / times
    own_s = {number: each.own_s - saved * fixed_s(stretch, each) for number, each in stretch.workers.items()}
    return changed(stretch, own_s) - (saved * network_s(stretch) if with_network else 0.0)
