"""What users are told of what happens in a run, in words: one line for an event, or none."""

from __future__ import annotations

from collections.abc import Sequence

from .. import jobs
from ..errors import NonfiniteGradientError
from ..errors.texts import listed
from ..events import (
    BalanceMeasured,
    CheckpointNotMade,
    Event,
    FilesLeftOut,
    GradientNotFinite,
    GroupFormed,
    LogLeftOut,
    ProbeSlow,
    Rebalanced,
    SetTooLate,
    StepProbed,
    ValidationNotFinite,
    WorkerLate,
    WorkerLost,
    WorkerNotStarted,
)
from ..samples import Sample
from .words import count, shortened

_MAX_REASON = 160  # letters
_MAX_DEALT = 8  # workers whose microbatches are told one by one


class EventLines:
    """Says events in lines; and of a loss, by the sample that follows, how long the others needed to go on.

    Args:
        num_steps: of an epoch.
    """

    def __init__(self, num_steps: int = 0) -> None:
        self._num_steps = num_steps
        self._regrouped_s: dict[int, float] = {}  # of each worker, as its last sample tells
        self._is_lost = False  # somebody, and nothing was said of those who go on

    def line_of(self, event: Event) -> str:
        """What users are told of an event; empty for nothing."""
        match event:
            case WorkerLost(left=left):
                self._is_lost = left > 0
            case GroupFormed(restarted=True):
                self._is_lost = False
        return line_of(event, self._num_steps)

    def line_of_sample(self, sample: Sample) -> str:
        """That workers went on after a loss, once they tell how long they took part in the change; else nothing."""
        now_s = {each.worker: each.seconds.get("regroup_s", 0.0) for each in sample.workers}
        known_s = self._regrouped_s
        took_s = [seconds - known_s[worker] for worker, seconds in now_s.items() if worker in known_s]
        self._regrouped_s = now_s
        if not self._is_lost or max(took_s, default=0.0) <= 0:
            return ""
        self._is_lost = False
        return f"going on after {max(took_s):.2f} s with {count(len(now_s), 'worker')}"


def line_of(event: Event, num_steps: int) -> str:
    """What users are told of an event; empty for nothing. `num_steps` is the number of steps of an epoch."""
    match event:
        case WorkerLost(worker=worker, host=host, step=step, reason=reason, left=left):
            at = "" if step is None else f" at step {step}"
            return f"lost worker {worker} on {host}{at}: {_in_short(reason)}; {left} left"
        case GroupFormed(generation=generation, joined=joined, hosts=hosts) if generation > 0 and joined:
            who = ", ".join(f"worker {worker} on {hosts.get(worker, 'an unknown host')}" for worker in joined)
            return f"joined: {who}; {count(len(event.workers), 'worker')}"
        case WorkerNotStarted(worker=worker, host=host, reason=reason, again_s=again_s):
            return f"worker {worker} on {host} could not start: {reason}; the next one is started in {again_s:g} s"
        case WorkerLate(worker=worker, host=host, step=step, activity=activity, activity_s=activity_s):
            where = "" if step is None else f" of step {step}"
            at = f"at '{activity}'{where} for {activity_s:.1f} s"
            return f"waiting for worker {worker} on {host}: {at}\n{event.stacks}".rstrip()
        case Rebalanced():
            return _rebalanced(event)
        case BalanceMeasured(before_s=before_s, expected_s=expected_s, step_s=step_s):
            if step_s is None:
                return "balance: what it brought was not measured, for workers joined or were lost before"
            had, expected = 1 - step_s / before_s, 1 - expected_s / before_s
            took = f"{had:.0%} less" if had >= 0 else f"{-had:.0%} more"
            return f"balance: steps take {took} time than before ({expected:.0%} less was expected)"
        case CheckpointNotMade(reason=reason, is_final=True):
            return (
                f"warning: the state in which the run ended is not kept: {reason} The run's result does not "
                "need it; evaluate, predict and another fit of this trainer do, once its workers are gone."
            )
        case CheckpointNotMade(name=name, reason=reason):
            return f"warning: no checkpoint {name}: {reason} Training goes on; it is tried again when due."
        case LogLeftOut(key=key, callback=callback, what=what):
            return (
                f"warning: the callback {callback} puts {what} into the logs of an epoch, under {key!r}: history "
                "leaves it out (it keeps numbers, text, arrays, and lists and dicts of these)."
            )
        case ProbeSlow(line=line):
            return line
        case StepProbed(notes=notes):
            return "\n".join(notes)
        case SetTooLate(names=names):
            return (
                f"callbacks set {', '.join(names[:3])}{' and others' if names[3:] else ''} after the first step: a "
                "traced step does not see that, in Keras neither. Use a keras.Variable of the model, with assign()."
            )
        case FilesLeftOut(host=host, what=what, reason=reason):
            return f"warning: not brought from {host} to the run folder: {what}: {reason}"
        case GradientNotFinite(worker=worker, host=host, skipped=True):
            error = NonfiniteGradientError(
                epoch=event.epoch,
                step=event.step,
                num_steps=num_steps,
                microbatch=event.microbatch,
                variables=event.variables,
            )
            return f"step left out (worker {worker} on {host}): {error.account}"
        case ValidationNotFinite(epoch=epoch, dataset=dataset, num_rows=num_rows, first_rows=first_rows):
            return f"epoch {epoch + 1}: {nonfinite_line(dataset, num_rows, first_rows)}"
    return ""


def _in_short(reason: str) -> str:
    """A reason as it is, or the first sentence of a long one; ``events.jsonl`` has all of it."""
    return reason if len(reason) <= _MAX_REASON else shortened(reason.partition(". ")[0], _MAX_REASON)


def _rebalanced(event: Rebalanced) -> str:
    """Who has how many microbatches now; of many workers only those that have others than before."""
    before, after, hosts = event.before, event.after, event.hosts
    gain = f"steps should take {1 - event.expected_s / event.step_s:.0%} less time"
    if len(after) <= _MAX_DEALT:
        dealt = ("·".join(str(each.get(worker, 0)) for worker in after) for each in (before, after))
        who = ", ".join(f"worker {worker} on {hosts[worker]}" for worker in after)
        return f"balance: microbatches {' -> '.join(dealt)} of {who}; {gain}"
    moved = [worker for worker in after if after[worker] != before.get(worker, 0)]
    shown = [f"worker {worker} on {hosts[worker]} {before.get(worker, 0)} -> {after[worker]}" for worker in moved]
    return f"balance: microbatches of {listed(shown, _MAX_DEALT)}; {gain}"


def nonfinite_line(dataset: str, num_rows: int, first_rows: Sequence[int]) -> str:
    """What is said of rows of a pass whose metrics are not finite.

    Args:
        dataset: its name.
        num_rows: how many rows.
        first_rows: the ids of the first of them.
    """
    shown = ", ".join(map(str, first_rows))
    rows = f"row {shown}" if num_rows == 1 else f"rows {shown}{' ...' if num_rows > len(first_rows) else ''}"
    return f"warning: metrics of {num_rows:,} row(s) of {dataset!r} are NaN or infinite: {rows}"


def saving_line(saving: jobs.StillSaving, worker: int, host: str) -> str:
    """What is said of a worker that waits for its storage; it is told again and again."""
    return (
        f"worker {worker} on {host} has waited {saving.seconds:.0f} s for its state to be written to "
        f"{saving.location}. There is no limit: that state is only in memory. Ctrl-C twice gives it up; the same "
        "command then goes on from the last checkpoint"
    )
