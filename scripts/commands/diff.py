"""``heliostat diff``: how two runs differ: how they were made, what came out, and which was faster, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.trainer.driver.run_folder import read_run
from heliostat.trainer.errors.texts import duration_text, number_text, short_text
from heliostat.trainer.events import EpochRecord
from heliostat.trainer.report.curves import is_number
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.summary import Summary, shares_of, summary_of

_SECTIONS = ("plan", "epochs", "identity", "data", "command", "versions", "platform", "model", "code", "fit_code")
_EQUALLY_FAST, _NOTEWORTHY = 0.02, 0.1
_TWICE = ("plan.for_equal_bits.", "identity.data.", "command.fit")  # what others say as well, or nobody asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Where two curves part: the first epoch, counted from 1, in which a metric differs; and its two values."""

    epoch: int
    metric: str
    values: tuple[Any, Any]  # whatever metrics give


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between two runs.

    Attributes:
        settings: by name of what ``run.json`` says of how each was made, its two values; None where there is none.
        num_epochs: so many epochs both have done.
        first_bit: where the metrics first differ at all; None if they are equal.
        first_beyond: where they first differ by more than the tolerance; None likewise.
        same_weights: whether both ended with the same weights; None where that is not recorded.
        samples_per_s: rows per second of both; None where that is not recorded.
        step_ms: milliseconds of a step of both, by what they went to, the mean over workers.
        verdicts: what limited each.
    """

    settings: dict[str, tuple[Any, Any]]  # JSON
    num_epochs: int
    first_bit: Parting | None
    first_beyond: Parting | None
    same_weights: bool | None
    samples_per_s: tuple[float | None, float | None]
    step_ms: dict[str, tuple[float, float]]
    verdicts: tuple[str, str]


def diff(one: Path, other: Path, *, tolerance: float) -> Difference:
    """Compare the runs in two folders.

    Args:
        one: a run folder.
        other: another one.
        tolerance: relative; metrics that differ by no more count as equal in `Difference.first_beyond`.

    Raises:
        TrainerError: one of them holds no run, or cannot be read.
    """
    return difference(read_run(one), read_run(other), tolerance)


def difference(one: RecordedRun, other: RecordedRun, tolerance: float) -> Difference:
    """What differs between two recorded runs, with a relative tolerance."""
    pair = summary_of(one), summary_of(other)
    weights = [each.sha256.get("weights") for each in pair]
    epochs = list(zip(one.epochs, other.epochs, strict=False))
    return Difference(
        settings=_settings(one.record, other.record),
        num_epochs=len(epochs),
        first_bit=_parting(epochs, 0.0),
        first_beyond=_parting(epochs, tolerance),
        same_weights=None if None in weights else weights[0] == weights[1],
        samples_per_s=(pair[0].samples_per_s, pair[1].samples_per_s),
        step_ms=_step_ms(*pair),
        verdicts=(pair[0].sentence, pair[1].sentence),
    )


def lines_of(found: Difference, names: tuple[str, str], tolerance: float) -> Iterator[str]:
    """The same for a terminal.

    Args:
        found: what differs.
        names: of the two runs.
        tolerance: that was asked for.
    """
    yield f"A: {names[0]}\nB: {names[1]}"
    yield "" if found.settings else "\nmade alike: nothing differs in what run.json says of it"
    for name, (one, other) in found.settings.items():
        yield f"{short_text(name)}: {_shown(one)} -> {_shown(other)}"
    yield ""
    yield from _metric_lines(found, tolerance)
    yield ""
    yield from _speed_lines(found)
    yield f"verdict on A: {found.verdicts[0]}\nverdict on B: {found.verdicts[1]}"


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    made = [_flat({name: record[name] for name in _SECTIONS if name in record}) for record in (one, other)]
    names = dict.fromkeys(name for each in made for name in each)
    both = {name: (made[0].get(name), made[1].get(name)) for name in names}
    return {name: values for name, values in both.items() if values[0] != values[1] and not name.startswith(_TWICE)}


def _shown(value: object) -> str:
    return "–" if value is None else short_text(value)


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON objects in each other as one, whose names are paths ("plan.workers")."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        inner = _flat(each) if isinstance(each, Mapping) else None
        found |= {name: each} if inner is None else {f"{name}.{path}": leaf for path, leaf in inner.items()}
    return found


def _parting(epochs: list[tuple[EpochRecord, EpochRecord]], tolerance: float) -> Parting | None:
    for one, other in epochs:
        for name in dict.fromkeys([*one.logs, *other.logs]):
            values = one.logs.get(name), other.logs.get(name)
            if _differ(*values, tolerance):
                return Parting(epoch=one.epoch + 1, metric=name, values=values)
    return None


def _differ(one: object, other: object, tolerance: float) -> bool:
    """Whether two values of a metric differ: to the bit, or as numbers by more than the tolerance."""
    if repr(one) == repr(other):  # NaN is NaN
        return False
    if not tolerance or not is_number(one) or not is_number(other):
        return True
    return not abs(one - other) <= tolerance * max(abs(one), abs(other))


def _step_ms(one: Summary, other: Summary) -> dict[str, tuple[float, float]]:
    """Nothing unless both say how long a step took."""
    if one.step_s is None or other.step_s is None:
        return {}
    shares = shares_of(one.seconds_by_part), shares_of(other.seconds_by_part)
    return {name: (1000 * shares[0][name] * one.step_s, 1000 * shares[1][name] * other.step_s) for name in shares[0]}


def _metric_lines(found: Difference, tolerance: float) -> Iterator[str]:
    if not found.num_epochs:
        yield "no epoch that both have done: no metrics to compare"
    elif found.first_bit is None:
        yield f"metrics: the same in all {found.num_epochs} epochs that both have done, to the bit"
    else:
        yield f"metrics: differ from {_place(found.first_bit)}"
        beyond = found.first_beyond
        where = f"from {_place(beyond)}" if beyond else f"in none of the {found.num_epochs} epochs that both have done"
        yield f"by more than {tolerance:g} of themselves: {where}"
    if found.same_weights is not None:
        yield f"weights at the end: {'the same, to the bit' if found.same_weights else 'different'}"


def _place(parting: Parting) -> str:
    one, other = ("nothing" if value is None else number_text(value) for value in parting.values)
    values = f"{one} -> {other}" if one != other else "in bits that are not shown here"
    return f"epoch {parting.epoch} on: {short_text(parting.metric)} {values}"


def _speed_lines(found: Difference) -> Iterator[str]:
    one, other = found.samples_per_s
    if not one or not other:
        yield "speed: not recorded of both"
        return
    gain = other / one
    faster = "B" if gain > 1 else "A"
    said = f"{faster} is {max(gain, 1 / gain):.2f} times as fast" if abs(gain - 1) > _EQUALLY_FAST else "equally fast"
    yield f"speed: {one:,.0f} -> {other:,.0f} samples/s: {said}"
    whole = sum(before for before, _ in found.step_ms.values())
    changes = sorted(found.step_ms.items(), key=lambda part: -abs(part[1][1] - part[1][0]))
    for name, (before, after) in changes:
        if abs(after - before) > _NOTEWORTHY * whole / 2:
            yield f"  {name}: {duration_text(before / 1000)} -> {duration_text(after / 1000)} of a step"
