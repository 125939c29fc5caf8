"""Numbers and names as a line for people has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..errors.texts import joined, listed

_MAX_HOSTS = 4  # by name, in a line


def machine_names(hosts: Iterable[str]) -> str:
    """Names of machines, with how many workers are on each where they are not spread evenly."""
    counts = Counter(hosts)
    uneven = len(set(counts.values())) > 1
    shown = [f"{name} ({number})" if uneven else name for name, number in counts.items()]
    if len(shown) > _MAX_HOSTS:
        return f"{len(shown)} machines: {listed(shown, _MAX_HOSTS)}"
    return joined(shown)


def count(number: int, what: str) -> str:
    """So many of them: 1 worker, 2 workers, 1,000 microbatches."""
    ending = "" if number == 1 else "es" if what.endswith("batch") else "s"
    return f"{number:,} {what}{ending}"
