"""``heliostat chaos``: runs a script undisturbed, then with its workers killed, and compares what comes out."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from heliostat.trainer.driver.run_paths import new_run_path, placed
from heliostat.trainer.environment import Command, KillSchedule
from heliostat.trainer.errors import RunPausedError
from rich.console import Console

from ..errors import ScriptError
from .chaos_report import (
    Outcome,
    difference_lines,
    fits_table,
    kills_of,
    kills_table,
    read_fits,
    verdict,
)
from .run import run_in_child

UNDISTURBED, DISTURBED = "undisturbed", "disturbed"
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def interval_s(text: str) -> float:
    """Seconds of an interval such as "30s", "500ms", "2m" or "1h"; raises ScriptError for anything else."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)\s*", text)
    if found is None or float(found[1]) == 0:
        raise ScriptError(f"{text!r} is no interval: give a number and a unit, such as 30s, 500ms or 2m.")
    return float(found[1]) * _UNITS_S[found[2]]


def chaos(
    script: Path, arguments: Sequence[str], kills: KillSchedule, console: Console, *, run_dir: Path | None = None
) -> bool:
    """Run a script twice, print what was killed and what differs; returns whether kills changed nothing.

    Args:
        script: the script.
        arguments: those of the script.
        kills: when a worker is killed, and the seed that chooses which.
        console: where to print.
        run_dir: where all fits of both runs go; None makes ``runs/chaos-<time>``.

    Raises:
        ScriptError: the folder is taken, or the undisturbed run failed or trained nothing.
    """
    folder = placed(run_dir or new_run_path("chaos")).absolute()
    for name in (UNDISTURBED, DISTURBED):
        if (folder / name).exists():
            raise ScriptError(f"{str(folder / name)!r} exists already. Give another --run-dir, or none.")
    command = shlex.join([str(script), *arguments])
    console.print(f"1 of 2: {command}, undisturbed", markup=False, soft_wrap=True)
    never = replace(kills, every_s=math.inf)
    status = run_in_child(Command(run_dir=folder / UNDISTURBED, kills=never), script, arguments)
    if status:
        raise ScriptError(f"The undisturbed run {_ended(status)}, so there is nothing to compare with.")
    plain = read_fits(folder / UNDISTURBED)
    if not plain:
        raise ScriptError(f"{script} ended without a call of Trainer.fit, so there is nothing to disturb.")
    every = f"a worker killed every {kills.every_s:g} s (seed {kills.seed})"
    console.print(f"\n2 of 2: {command}, with {every}", markup=False, soft_wrap=True)
    status = run_in_child(Command(run_dir=folder / DISTURBED, kills=kills), script, arguments)
    disturbed = read_fits(folder / DISTURBED)
    outcome = Outcome(
        plain=plain,
        disturbed=disturbed,
        kills=[kill for fit in disturbed for kill in kills_of(fit)],
        failure=f"the disturbed run {_ended(status)}" if status else "",
    )
    _show(outcome, console)
    console.print(f"run folders: {folder}", markup=False, soft_wrap=True)
    return outcome.proved


def _show(outcome: Outcome, console: Console) -> None:
    console.print()
    if outcome.kills:
        console.print(kills_table(outcome.kills))
    console.print(fits_table(outcome))
    for line in [*difference_lines(outcome), verdict(outcome)]:
        console.print(line, markup=False, soft_wrap=True)


def _ended(status: int) -> str:
    if status == RunPausedError.exit_status:
        return "was paused (run it without max_time_s, and send it no signals)"
    return f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
