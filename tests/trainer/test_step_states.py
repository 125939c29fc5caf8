"""Comparisons of steps: what is rounding, what is not, and what is named first."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.trainer.step_states import (
    PRECISIONS,
    Compared,
    Difference,
    Part,
    StateChange,
    StepCompared,
    StepSeen,
    bit_differences,
    first_differences,
    number_differences,
    state_differences,
)

EXACT = PRECISIONS["float64"]
PARTS = [
    Part(kind="weight", name="a/kernel", weight="a/kernel", divided=True),
    Part(kind="weight", name="b/kernel", weight="b/kernel"),
    Part(kind="optimizer", name="adam/a_kernel_momentum", weight="a/kernel"),
    Part(kind="state", name="c/seen"),
]


def change(factors=(0.0, 0.0, 0.0, 0.0)) -> StateChange:
    """One change of four variables, by one side; by the other it is larger by these shares of it."""
    rng = np.random.default_rng(0)
    before = [rng.normal(size=(7,)) for _ in PARTS]
    changes = [1e-3 * rng.normal(size=(7,)) for _ in PARTS]
    theirs = [start + each for start, each in zip(before, changes, strict=True)]
    ours = [start + (1 + f) * each for start, each, f in zip(before, changes, factors, strict=True)]
    return StateChange(before=before, ours=ours, theirs=theirs)


def named(factors) -> list[str]:
    return [each.name for each in state_differences(3, PARTS, change(factors), EXACT)]


def test_the_same_change_differs_nowhere():
    assert named((0, 0, 0, 0)) == []


def test_a_millionth_of_a_change_is_seen_and_a_rounding_is_not():
    assert named((1e-6, 0, 0, 0)) == ["a/kernel"]
    assert named((0, 1e-8, 1e-8, 1e-8)) == ["b/kernel", "adam/a_kernel_momentum", "c/seen"]
    assert named((1e-11, 1e-11, 1e-11, 1e-11)) == []


def test_a_weight_that_is_divided_by_what_its_optimizer_keeps_may_differ_more():
    assert named((1e-8, 0, 0, 0)) == []
    assert named((0, 1e-8, 0, 0)) == ["b/kernel"]


def test_the_size_is_beside_the_change():
    (found,) = state_differences(3, PARTS, change((0, 0.25, 0, 0)), EXACT)
    assert (found.step, found.kind, found.weight) == (3, "weight", "b/kernel")
    assert found.size == pytest.approx(0.25)


def test_a_gradient_that_cancels_to_its_rounding_counts_for_nothing():
    """As that of a bias in front of a BatchNormalization: 1e-19 on one side, and -1e-19 on the other."""
    parts = [Part(kind="weight", name="kernel"), Part(kind="weight", name="bias")]
    zeros = [np.zeros(3), np.zeros(3)]
    ours, theirs = [np.full(3, 1e-3), np.full(3, 1e-19)], [np.full(3, 1e-3), np.full(3, -1e-19)]
    assert not list(state_differences(0, parts, StateChange(before=zeros, ours=ours, theirs=theirs), EXACT))


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"), [(np.nan, np.nan, False), (np.nan, 1.0, True), (1.0, np.inf, True)]
)
def test_what_is_not_finite_must_not_be_so_on_both_sides(ours, theirs, differs):
    found = StateChange(before=[np.zeros(2)], ours=[np.array([1.0, ours])], theirs=[np.array([1.0, theirs])])
    assert bool(list(state_differences(0, PARTS[:1], found, EXACT))) == differs
    assert bool(list(number_differences(0, {"loss": ours}, {"loss": theirs}, EXACT))) == differs


def test_numbers_are_compared_by_name():
    ours, theirs = (
        {"loss": 1.0, "mae": 0.5, "by_class": [1.0, 2.0]},
        {"loss": 1.0 + 1e-7, "mae": 0.5, "by_class": [1.0, 3.0]},
    )
    found = list(number_differences(2, ours, theirs, EXACT))
    assert [(each.name, each.ours) for each in found] == [("loss", 1.0), ("by_class", [1.0, 2.0])]
    assert [each.name for each in number_differences(2, ours, {"loss": 1.0}, EXACT)] == ["mae", "by_class"]
    assert not list(number_differences(0, {"loss": 1e-17}, {"loss": -1e-17}, EXACT))


def seen(step, digest="1", loss=0.5) -> StepSeen:
    return StepSeen(step=step, digests={"kernel": digest, "bias": "0"}, numbers={"loss": loss})


def test_equal_steps_have_no_bits_that_differ():
    assert bit_differences([seen(0), seen(1, "2", np.nan)], [seen(0), seen(1, "2", np.nan)]) == []


def test_bits_differ_from_some_step_on_and_by_name():
    found = bit_differences([seen(0), seen(1, "9"), seen(2, "9", 0.75)], [seen(0), seen(1), seen(2)])
    assert [(each.step, each.name) for each in found] == [(1, "kernel"), (2, "kernel"), (2, "loss")]
    assert [(each.step, each.name) for each in first_differences(found)] == [(1, "kernel"), (2, "loss")]


def test_a_step_that_one_run_has_not_told_is_not_equal():
    assert [each.name for each in bit_differences([seen(0)], [seen(0), seen(1)])] == ["step 1"]
    assert [each.name for each in bit_differences([seen(0), seen(1)], [seen(0)])] == ["step 1"]


def test_all_workers_must_have_told_the_same():
    assert [each.name for each in bit_differences([seen(0), seen(0, "8")], [seen(0), seen(0)])] == ["kernel"]
    assert {each.name for each in bit_differences([seen(0), seen(0)], [seen(0), seen(0, "8")])} == {"kernel"}


def test_steps_come_through_json():
    step = StepCompared(
        step=1,
        precision="float64",
        num_variables=2,
        num_weights=1,
        numbers=("loss",),
        differences=(Difference(step=1, kind="number", name="loss", size=1.0, ours=[1.0], theirs=None),),
    )
    found = Compared(steps=(step,), why_not_exact="no kernel")
    assert Compared.from_json(found.to_json()) == found
    assert StepSeen.from_json(seen(3).to_json()) == seen(3)
