"""The probe before the first step: does what the step computes follow from microbatches?

A run of V microbatches computes what one device computes for the whole batch, if losses are means over rows (or sums
that say so), metrics add up by their state, and what is assigned is a mean as well. Nobody checks that in a script: a
loss that sums over the rows of the batch trains with 1/V of its gradient, a gradient that is clipped in the step is
clipped V times, and counts of a codebook are V times too small; all of it runs, and looks well. So before a run begins,
its step is run a few times on eight of its rows (`probe_look.py`), as they are, in halves, and twice, and what came out
is compared (`probe_findings.py`). What would train something else is refused. What differs as documented, since a loss
or a metric takes the batch as a whole, is said once, with both values (`probe_text.py`).

It changes nothing: weights, seeds, metrics and optimizers have the same bits before and after.

What it misses. A sum that is small beside the rest of the gradient at these rows and weights (a thousandth is seen, a
ten-millionth is not); a term that is inactive there (a hinge beyond its margin, a warm-up factor that is still 0);
pairs of rows within what happens to be one half; whatever depends on the number of the step; in half precision all
that is smaller than its rounding.

What was not done: deciding by the graph (whether a reduction over axis 0 is a sum or a mean is a matter of what divides
it, perhaps in a layer far away); running the trace of the engine on other rows, which is one call and cheaper, but
draws by microbatch and takes batch statistics, so that every model with dropout differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from ..columns import RowWeigher
from ..errors import UnsupportedStepError
from . import probe_text
from .layout import microbatch_weights
from .model import BuiltModel, compiled_losses
from .private_models import compute_dtypes
from .probe_findings import SCALE, TOLERANCES, Finding, Kind, Look, Looks, Shares, find, must_look_thrice
from .probe_look import Observer
from .runtime import BUILD_LOCK

NUM_ROWS = 8
FIRST_LOOKS_TO_COME = 3  # after the first half so many times its rows: the other half, and the first one twice
Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A step that is to be looked at.

    Attributes:
        observer: runs it.
        kind: "training step" or "validation step".
        rows: up to twice `NUM_ROWS` rows, by column: the second half is for where nothing is to be seen on the first.
        reduction: how its loss reduces over rows.
        weigh: how much rows weigh together, where the reduction divides by it.
        batch_rows: rows of a global batch.
    """

    observer: Observer
    kind: str
    rows: Rows
    reduction: str
    weigh: RowWeigher | None
    batch_rows: int


def probe(built: BuiltModel, probed: Probed, say_slow: Callable[[str], None]) -> tuple[str, ...]:
    """Look at a step; returns what the user should know of it.

    Args:
        built: its model.
        probed: the step.
        say_slow: is called at most once, with a line, when the first look tells that the probe takes long.

    Raises:
        UnsupportedStepError: the step computes what microbatches cannot.
    """
    num_rows = min(NUM_ROWS, _length(probed.rows)) // 2 * 2  # a mean that counts a batch once counts halves alike
    names = probe_text.StepNames(step=probed.kind, losses=_loss_names(built.model), rows=(num_rows, probed.batch_rows))
    if num_rows < 2:
        return ()
    try:
        with BUILD_LOCK:
            found = _found(built, probed, num_rows, say_slow)
    except Exception as error:  # whatever the user's step raises on these rows: it may be right on those of the run
        return (probe_text.failed(error, names),)
    if refused := probe_text.refusal(found, names):
        raise UnsupportedStepError(refused)
    return probe_text.notes(found, names)


def _found(built: BuiltModel, probed: Probed, num_rows: int, say_slow: Callable[[str], None]) -> list[Finding]:
    """Findings on the first rows, or on the next ones where there is nothing to be seen on those."""
    tolerance = max(TOLERANCES.get(dtype, TOLERANCES["bfloat16"]) for dtype in compute_dtypes(built.model))
    found = _found_on(probed, 0, num_rows, tolerance, say_slow)
    has_more = _length(probed.rows) >= 2 * num_rows
    if has_more and any(finding.verdict == "nothing to see" for finding in found):
        return _found_on(probed, num_rows, num_rows, tolerance, lambda _: None)
    return found


