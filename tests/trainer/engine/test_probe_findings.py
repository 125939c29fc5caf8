"""Findings and messages of the probe, from numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.trainer.engine import probe_text
from heliostat.trainer.engine.probe_findings import (
    SCALE,
    SUM,
    TOLERANCES,
    Look,
    Looks,
    Place,
    Shares,
    find,
    must_look_thrice,
)

NAMES = probe_text.StepNames(step="training step", losses=("dice",), rows=(8, 64))
GRADIENT, RAW, LOSS = Place("gradient", "adam"), Place("raw gradient", "adam"), Place("number", "loss")
ROWS = np.random.default_rng(0).normal(size=(8, 5)) + 0.3
FLOAT32 = TOLERANCES["float32"]


def looks_at(functions, rows=ROWS, **named):
    """Looks at a step whose values are functions of the rows."""

    def at(some):
        return Look({place: np.atleast_1d(function(some)).astype(float) for place, function in functions.items()})

    half = rows[: len(rows) // 2]
    repeated = (np.concatenate([half] * copies) for copies in (2, 3))
    return Looks(
        whole=at(rows),
        first=at(half),
        second=at(rows[len(rows) // 2 :]),
        twice=at(next(repeated)),
        thrice=at(next(repeated)),
        **named,
    )


def verdicts(functions, **named):
    return {finding.place: finding.verdict for finding in find(looks_at(functions, **named), {}, FLOAT32)}


def mean(rows):
    return rows.mean(0)


def total(rows):
    return rows.sum(0)


def log_of_sum(rows):
    return np.log(np.exp(rows).sum(0))


def clipped(rows):
    return rows.mean(0) / max(1.0, np.linalg.norm(rows.mean(0)) / 0.1)


def ratio(rows):
    return total(rows**2) / total(np.abs(rows))


def test_means_are_nothing_to_speak_of():
    places = (GRADIENT, RAW, LOSS, Place("state", "mean"), Place("global_mean", "1"))
    assert verdicts(dict.fromkeys(places, mean)) == {}
    assert not must_look_thrice(looks_at({GRADIENT: mean}), FLOAT32)


@pytest.mark.parametrize("share", [1.0, 1e-3], ids=["all", "a_thousandth"])
def test_what_grows_with_copies_of_rows_is_a_sum_with_its_ratio(share):
    def some(rows):
        return mean(rows) + share * total(rows)

    looks = looks_at({GRADIENT: some})
    assert must_look_thrice(looks, FLOAT32)
    (found,) = find(looks, {}, FLOAT32)
    assert found.verdict == "grows"
    once = some(ROWS[:4])
    assert found.ratio == pytest.approx(once @ some(np.concatenate([ROWS[:4]] * 2)) / (once @ once))
    assert "reduction" in probe_text.refusal([found], NAMES)[:200]


def test_a_logarithm_of_a_sum_is_a_loss_of_the_whole_batch():
    assert verdicts({GRADIENT: log_of_sum, LOSS: lambda rows: log_of_sum(rows).mean()}) == {
        GRADIENT: "whole batch",
        LOSS: "whole batch",
    }


def test_a_sum_that_is_declared_is_right_and_a_mean_that_is_called_a_sum_is_not():
    shares = {"gradient": SUM}
    assert verdicts({GRADIENT: total}, shares=shares) == {}
    assert verdicts({GRADIENT: mean}, shares=shares) == {GRADIENT: "no sum"}


def test_gradients_that_the_step_changes_are_told_from_losses_of_the_whole_batch():
    assert verdicts({GRADIENT: clipped, RAW: mean}) == {GRADIENT: "changed gradient"}
    assert verdicts({GRADIENT: clipped}) == {GRADIENT: "changed gradient"}  # nothing known of tapes
    assert verdicts({GRADIENT: ratio, RAW: ratio}) == {GRADIENT: "whole batch"}  # a loss that is not returned
    both = {GRADIENT: ratio, LOSS: lambda rows: ratio(rows).mean()}
    assert verdicts(both) == {GRADIENT: "whole batch", LOSS: "whole batch"}


def test_halves_that_cancel_are_measured_by_their_own_size():
    rows = np.concatenate([ROWS[:4], -ROWS[:4]])

    def rounded(some):
        return mean(some) + 1e-6 * (len(some) == 8)

    assert find(looks_at({GRADIENT: rounded}, rows), {}, FLOAT32) == []


def test_state_is_a_mean_or_refused():
    place, count = Place("state", "codes"), Place("count", "seen")
    assert verdicts({place: ratio, count: len}) == {place: "state", count: "state"}
    assert verdicts({place: total}) == {place: "state"}
    assert verdicts({count: lambda rows: 1}) == {}
    assert verdicts({place: total, count: len}, sums=frozenset([place, count])) == {}
    (found,) = find(looks_at({count: len}), {}, FLOAT32)
    text = probe_text.refusal([found], NAMES)
    assert all(word in text for word in ("'seen'", "global_sum", "aggregation", "num_microbatches=1"))


def test_a_change_of_state_within_rounding_is_none():
    place = Place("state", "average")
    looks = looks_at({place: lambda rows: 1e-9 * len(rows) * np.ones(3)})
    noisy = Look(looks.whole.values, {place: 1e-6})
    assert find(looks, {}, FLOAT32)
    noises = {name: noisy if name == "whole" else getattr(looks, name) for name in ("whole", "first", "second")}
    assert [f.verdict for f in find(Looks(**noises, twice=looks.twice), {}, FLOAT32)] == []


def test_arguments_of_global_sum_add_up():
    place = Place("global_sum", "1")
    assert verdicts({place: total}) == {}
    assert verdicts({place: ratio}) == {place: "whole batch"}


def test_parts_of_unequal_size_count_by_their_rows():
    rows = ROWS[:7]
    shares = {"gradient": Shares(first=3 / 7, second=4 / 7)}
    assert find(looks_at({GRADIENT: mean}, rows, shares=shares), {}, FLOAT32) == []
    assert [f.verdict for f in find(looks_at({GRADIENT: mean}, rows), {}, FLOAT32)] == ["changed gradient"]


def test_gradients_of_which_nothing_is_seen_are_said():
    (found,) = find(looks_at({GRADIENT: lambda rows: np.zeros(3)}), {}, FLOAT32)
    assert found.verdict == "nothing to see"
    assert probe_text.refusal([found], NAMES) == ""
    assert "saw nothing of the gradient that adam applies" in probe_text.notes([found], NAMES)[0]


def test_both_values_and_the_cost_of_one_microbatch_are_in_the_note():
    results = {"loss": (np.array([0.25]), np.array([0.3125])), "accuracy": (np.array([0.5]), np.array([0.5]))}
    found = find(looks_at({GRADIENT: ratio}), results, FLOAT32)
    assert [(f.verdict, f.place.name) for f in found] == [("whole batch", "adam"), ("metric", "loss")]
    (note,) = probe_text.notes(found, NAMES)
    assert "the loss (dice) is 0.25 together, 0.3125 by microbatches" in note
    assert "num_microbatches=1" in note
    assert "64 rows at once" in note


@pytest.mark.parametrize("bound", [1e12, 1.0], ids=["never", "when_larger"])
def test_a_bound_that_no_gradient_reaches_yet_is_found(bound):
    def look(scale, rows=ROWS):
        gradient = scale * rows.mean(0)
        applied = 0.25 + gradient / max(1.0, np.linalg.norm(gradient) / bound)
        return Look({GRADIENT: applied, RAW: gradient}, changed=frozenset([GRADIENT]))

    half = ROWS[:4]
    looks = Looks(
        whole=look(1),
        first=look(1, half),
        second=look(1, ROWS[4:]),
        twice=look(1, half),
        scaled=(look(SCALE, half), look(2 * SCALE, half)),
    )
    found = find(looks, {}, FLOAT32)
    assert [f.verdict for f in found] == ["changed gradient"] * (bound == 1.0)
    assert ("clipped" in probe_text.refusal(found, NAMES)) == (bound == 1.0)
