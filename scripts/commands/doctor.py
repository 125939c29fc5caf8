"""``heliostat doctor``: a line for each finding as it is made, or all of them as one JSON object.

A cluster that is reached by its job server alone is examined from within: a job does there what the command does here,
with this machine's Heliostat, and tells its findings as lines of its log, and all of them at its end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from ..commandline import as_json, console

if TYPE_CHECKING:
    from heliostat.cluster.head.api import Head
    from heliostat.trainer.doctor.examination import Report
    from heliostat.trainer.doctor.finding import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_WIDTH = 4  # of the word that a line begins with
Object = dict[str, Any]  # a report as JSON has it
Tell = Callable[[str], None]


def doctor(address: str | None, *, json_wanted: bool) -> bool:
    """Examine a place, and say so; whether nothing failed.

    Args:
        address: as a trainer takes it, or ``http://`` and the place of a cluster's job server.
        json_wanted: print one object at the end; what is being done is said on standard error alone.
    """
    try:
        found = _examined(address, (lambda line: None) if json_wanted else _show)
    except ModuleNotFoundError as error:  # without which nothing can be looked at, nor shown as usual
        what, remedy = f"{error.name} is not installed ({sys.executable})", f"pip install {error.name}"
        click.echo("" if json_wanted else f"fail  packages     {what}. {remedy}\n", nl=False)
        found = _object([{"check": "packages", "state": "fail", "what": what, "remedy": remedy, "hosts": []}])
    states = [each["state"] for each in found["findings"]]
    counts = (f"{states.count(state)} {state}" for state in ("fail", "warn", "ok"))
    click.echo(json.dumps(found) if json_wanted else ", ".join(counts))
    return bool(found["is_well"])


def examined_in_job(tell: Tell) -> Object:
    """What a job finds of its cluster; `tell` gets a line for each finding, and for what is done."""
    from heliostat.trainer.doctor.examination import examine

    return as_object(examine(None, lambda each: tell(each.line), tell))


def as_object(report: Report) -> Object:
    """What was found, for ``--json``."""
    found = _object([asdict(each) for each in report.findings])
    found |= {"machines": [asdict(each) for each in report.nodes], "links": [asdict(each) for each in report.links]}
    found["driver"] = asdict(report.driver)
    plain: Object = json.loads(as_json(found))
    return plain


def _object(findings: list[Object]) -> Object:
    is_well = all(each["state"] != "fail" for each in findings)
    return {"is_well": is_well, "findings": findings, "machines": [], "links": []}


def _examined(address: str | None, tell: Tell) -> Object:
    from heliostat.trainer.environment import named_address, quiet_tensorflow

    quiet_tensorflow()
    from heliostat.trainer.doctor.examination import examine

    place = address or named_address() or ""
    if place.startswith(("http://", "https://")):
        return _elsewhere(place, tell)
    return as_object(examine(address, lambda each: tell(each.line), _say))


def _elsewhere(address: str, tell: Tell) -> Object:
    """What a job finds of the cluster at an address, after what is found of the way there."""
    from heliostat.cluster.errors import ClusterError
    from heliostat.cluster.head.api import Head
    from heliostat.trainer.doctor.finding import fail, ok

    try:
        head = Head(address)
        findings = [ok("job server", f"Ray {head.check()} answers at {head.address}, and takes this machine's token")]
        tell(findings[0].line)
        found = _by_a_job(head, tell)
    except ClusterError as error:
        findings, found = [], fail("job server", str(error), "")
    if not isinstance(found, dict):
        tell(found.line)
        return _object([asdict(each) for each in (*findings, found)])
    calls = of_calls(found)
    tell(calls.line)
    return found | {"findings": [*(asdict(each) for each in findings), *found["findings"], asdict(calls)]}


def of_calls(found: Object) -> Finding:
    """Whether this machine has what a trainer needs here that computes there, by what a job has found there."""
    import msgspec
    from heliostat.cluster.preflight import Facts, look
    from heliostat.trainer.doctor.finding import ok, warn
    from heliostat.trainer.preflight import wanted_for
    from heliostat.trainer.remote.called import differences

    here = look(wanted_for((), None))
    versions = {name: version for name, version in here.versions.items() if name != "ray"}  # is not used for that
    differing = differences(replace(here, versions=versions), msgspec.convert(found["driver"], Facts))
    if not differing:
        return ok("calls", f"Trainer(address=...) can be called from here: {', '.join(versions)} are the same there")
    told = ", ".join(f"{name} is {there} there and {mine} here" for name, (there, mine) in differing.items())
    remedy = "Install here what is there; heliostat submit needs none of it"
    return warn("calls", f"Trainer(address=...) will refuse to be called from here: {told}", remedy, here.host)


def _by_a_job(head: Head, tell: Tell) -> Object | Finding:
    """What a job finds, or what became of it; raises ClusterError."""
    from heliostat.trainer.doctor.finding import fail
    from heliostat.trainer.driver.display import Display
    from heliostat.trainer.remote.follow import follow
    from heliostat.trainer.remote.handle import Handle, new_submission_id
    from heliostat.trainer.remote.job_wanted import MODULE, JobWanted
    from heliostat.trainer.remote.submitting import Shipment, submit_shipment

    class Lines(Display):
        """Shows findings as findings, and all else aside."""

        def say(self, text: str) -> None:
            """Show a line."""
            (tell if text[:_WIDTH].strip() in _STYLES else _say)(text)

    name = new_submission_id("doctor")
    job = Handle(address=head.address, submission_id=name, what="script", script="doctor")
    shipment = Shipment(module=MODULE, argument=lambda _: JobWanted(what="doctor", job=name).to_text())
    submit_shipment(head, job, shipment, None, _say)
    try:
        outcome = follow(head, job, Lines())
    except KeyboardInterrupt:  # nobody looks for it afterwards
        head.stop(name)
        raise
    if outcome.done is not None and isinstance(outcome.done.value, dict):
        return outcome.done.value
    what = outcome.message if outcome.failed is None else outcome.failed.message
    return fail(
        "job", f"the job {name} did not examine the cluster: {what}", f"ray job logs --address {head.address} {name}"
    )


def _say(line: str) -> None:
    console(stderr=True).print(f"      {line}", soft_wrap=True, markup=False)


def _show(line: str) -> None:
    """A finding's line, its first word in a colour."""
    screen, state = console(), line[:_WIDTH]
    screen.print(state, style=_STYLES[state.strip()], end="")
    screen.print(line[_WIDTH:], soft_wrap=True, markup=False)
