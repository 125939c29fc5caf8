"""What is said of one public name of Keras, and how to make one of it where it needs arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

Verdict = Literal["equal", "said", "refused", "base"]
"""`equal` to one device with any number of microbatches; `said` to be counted per microbatch, equal with one; `refused`
by name; `base`: not tried, since there is nothing to train with (an abstract class, a container, a tool), or for the
reason that is given."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one name is tried.

    Attributes:
        make: makes one; None where the name is not tried.
        kind: which rows, or which model, it is tried with.
        verdict: see `Verdict`.
        reason: for anything but `equal`, in the words of the page.
        within: the largest relative difference of a weight or a number.
        long: it takes seconds by itself: alone among the slow tests, and not with others.
        floats: what Keras computes in; float32 where it fails in float64 by itself.
        zero: words in the paths of weights whose exact gradient is zero: what moves them is rounding.
    """

    make: Callable[[], Any] | None = None
    kind: str = ""
    verdict: Verdict = "equal"
    reason: str = ""
    within: float = 1e-10
    zero: tuple[str, ...] = ()
    long: bool = False
    floats: str = "float64"

    def __post_init__(self) -> None:
        if (self.verdict == "equal") == bool(self.reason):
            raise ValueError(f"a reason belongs to what is not equal, and to nothing else: {self}")


def of(recipes: Mapping[str, Recipe], verdict: Verdict) -> dict[str, Recipe]:
    """Those of this verdict."""
    return {name: recipe for name, recipe in recipes.items() if recipe.verdict == verdict}


def public_classes(module: ModuleType) -> dict[str, list[str]]:
    """The public classes of a module of Keras: the name that a class calls itself, and all its names."""
    found: dict[type, list[str]] = {}
    for name, value in vars(module).items():
        if inspect.isclass(value) and not name.startswith("_"):
            found.setdefault(value, []).append(name)
    return {each.__name__ if each.__name__ in names else names[0]: sorted(names) for each, names in found.items()}


def public_functions(module: ModuleType) -> list[str]:
    """The public functions of a module of Keras, in lower case."""
    return sorted(name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_")


def without_recipe(names: Mapping[str, object] | list[str], recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """What Keras has and the recipes do not, and what they have and Keras does not; empty where they agree."""
    lists = {"new in Keras": sorted(set(names) - set(recipes)), "gone from Keras": sorted(set(recipes) - set(names))}
    return {what: each for what, each in lists.items() if each}
