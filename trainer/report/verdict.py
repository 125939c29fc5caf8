"""What limited a run, in one sentence with its evidence, what to change, and what that would bring.

The verdict is the cause without which the run would have been the fastest, by the model in `what_if`; below 10 % the
run is healthy. It speaks of the time after the first step, as that is what grows with the run: the start counts only
where nothing else does and it was longer than the training itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors.texts import duration_text
from ..events import Lines
from .findings import FINDINGS, Measured
from .recorded import RecordedRun
from .step_times import stretches_of

LEAST_GAIN = 1.1
LEAST_STEPS, LEAST_S = 10, 2.0  # measured: less than that says nothing
HEADLINES = {
    "input": "input-bound",
    "slow worker": "held up by a slow worker",
    "network": "network-bound",
    "small batches": "batches are small",
    "callbacks": "held up by callbacks",
    "checkpoints": "held up by checkpoints",
    "validation": "held up by validation",
    "start": "mostly its start",
    "healthy": "healthy",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Lines):
    """What limited a run.

    Attributes:
        cause: one of `HEADLINES`.
        evidence: what shows it.
        remedy: what to change; empty if it is healthy or unknown.
        gain: how many times as fast the run would be with the remedy; 1.0 for none.
        settings: the remedy as arguments, where it is some.
        gains: how many times as fast it would be without each cause that was looked at, more or less.
    """

    cause: str
    evidence: str
    remedy: str = ""
    gain: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)  # JSON
    gains: dict[str, float] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        found = f"{HEADLINES[self.cause]}: {self.evidence}"
        return f"{found}; {self.remedy} would bring about {self.gain:.1f} ×" if self.remedy else found


def verdict_of(run: RecordedRun) -> Verdict:
    """What limited a run, as far as its records tell."""
    measured = Measured(run=run, stretches=stretches_of(run))
    all_s, num_steps = measured.total_s(), sum(each.num_steps for each in measured.stretches)
    if num_steps < LEAST_STEPS or all_s < LEAST_S:
        measured_text = f"{num_steps:.0f} steps in {duration_text(all_s)} were measured after the first one"
        return Verdict(cause="unknown", evidence=f"{measured_text}, which is too short to tell")
    found = [find(measured) for find in FINDINGS]
    gains = {each.cause: round(all_s / each.without_s, 3) for each in found}
    largest = min(found, key=lambda each: each.without_s)
    first_s = run.record.get("start_s", {}).get("first_step", 0.0)
    if all_s >= LEAST_GAIN * largest.without_s:
        return Verdict(
            cause=largest.cause,
            evidence=largest.evidence,
            remedy=largest.change.remedy,
            gain=all_s / largest.change.seconds,
            settings=dict(largest.change.settings),
            gains=gains,
        )
    if first_s > all_s:
        return Verdict(
            cause="start",
            evidence=f"the first step was done after {duration_text(first_s)}, training took {duration_text(all_s)}",
            remedy="a trainer that stays open for several fits, which start once,",
            gain=(first_s + all_s) / all_s,
            gains=gains,
        )
    compute_s = measured.total_s(lambda each: each.seconds("compute"))
    return Verdict(
        cause="healthy",
        evidence=f"computing gradients is {compute_s / all_s:.0%} of the time, and no other cause costs more than 10 % "
        f"(the largest, {largest.cause}: {max(0.0, 1 - largest.without_s / all_s):.0%})",
        gains=gains,
    )
