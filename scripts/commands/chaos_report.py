"""What ``heliostat chaos`` finds: fits of two runs of one script, compared, and what every kill has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.trainer.checkpoints.values import to_line
from heliostat.trainer.driver.run_folder import read_epochs, read_events, read_record
from heliostat.trainer.driver.run_paths import run_folders
from heliostat.trainer.events import Event, GroupFormed, WorkerKilled, WorkerLost
from rich.table import Table

from ..console import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One fit, as its run folder tells.

    Attributes:
        number: which fit of the script, counted from 1.
        state: as in ``run.json``.
        sha256: hashes of weights and optimizer state; empty unless it is finished.
        epochs: the metrics of every epoch.
        events: its events, kills among them.
    """

    number: int
    state: str
    sha256: Mapping[str, str]
    epochs: Sequence[Mapping[str, Any]]
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill that the run has noticed.

    Attributes:
        fit: which fit of the script.
        worker: number of the worker; `host` is where it ran.
        step: the step of the run that it was at, None if unknown.
        stall_s: seconds from the kill until a group worked again; None if the run ended without.
        joined_s: seconds from the kill until the next new worker had joined; None if none came.
        restarted: whether nobody was left who held the state, so that the run went on from its last checkpoint.
    """

    fit: int
    worker: int
    host: str
    step: int | None
    stall_s: float | None
    joined_s: float | None
    restarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Both runs.

    Attributes:
        plain: the fits of the undisturbed run.
        disturbed: those of the disturbed one.
        kills: that the run has noticed.
        failure: how the disturbed run failed; empty if it did not.
    """

    plain: Sequence[Fit]
    disturbed: Sequence[Fit]
    kills: Sequence[Kill]
    failure: str = ""

    @property
    def differences(self) -> dict[int, list[str]]:
        """What differs, by number of the fit; fits without differences are left out."""
        one, other = ({fit.number: fit for fit in fits} for fits in (self.plain, self.disturbed))
        found = {number: differences(one.get(number), other.get(number)) for number in sorted({*one, *other})}
        return {number: lines for number, lines in found.items() if lines}

    @property
    def proved(self) -> bool:
        """Whether workers were killed, and nothing has changed."""
        return bool(self.kills) and not self.failure and not self.differences


def read_fits(path: Path) -> list[Fit]:
    """The fits of one run of a script, the first in `path`, the others beside it.

    Raises:
        TrainerError: a file in a run folder is damaged.
    """
    return [
        Fit(
            number=number,
            state=record["state"],
            sha256=record.get("sha256", {}),
            epochs=[epoch.logs for epoch in read_epochs(folder)],
            events=read_events(folder),
        )
        for number, folder in enumerate(run_folders(path), start=1)
        for record in [read_record(folder)]
    ]


def kills_of(fit: Fit) -> list[Kill]:
    """The kills of a fit that it has noticed; one that came after its last step is none."""
    found = []
    for kill in fit.events:
        if not isinstance(kill, WorkerKilled):
            continue
        worker, killed_s = kill.worker, kill.time
        losses = (each for each in fit.events if isinstance(each, WorkerLost) and each.worker == worker)
        lost = next(losses, None)
        if lost is None:
            continue
        later = fit.events[fit.events.index(lost) :]
        formed = [each for each in later if isinstance(each, GroupFormed)]
        joined = [each for each in formed if each.joined and not each.restarted]
        found.append(
            Kill(
                fit=fit.number,
                worker=worker,
                host=kill.host,
                step=lost.step,
                stall_s=formed[0].time - killed_s if formed else None,
                joined_s=joined[0].time - killed_s if joined else None,
                restarted=bool(formed) and formed[0].restarted,
            )
        )
    return found


def differences(one: Fit | None, other: Fit | None) -> list[str]:
    """What differs between an undisturbed fit and the disturbed one; nothing if they are the same, bit for bit."""
    if one is None or other is None:
        return [f"it was made in the {'disturbed' if one is None else 'undisturbed'} run only"]
    found = []
    if one.state != other.state:
        found.append(f"state: {one.state}, disturbed {other.state}")
    for name in {**one.sha256, **other.sha256}:
        before, after = one.sha256.get(name, "none"), other.sha256.get(name, "none")
        if before != after:
            found.append(f"{name}: sha256 {before[:8]}, disturbed {after[:8]}")
    if len(one.epochs) != len(other.epochs):
        found.append(f"epochs: {len(one.epochs)}, disturbed {len(other.epochs)}")
    found += [
        f"epoch {number}, {name}: {before.get(name)}, disturbed {after.get(name)}"
        for number, (before, after) in enumerate(zip(one.epochs, other.epochs, strict=False), start=1)
        for name in {**before, **after}
        if _bits(before.get(name)) != _bits(after.get(name))
    ]
    return found


def difference_lines(outcome: Outcome) -> list[str]:
    """What differs, a line each."""
    return [f"fit {number}: {line}" for number, lines in outcome.differences.items() for line in lines]


def verdict(outcome: Outcome) -> str:
    """What was proved, in a sentence."""
    num = len(outcome.kills)
    kills = f"{num} kill{'' if num == 1 else 's'}"
    if outcome.failure or outcome.differences:
        cause = outcome.failure or "the result is not the same"
        return (
            f"NOT THE SAME after {kills}: {cause}. Run the script twice without chaos first: if those results differ, "
            "it depends on something besides its seed (time, random numbers of its own); if not, this is a defect of "
            "Heliostat."
        )
    if not num:
        return "No worker was killed, so nothing was proved: raise the run's length or lower --kill-every."
    return f"{kills}, and the same weights, optimizer state and history, bit for bit."


def kills_table(kills: Sequence[Kill]) -> Table:
    """The kills and what they cost."""
    rows = (
        (
            *(kill.fit, kill.worker, kill.host, "" if kill.step is None else kill.step),
            *(_seconds(kill.stall_s), _seconds(kill.joined_s)),
            "all lost: on from a checkpoint" if kill.restarted else "",
        )
        for kill in kills
    )
    return table([">fit", ">worker", "+host", ">step", ">stall", ">replaced after", ""], rows, title="kills")


def fits_table(outcome: Outcome) -> Table:
    """The fits of both runs side by side."""
    by_number = {fit.number: fit for fit in outcome.disturbed}
    rows = []
    for fit in outcome.plain:
        other = by_number.get(fit.number)
        hashes = [_hash(each, name) for each in (fit, other) for name in ("weights", "optimizer")]
        same_history = other is not None and _bits(fit.epochs) == _bits(other.epochs)
        result = "NOT THE SAME" if fit.number in outcome.differences else "same"
        rows.append((fit.number, len(fit.epochs), *hashes, "same" if same_history else "differs", result))
    hashes = ["weights", "optimizer", "disturbed weights", "disturbed optimizer"]
    return table([">fit", ">epochs", *hashes, "history", ""], rows, title="fits")


def _hash(fit: Fit | None, name: str) -> str:
    return "" if fit is None else fit.sha256.get(name, "")[:8]


def _bits(value: object) -> str:
    """A value of a run folder as text that is equal only for equal numbers; NaN is equal to itself."""
    return to_line(value)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
