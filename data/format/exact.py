"""Numbers as numbers of another dtype, with what that would change.

numpy's `astype` wraps and rounds without a word and Arrow's safe cast makes infinity of 70,000 as float16, so both are
only tools here: every value is cast, and looked at again as what it was. A whole number stays itself, a finite value
stays finite, a bool is 0 or 1, NaN stays NaN; only fractions may be rounded, and are told. A float that is larger than
the whole numbers its own dtype can tell apart (2^53 for float64) counts as a fraction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_NOTHING = np.empty(0, np.int64)


class Exact(NamedTuple):
    """Numbers in their new dtype, the places of those that would not be themselves, and of fractions rounded."""

    numbers: npt.NDArray[Any]
    wrong: npt.NDArray[np.int64]
    rounded: npt.NDArray[np.int64]


def exactly(numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> Exact:
    """Numbers or bools [n] as `dtype`, a number or bool."""
    if numbers.dtype == dtype:
        return Exact(numbers, _NOTHING, _NOTHING)
    with np.errstate(all="ignore"):  # what overflows is found by looking again
        if dtype.kind == "b":
            return _result(numbers != 0, (numbers != 0) & (numbers != 1))
        # numpy calls int64 to float64 safe, which it is not.
        is_whole_to_float = numbers.dtype.kind in "iu" and dtype.kind == "f"
        if np.can_cast(numbers.dtype, dtype, "safe") and not is_whole_to_float:
            return Exact(numbers.astype(dtype), _NOTHING, _NOTHING)
        if dtype.kind in "iu":
            return _as_integers(numbers, dtype)
        return _as_floats(numbers, dtype)


def _result(numbers: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> Exact:
    return Exact(numbers, np.flatnonzero(wrong), _NOTHING)


def _as_integers(numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> Exact:
    limits = np.iinfo(dtype)
    if numbers.dtype.kind in "iu":
        return _result(numbers.astype(dtype), (numbers < limits.min) | (numbers > limits.max))
    wide = numbers.astype(np.float64)
    # The largest integer plus one is a power of two, so a float64 holds it; the largest one itself it may not.
    fits = (np.trunc(wide) == wide) & (wide >= float(limits.min)) & (wide < float(limits.max + 1))
    return _result(np.where(fits, wide, 0).astype(dtype), ~fits)


def _as_floats(numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> Exact:
    """Whole numbers are led back and compared; of floats those that changed are fractions, or wrong."""
    cast = numbers.astype(dtype)
    if numbers.dtype.kind in "iu":
        back = _as_integers(cast.astype(np.float64), numbers.dtype)
        wrong = back.numbers != numbers
        wrong[back.wrong] = True
        return _result(cast, wrong)
    changed = (cast.astype(numbers.dtype) != numbers) & ~np.isnan(numbers)
    is_whole = (np.trunc(numbers) == numbers) & (np.abs(numbers) <= 2.0 ** (np.finfo(numbers.dtype).nmant + 1))
    wrong = changed & (is_whole | (np.isinf(cast) & np.isfinite(numbers)))
    return Exact(cast, np.flatnonzero(wrong), np.flatnonzero(changed & ~wrong))


def why_wrong(value: int | float | bool, dtype: np.dtype[Any]) -> str:
    """Why a value cannot be one of `dtype`, to follow "which"."""
    if dtype.kind == "b":
        return "is neither 0 nor 1"
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if isinstance(value, float) and not value.is_integer():
            return "is no whole number"
        return f"is beyond {dtype.name} ({limits.min} to {limits.max})"
    with np.errstate(over="ignore"):
        found = dtype.type(value)
    return f"would become {found}" if np.isinf(found) else f"would become {int(found)}"
