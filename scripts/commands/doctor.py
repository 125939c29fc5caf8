"""``heliostat doctor``: a line for each finding as it is made, or all of them as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..commandline import as_json, console

if TYPE_CHECKING:
    from heliostat.trainer.doctor.examination import Report
    from heliostat.trainer.doctor.finding import Finding

    from ..console import SafeConsole

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(address: str | None, *, json_wanted: bool) -> bool:
    """Examine a place, and say so; whether nothing failed.

    Args:
        address: as a trainer takes it.
        json_wanted: print one object at the end; what is being done is said on standard error alone.
    """
    try:
        from heliostat.trainer.environment import quiet_tensorflow

        quiet_tensorflow()
        from heliostat.trainer.doctor.examination import examine
    except ModuleNotFoundError as error:
        return _not_loaded(error, json_wanted=json_wanted)
    screen = console()
    tell: Callable[[Finding], None] = (lambda finding: None) if json_wanted else (lambda each: _show(each, screen))
    report = examine(address, tell, lambda line: click.echo(f"      {line}", err=True))
    click.echo(as_json(as_object(report)) if json_wanted else report.summary)
    return report.is_well


def as_object(report: Report) -> Mapping[str, Any]:
    """What was found, for ``--json``."""
    return {
        "is_well": report.is_well,
        "findings": [asdict(each) for each in report.findings],
        "machines": [asdict(each) for each in report.nodes],
        "links": [asdict(each) for each in report.links],
    }


def _not_loaded(error: ModuleNotFoundError, *, json_wanted: bool) -> bool:
    """Say that a package is missing without which nothing can be looked at; what says other things needs it, too."""
    what, remedy = f"{error.name} is not installed ({sys.executable})", f"pip install {error.name}"
    finding = {"check": "packages", "state": "fail", "what": what, "remedy": remedy, "hosts": []}
    found = {"is_well": False, "findings": [finding], "machines": [], "links": []}
    click.echo(json.dumps(found) if json_wanted else f"fail  packages    {what}. {remedy}")
    return False


def _show(finding: Finding, screen: SafeConsole) -> None:
    """A finding as a line, its first word in a colour."""
    state, _, rest = finding.line.partition(" ")
    screen.print(state, style=_STYLES[finding.state], end=" ")
    screen.print(rest, soft_wrap=True, markup=False)
