"""What an examination has found: a line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from heliostat.cluster.errors import Complaint

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one thing.

    Attributes:
        check: what was looked at, in a word or two.
        state: "fail": a run will fail of it, or be wrong; "warn": it may, or will be slow.
        what: was found, without a full stop unless it has several sentences.
        remedy: the command that mends it, or what else to do; empty where nothing is wrong.
        hosts: the machines that it was found on; empty for the place as a whole.
    """

    check: str
    state: State
    what: str
    remedy: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The finding as a line."""
        where = f"{', '.join(self.hosts)}: " if self.hosts else ""
        end = "" if self.what.endswith((".", "!", "?")) or not self.remedy else "."
        return f"{self.state:4}  {self.check:11}  {where}{self.what}{end}{' ' if self.remedy else ''}{self.remedy}"


def ok(check: str, what: str, *hosts: str) -> Finding:
    """All is well.

    Args:
        check: what was looked at.
        what: was found.
        hosts: where.
    """
    return Finding(check=check, state="ok", what=what, hosts=hosts)


def warn(check: str, what: str, remedy: str, *hosts: str) -> Finding:
    """It may not do.

    Args:
        check: what was looked at.
        what: was found.
        remedy: see `Finding`.
        hosts: where.
    """
    return Finding(check=check, state="warn", what=what, remedy=remedy, hosts=hosts)


def fail(check: str, what: str, remedy: str, *hosts: str) -> Finding:
    """It will not do.

    Args:
        check: what was looked at.
        what: was found.
        remedy: see `Finding`.
        hosts: where.
    """
    return Finding(check=check, state="fail", what=what, remedy=remedy, hosts=hosts)


def of_complaints(check: str, complaints: Iterable[Complaint]) -> list[Finding]:
    """Findings of what workers' machines lack; the same on several machines is one.

    Args:
        check: what was looked at.
        complaints: as `cluster.preflight` makes them.
    """
    return merged(fail(check, each.what, f"{each.remedy}.", each.host) for each in complaints)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings; what differs in nothing but its machines is one."""
    found: dict[Finding, Finding] = {}
    for each in findings:
        alike = replace(each, hosts=())
        before = found.get(alike)
        hosts = each.hosts if before is None else tuple(dict.fromkeys((*before.hosts, *each.hosts)))
        found[alike] = replace(each, hosts=hosts)
    return list(found.values())
