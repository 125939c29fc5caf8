"""Checks of single settings: each raises `ConfigurationError` with the value that was given, and what it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import ConfigurationError


def check_seconds(name: str, value: object) -> None:
    """A positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name}={value!r}; it must be a positive number of seconds.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """One of these words."""
    if value not in choices:
        raise ConfigurationError(f"{name}={value!r}; it takes {' or '.join(map(repr, choices))}.")


def check_count(name: str, value: object, least: int = 1) -> None:
    """An integer, not below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}; it must be an integer of at least {least}.")
