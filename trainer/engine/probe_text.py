"""What is said of findings of the probe: why a step is refused, and what its numbers are by microbatches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .probe_findings import REFUSED, Finding, Verdict

MAX_NAMED = 5
SLOW_S = 5.0
WHOLE = "num_microbatches=1 computes every batch as a whole, on one replica of one worker"
WAYS_OUT: dict[Verdict, str] = {
    "grows": (
        "Give the loss a reduction that is a mean (reduction='sum_over_batch_size'), or divide its sums by the number "
        "of rows, keras.ops.shape(x)[0]. Where all of it is meant to be a sum over rows, say so: reduction='sum' of a "
        "Keras loss; train_step.reduction = 'sum' of the step of a custom loop."
    ),
    "no sum": "It says reduction='sum', and does not sum over rows: take that away, or sum over all rows of the batch.",
    "changed gradient": (
        "Clip in the optimizer, which gets the gradient of the whole batch (clipnorm=, global_clipnorm=, clipvalue=), "
        "or let the step have that one: heliostat.trainer.global_mean(gradients), before it changes them."
    ),
    "state": (
        "Compute it from heliostat.trainer.global_sum(x) or global_mean(x) of what the rows give; or, where the "
        "changes of microbatches add up, create the variable with aggregation='sum'."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNames:
    """How a step is spoken of.

    Attributes:
        step: "training step" or "validation step".
        losses: names of its compiled losses.
        rows: how many rows were looked at, and how many are in a global batch.
    """

    step: str
    losses: tuple[str, ...]
    rows: tuple[int, int]


def refusal(findings: Sequence[Finding], names: StepNames) -> str:
    """Why the step is refused, and what to do; empty if it is not."""
    parts = []
    for verdict in REFUSED:
        found = [_refused(finding, names) for finding in findings if finding.verdict == verdict]
        if found:
            parts.append(f"{'; '.join(_listed(found))}. {WAYS_OUT[verdict]}")
    if not parts:
        return ""
    return (
        f"The {names.step} does not fit microbatches: {' Besides, '.join(parts)} {WHOLE}. Should this be wrong, "
        "fit(probe=False) goes on without this look."
    )


def notes(findings: Sequence[Finding], names: StepNames) -> tuple[str, ...]:
    """What is said once of a step that trains, a line each."""
    lines = []
    differing = [_differing(f, names) for f in findings if f.verdict in ("whole batch", "metric")]
    if differing:
        looked_at, in_batch = names.rows
        lines.append(
            "computed by microbatches, which is not what one device computes for the whole batch: "
            f"{'; '.join(_listed(differing))} ({names.step}, {looked_at} rows, and the same as two microbatches). "
            f"{WHOLE}, which has to hold {in_batch} rows at once"
        )
    unseen = [f.place.name for f in findings if f.verdict == "nothing to see"]
    if unseen:
        lines.append(
            f"the probe of the {names.step} saw nothing of the gradient that {', '.join(unseen)} applies: it is zero "
            "or not finite for the rows looked at. What sums over rows, or takes a batch as a whole, is not found then"
        )
    return tuple(lines)


def failed(error: BaseException, names: StepNames) -> str:
    """What is said if the step could not be run by the probe."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        f"the probe could not run the {names.step} on {names.rows[0]} rows without a graph ({reason[:300]}): what sums "
        "over rows, or takes a batch as a whole, is not found. fit(probe=False) leaves it out"
    )


def slow(expected_s: float) -> str:
    """What is said of a probe that takes long."""
    return (
        f"the probe of the step takes about {expected_s:.0f} s: the step is run without a graph on a few rows, one "
        "operation after another, and this model has many or large ones. fit(probe=False) leaves it out"
    )


def _refused(finding: Finding, names: StepNames) -> str:
    what, rows = _named(finding, names), names.rows[0]
    match finding.verdict:
        case "grows":
            return f"{what} is {finding.ratio:.8g} times as large for the same rows twice, a sum over rows"
        case "no sum":
            return f"{what} is {finding.ratio:.8g} times as large for the same rows twice"
        case "changed gradient" if finding.together == 0.0:
            return f"{what} is clipped, or bounded otherwise, in the step where it is larger than for these {rows} rows"
        case "changed gradient":
            return (
                f"{what} is clipped, or changed otherwise, in the step (its size is {finding.together:.4g} for {rows} "
                f"rows, {finding.apart:.4g} by halves)"
            )
    return (
        f"{what} is no mean over rows ({rows} rows change it by {finding.together:.4g}, by halves {finding.apart:.4g})"
    )


def _differing(finding: Finding, names: StepNames) -> str:
    what = _named(finding, names)
    if finding.place.kind == "gradient":
        return f"{what} differs by {finding.distance:.1%}"
    return f"{what} is {finding.together:.6g} together, {finding.apart:.6g} by microbatches"


def _named(finding: Finding, names: StepNames) -> str:
    kind, name = finding.place
    match kind:
        case "gradient":
            return f"the gradient that {name!r} applies"
        case "number" if finding.verdict == "metric" and name != "loss":
            return f"the metric {name!r}"
        case "number":
            losses = f" ({', '.join(names.losses)})" if name == "loss" and names.losses else ""
            return f"the loss{losses}" if name == "loss" else f"the returned number {name!r}"
        case "state" | "count":
            return f"the state {name!r}"
    return f"the argument of {kind} ({name})"


def _listed(texts: list[str]) -> list[str]:
    return texts if len(texts) <= MAX_NAMED else [*texts[:MAX_NAMED], f"and {len(texts) - MAX_NAMED} more"]
