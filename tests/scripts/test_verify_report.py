"""What `heliostat verify-run` says of what it has found, and when it is proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat.scripts.commands.verify_report import Steps, Verified, cause, is_said, lines
from heliostat.trainer.step_states import Compared, Difference, StepCompared, StepSeen

NOTE = (
    "computed by microbatches, which is not what one device computes for the whole batch: the loss (dice) is 0.4 "
    "together, 0.5 by microbatches; the metric 'f1' is 0.1 together, 0.2 by microbatches"
)
LOSS = Difference(step=1, kind="number", name="loss", size=0.1, ours=1.1, theirs=1.0)
F1 = Difference(step=1, kind="number", name="f1", size=0.1, ours=0.2, theirs=0.1)
A, B = (Difference(step=1, kind="weight", name=name, weight=name, size=0.1) for name in ("a/kernel", "b/kernel"))
MOMENTUM = Difference(step=1, kind="optimizer", name="adam/a_kernel_momentum", weight="a/kernel", size=0.1)
STATE = Difference(step=1, kind="state", name="c/seen", size=0.1)


def steps(title, digests=("1", "2"), *, end="e", lost=0, workers=1) -> Steps:
    seen = [StepSeen(step=n, digests={"a": each}, numbers={"loss": 0.5}) for n, each in enumerate(digests)]
    return Steps(
        title=title,
        seen=seen * workers,
        sha256={"weights": end},
        epochs=[{"loss": 0.5, "val_loss": 0.25}],
        num_lost=lost,
    )


def compared(*found: Difference, **given) -> Compared:
    fields = {"precision": "float64", "num_variables": 9, "num_weights": 2, "numbers": ("loss", "f1"), **given}
    return Compared(
        steps=(StepCompared(step=0, differences=(), **fields), StepCompared(step=1, differences=found, **fields))
    )


GOOD = Verified(
    first=steps("2 workers", workers=2),
    others=[steps("1 worker"), steps("2 workers, one killed", lost=1)],
    compared=compared(),
)


def test_all_equal_is_proved():
    assert GOOD.is_proved
    text = "\n".join(lines(GOOD))
    assert "2 workers = 1 worker = 2 workers, one killed, after each of 2 steps" in text
    assert "and the end with its validation" in text
    assert "Equal but for rounding: plain Keras on one device, in float64, 2 steps" in text
    assert "NOT" not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"others": [steps("1 worker", ("1", "9")), GOOD.others[1]]}, "1 worker, first at step 1: a."),
        ({"others": [steps("1 worker", end="f"), GOOD.others[1]]}, "1 worker, first at step 1: weights."),
        ({"others": [GOOD.others[0], steps("2 workers, one killed", ("1",), lost=1)]}, "first at step 1: step 1."),
        ({"others": [GOOD.others[0], steps("2 workers, one killed")]}, "No worker was lost"),
        ({"compared": compared(LOSS, A, B)}, "loss is 1.1, and 1 by plain Keras, from step 1 on"),
        ({"compared": Compared(steps=())}, "no step was computed"),
        ({"first": Steps(title="2 workers", seen=[], sha256={}, epochs=[])}, "no step was computed"),
    ],
)
def test_each_thing_that_must_be_equal_is_wanted(change, said):
    found = replace(GOOD, **change)
    assert not found.is_proved
    text = lines(found)
    assert any(said in line for line in text)
    assert text[-1].startswith("NOT PROVED")


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ([LOSS, A, B], "the loss, and with it all gradients, from step 1 on"),
        ([LOSS, MOMENTUM], "the loss, and with it the gradients of a/kernel, from step 1 on"),
        ([A, B, MOMENTUM], "all gradients, or their update, and not the loss, from step 1 on"),
        ([MOMENTUM], "the gradients of a/kernel, or their update, and not the loss, from step 1 on"),
        ([STATE], "what the step assigns to c/seen, from step 1 on"),
        ([STATE, LOSS, A], "what the step assigns to c/seen, and with it the loss, from step 1 on"),
        ([F1], "the metric f1, from step 1 on"),
        ([F1, replace(LOSS, step=2)], "the metric f1, from step 1 on"),
        (
            [replace(F1, name="critic"), A],
            "what the step returns (critic), and with it the gradients of a/kernel, from step 1 on",
        ),
    ],
)
def test_the_cause_is_what_takes_the_rest_with_it(found, what):
    assert cause(found, 2) == what


def test_what_the_start_has_said_is_no_fault_of_the_run():
    found = replace(GOOD, compared=compared(LOSS, F1, A, B, MOMENTUM), notes=[NOTE])
    assert found.is_proved
    assert [line for line in lines(found) if line.startswith("As the start says: loss is 1.1")]
    assert "but for what the start says" in lines(found)[-1]
    assert not replace(found, notes=[]).is_proved


def test_the_start_must_have_said_just_that():
    only_f1 = NOTE.replace("the loss (dice) is 0.4 together, 0.5 by microbatches; ", "")
    assert is_said(F1, [only_f1])
    assert not is_said(LOSS, [only_f1])
    assert not is_said(A, [only_f1])
    assert not is_said(STATE, [NOTE])
    assert not is_said(LOSS, ["steps_per_execution=4 counts as 1: the loss ..."])


def test_what_could_not_be_compared_exactly_is_said():
    given = {"without_float64": ("ctc",), "by_design": ("batch_normalization",), "precision": "float32"}
    text = "\n".join(lines(replace(GOOD, compared=replace(compared(**given), why_not_exact="no kernel"))))
    assert "Not in float64, which would show more: no kernel" in text
    assert "Layers that do not compute in float64: ctc." in text
    assert "By design: batch_normalization takes" in text


def test_variables_are_named_with_how_much_their_change_is_off():
    found = replace(GOOD, compared=compared(A, STATE, MOMENTUM))
    text = "\n".join(lines(found))
    assert "the change of the weight a/kernel is off by 0.1 of its size, from step 1 on" in text
    assert "the change of the state c/seen is off by 0.1" in text
    assert "the change of the optimizer's adam/a_kernel_momentum is off by 0.1" in text