def _found_on(
    probed: Probed, start: int, num_rows: int, tolerance: float, say_slow: Callable[[str], None]
) -> list[Finding]:
    middle, stop = start + num_rows // 2, start + num_rows
    first_rows, second_rows = _rows(probed.rows, start, middle), _rows(probed.rows, middle, stop)
    whole_rows, observer = _rows(probed.rows, start, stop), probed.observer

    began_s = time.perf_counter()
    whole = observer.look(whole_rows, _weights(probed, whole_rows, whole_rows))
    asked = observer.asked  # by each global_sum and global_mean, if the step has any
    first_weights, second_weights = _weights(probed, first_rows, whole_rows), _weights(probed, second_rows, whole_rows)
    began_first_s = time.perf_counter()  # what came before was perhaps the first that TensorFlow computed at all
    first = observer.look(first_rows, first_weights, asked)
    now_s = time.perf_counter()
    expected_s = now_s - began_s + FIRST_LOOKS_TO_COME * (now_s - began_first_s)
    if expected_s > probe_text.SLOW_S:
        say_slow(probe_text.slow(expected_s))
    second = observer.look(second_rows, second_weights, asked)
    twice, in_twice = _look_at_copies(probed, first_rows, 2)
    scaled = None
    if whole.changed and not asked:
        one, two = (observer.look(first_rows, first_weights, scale=scale) for scale in (SCALE, 2 * SCALE))
        scaled = one, two
    looks = Looks(
        whole=whole,
        first=first,
        second=second,
        twice=twice,
        in_twice=in_twice,
        scaled=scaled,
        shares=_shares(first_weights, second_weights, _weights(probed, first_rows, _repeated(first_rows, 2))),
        sums=frozenset(observer.sums),
    )
    if must_look_thrice(looks, tolerance):
        thrice, in_thrice = _look_at_copies(probed, first_rows, 3)
        looks = replace(looks, thrice=thrice, in_thrice=in_thrice)
    together, apart = observer.results(whole.metrics), observer.results(observer.merged(first, second))
    results = {name: (together[name], apart[name]) for name in together}
    return find(looks, results, tolerance)


def _loss_names(model: keras.Model) -> tuple[str, ...]:
    """Names of a model's compiled losses, as the user knows them."""
    return tuple(
        loss if isinstance(loss, str) else str(getattr(loss, "__name__", None) or getattr(loss, "name", type(loss)))
        for loss in compiled_losses(model)
    )


def _shares(first: np.ndarray, second: np.ndarray, copy: np.ndarray) -> dict[Kind, Shares]:
    """By what the run multiplies each kind of value, from the weights of parts and copies."""
    num_rows = first[3] + second[3]
    of_loss = Shares(first=first[0], second=second[0], copy=copy[0])
    of_number = Shares(first=first[2] * first[3] / num_rows, second=second[2] * second[3] / num_rows, copy=copy[2] / 2)
    of_state = Shares(first=first[1], second=second[1], copy=copy[1])
    return {
        "gradient": of_loss,
        "raw gradient": of_loss,
        "number": of_number,
        "state": of_state,
        "count": of_state,
        "global_mean": of_state,
    }


def _weights(probed: Probed, rows: Rows, batch: Rows) -> np.ndarray:
    """By what a run multiplies what these rows of a batch bring."""
    weight, batch_weight = (
        0.0 if probed.weigh is None else probed.weigh.total(each[probed.weigh.column]) for each in (rows, batch)
    )
    return microbatch_weights(probed.reduction, _length(rows), _length(batch), weight, batch_weight)


def _look_at_copies(probed: Probed, rows: Rows, copies: int) -> tuple[Look, Look | None]:
    """Looks at a batch that has some rows several times, and at one of these copies if it is another one there."""
    batch, observer = _repeated(rows, copies), probed.observer
    look = observer.look(batch, _weights(probed, batch, batch))
    asked = observer.asked
    return look, observer.look(rows, _weights(probed, rows, batch), asked) if asked else None


def _repeated(rows: Rows, copies: int) -> Rows:
    return {name: np.concatenate([values] * copies) for name, values in rows.items()}


def _rows(rows: Rows, start: int, stop: int) -> Rows:
    return {name: values[start:stop] for name, values in rows.items()}


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))
