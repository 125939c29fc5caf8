"""Numbers and names as a line for people has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.cells import cell_len, set_cell_size

from ..config import OPEN_END
from ..errors.texts import duration_text, joined, listed
from .shown_text import printable

_MAX_HOSTS = 4  # by name, in a line
_MAX_SHOWN, _MAX_LETTERS = 10, 60  # of a list, and of a text, among an epoch's numbers


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


def whole_duration(seconds: float) -> str:
    """A time as people say it, without parts of a second, and never nothing."""
    return duration_text(max(1, round(seconds)))


def metric(name: str, value: object) -> str:
    """A metric with its value: loss 0.4123."""
    return one_line(f"{name} {_short(value)}")


def numbers(logs: Mapping[str, Any]) -> str:
    """Metrics in one line."""
    return "  ".join(metric(name, value) for name, value in logs.items())


def one_line(text: str) -> str:
    """A text of others on one line, with what a terminal would obey written out."""
    return printable(text.replace("\n", " ").replace("\t", " "))


def shortened(text: str, width: int) -> str:
    """The text, cut to so many columns of a terminal; two dots say that it was cut."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 2).rstrip()}.." if width > 4 else set_cell_size(text, max(0, width))


def _short(value: object) -> str:
    if isinstance(value, list):
        more = [f"and {len(value) - _MAX_SHOWN} more"] if len(value) > _MAX_SHOWN else []
        return "[" + " ".join([*map(_short, value[:_MAX_SHOWN]), *more]) + "]"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}..."


def epoch_of(epoch: int, epochs: int) -> str:
    """Which epoch it is: epoch 3/10, where `epoch` is 2; epoch 3 where nobody knows how many there will be."""
    return f"epoch {epoch + 1}" if epochs >= OPEN_END else f"epoch {epoch + 1}/{epochs}"
