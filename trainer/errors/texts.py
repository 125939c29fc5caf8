"""Pieces that errors and lines on the screen are made of: names in a line, numbers of bytes, times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

_MAX_LETTERS = 240  # of a text of which nobody knows how long it is


def memory_account(parts: Mapping[str, int]) -> str:
    """What memory goes to, from bytes by name."""
    return ", ".join(f"{name} {size_text(num_bytes)}" for name, num_bytes in parts.items())


def listed(names: Sequence[str], most: int) -> str:
    """Names in a line, the first so many of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def joined(names: Sequence[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def size_text(num_bytes: int) -> str:
    """A number of bytes as people say it: 12.0 kB, 3.4 MB, 5.6 GB."""
    unit, size = next((each for each in (("GB", 1e9), ("MB", 1e6)) if num_bytes >= each[1]), ("kB", 1e3))
    return f"{num_bytes / size:,.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A time as people say it: 12 ms, 3.4 s, 2 min 10 s, 5 h 20 min, 3 d 4 h."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(number for number, (_, size) in enumerate(units) if seconds >= size)
    (large, large_s), (small, small_s) = units[first], units[first + 1]
    whole = round(seconds / small_s) * small_s
    rest = whole % large_s // small_s
    return f"{whole // large_s:,} {large}" + (f" {rest} {small}" if rest else "")


def number_text(value: object) -> str:
    """A metric, or a number of things, as people read it; what is no number as `short_text`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else short_text(value)


def short_text(value: object) -> str:
    """Anything as a text that is not long."""
    text = str(value)
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]} …"


def moment_text(time_s: float) -> str:
    """A time since 1970 as the clock of this machine shows it: 2026-11-29 20:31:05."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))
