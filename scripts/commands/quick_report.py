"""What ``heliostat run --quick`` has tried, part by part: a function of what run folders tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.trainer.driver.quick import PassDone
from heliostat.trainer.engine.times import STEP_PARTS
from heliostat.trainer.events import CheckpointCommitted, CheckpointNotMade, EpochRecord, Event, FirstStepDone, Resumed
from heliostat.trainer.samples import Sample
from rich.table import Table

from ..console import table

NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of what a script does.

    Attributes:
        of: the call that it belongs to, such as "fit 1".
        name: of the part.
        seconds: how long it took; None if that is not known, or it was not done.
        said: more of it: that it went well, why it did not, or why there is none.
        failed: whether it was to be done, and was not.
    """

    of: str
    name: str
    seconds: float | None
    said: str
    failed: bool = False

    @property
    def is_to_blame(self) -> bool:
        """Whether it failed by itself: others were not reached then."""
        return self.failed and self.said != NOT_REACHED


@dataclass(frozen=True, slots=True, kw_only=True)
class FitDone:
    """What the run folder of a fit tells.

    Attributes:
        number: which fit of the script, counted from 1.
        record: ``run.json``.
        epochs: those that were done.
        events: all else that happened.
        samples: where the workers' time went.
        model_bytes: size of the model's file; 0 if there is none.
    """

    number: int
    record: Mapping[str, Any]  # as JSON has it
    epochs: Sequence[EpochRecord]
    events: Sequence[Event]
    samples: Sequence[Sample] = ()
    model_bytes: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.record.get("state") == "finished")

    @property
    def first_steps(self) -> list[float]:
        """Seconds until the first step, and from the checkpoint to the next one, as far as it came to them."""
        places = [place for place, event in enumerate(self.events) if isinstance(event, Resumed)]
        before, behind = (self.events[: places[0]], self.events[places[0] :]) if places else (self.events, [])
        # Each worker tells its first step.
        done = ([each.after_s for each in part if isinstance(each, FirstStepDone)] for part in (before, behind))
        return [each[0] for each in done if each]

    def seconds_in(self, parts: Sequence[str]) -> float:
        """Seconds in these parts, of the worker that took longest, over both epochs, each of which counts anew."""
        last = {sample.epoch: sample for sample in self.samples}
        by_epoch = (
            [sum(worker.seconds.get(f"{part}_s", 0.0) for part in parts) for worker in sample.workers]
            for sample in last.values()
        )
        return sum(max(each, default=0.0) for each in by_epoch)


def parts_of(fits: Sequence[FitDone], passes: Sequence[PassDone]) -> list[Part]:
    """All that was tried, fits before passes, in their order."""
    found = [part for fit in fits for part in _parts_of_fit(fit)]
    for number, done in enumerate(passes, start=1):
        failed = bool(done.error)
        found.append(
            Part(
                of=f"pass {number}",
                name=done.what,
                seconds=done.seconds,
                said=_first_line(done.error or "done"),
                failed=failed,
            )
        )
    return found


def parts_table(parts: Sequence[Part]) -> Table:
    """The parts, a row each."""
    rows = (
        (
            part.of,
            part.name,
            "" if part.seconds is None else f"{part.seconds:.2f} s",
            f"FAILED: {part.said}" if part.is_to_blame else part.said,
        )
        for part in parts
    )
    return table(["", "part", ">took", "+"], rows)


def verdict(parts: Sequence[Part], status: int) -> str:
    """All of it in a sentence.

    Args:
        parts: what was tried.
        status: exit status of the script.
    """
    failed = [f"{part.name} of {part.of}" for part in parts if part.is_to_blame]
    if failed:
        return f"FAILED: {', '.join(failed)}; what is said of it stands above."
    if status:
        return f"FAILED: the script ended with status {status}, behind what is above."
    return "Everything went well, on a few steps."


def _parts_of_fit(fit: FitDone) -> Iterator[Part]:
    title, error = f"fit {fit.number}", _first_line(fit.record.get("error") or "it did not come to its end")
    begun = fit.first_steps
    is_blamed = False  # the first part that is missing has the error; those behind it were not reached

    def part(name: str, is_done: bool, seconds: float | None, said: str) -> Part:
        nonlocal is_blamed
        if is_done:
            return Part(of=title, name=name, seconds=seconds, said=said)
        why, is_blamed = (NOT_REACHED if is_blamed else error), True
        return Part(of=title, name=name, seconds=None, said=why, failed=True)

    yield part("start", bool(begun), begun[0] if begun else None, "workers, model, first step")
    num = len(fit.epochs)
    yield part(
        "train",
        bool(num),
        fit.seconds_in(("first_step", *STEP_PARTS)),
        f"{num} epoch{'' if num == 1 else 's'} of a few steps",
    )
    callbacks = fit.seconds_in(("hooks",))
    if callbacks:
        yield part("callbacks", bool(num), callbacks, "their hooks")
    if "valid" in fit.record.get("data", {}):
        validated = any(name.startswith("val_") for epoch in fit.epochs for name in epoch.logs)
        yield part("validate", validated, fit.seconds_in(("validate",)), "a few steps in each epoch")
    yield from _of_checkpoints(fit, part)
    size = f"model.keras, {fit.model_bytes / 1e6:.1f} MB" if fit.model_bytes else "the model"
    yield part("save", fit.is_finished, None, size)


def _of_checkpoints(fit: FitDone, part_of: Callable[[str, bool, float | None, str], Part]) -> Iterator[Part]:
    """Checkpoints, and going on from one.

    Args:
        fit: of which.
        part_of: makes a part from its name, whether it was done, its seconds, and what is said then.
    """
    first_steps = fit.first_steps
    made = [event for event in fit.events if isinstance(event, CheckpointCommitted)]
    not_made = [event for event in fit.events if isinstance(event, CheckpointNotMade)]
    resumed = any(isinstance(event, Resumed) for event in fit.events)
    if not_made:
        yield Part(of=f"fit {fit.number}", name="checkpoint", seconds=None, said=not_made[0].reason, failed=True)
    elif made or not fit.is_finished:
        took = sum(event.seconds + event.write_s + event.commit_s for event in made)
        yield part_of("checkpoint", bool(made), took, f"{len(made)} written and committed")
    else:
        yield Part(of=f"fit {fit.number}", name="checkpoint", seconds=None, said="the script makes none: no resuming")
        return
    if fit.record.get("stopped_early") and not resumed:
        yield Part(of=f"fit {fit.number}", name="resume", seconds=None, said="callbacks stopped the run before")
    else:
        went_on = resumed and len(first_steps) > 1
        yield part_of("resume", went_on, first_steps[1] if went_on else None, "from the checkpoint to its next step")


def _first_line(text: object) -> str:
    return str(text).partition("\n")[0]
