"""Which state metrics have, and how it merges over microbatches: `metric_variables`.

The state of a metric of Keras itself adds up, all of it starts at zero; so does that of a subclass which adds none and
sets none: it computes other values, and hands them to Keras's `update_state`, or adds them itself. What a class of the
user's own keeps nobody can know, so it says so, with a class attribute ``state_merge``.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Literal

import keras
import numpy as np

from ..errors import UnsupportedModelError
from .private_models import leaf_metrics, nested_metrics, unlisted_metrics

MergeRule = Literal["sum", "max", "min"]

RULES: tuple[MergeRule, ...] = ("sum", "max", "min")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricVariable:
    """One state variable of a metric.

    Attributes:
        variable: the Keras variable.
        metric: name of its metric.
        rule: how states of microbatches merge.
        initial: the value every microbatch starts from.
    """

    variable: keras.Variable
    metric: str
    rule: MergeRule
    initial: np.ndarray

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.initial.size)


def metric_variables(model: keras.Model) -> list[MetricVariable]:
    """All metric state of a compiled, built model, with its merge rules; what several metrics share comes once.

    A metric of Keras itself merges by summing, and a subclass of one that adds no state. Any other must say how, with a
    class attribute ``state_merge``: ``"sum"``, ``"max"``, ``"min"``, or a dict from variable name to one of them.
    A metric inside of another has its own rule.

    Raises:
        UnsupportedModelError: a metric does not say how its state merges, or "sum" does not start from zero.
    """
    found: dict[int, MetricVariable] = {}
    for metric in leaf_metrics(model):
        metric.reset_state()
        for owners, variable in _owned(metric):
            if id(variable) in found:
                continue
            rule = _rule(owners, variable)
            initial = np.asarray(variable.numpy())
            if rule == "sum" and np.any(initial != 0):
                raise UnsupportedModelError(
                    f"The metric {metric.name!r} sums its state, but {variable.path!r} starts at {initial!r}; the "
                    "start would be counted once per microbatch. Start it at zero and add the offset in result()."
                )
            found[id(variable)] = MetricVariable(variable=variable, metric=metric.name, rule=rule, initial=initial)
    return list(found.values())


def note_on_unlisted(model: keras.Model) -> str:
    """What to say of metrics that Keras would never reset; empty if there are none."""
    names = [metric.name for metric in unlisted_metrics(model)]
    if not names:
        return ""
    return (
        f"metrics that the model's `metrics` does not list ({', '.join(names)}) begin anew in every epoch; in plain "
        "Keras nobody resets them"
    )


Owners = tuple[keras.metrics.Metric, ...]


def _owned(metric: keras.metrics.Metric, outside: Owners = ()) -> Iterator[tuple[Owners, keras.Variable]]:
    """A metric's variables, each with the metrics that it is in, the innermost first."""
    owners = (metric, *outside)
    inside = nested_metrics(metric)
    apart = {id(variable) for each in inside for variable in each.variables}
    for variable in metric.variables:
        if id(variable) not in apart:
            yield owners, variable
    for each in inside:
        yield from _owned(each, owners)


def _rule(owners: Owners, variable: keras.Variable) -> MergeRule:
    metric, declared = owners[0], None
    for owner in owners:
        declared = getattr(owner, "state_merge", None)
        if declared is None and owner is metric and adds_up(metric, variable):
            return "sum"
        if declared is not None:
            break
    rule = declared.get(variable.name) if isinstance(declared, dict) else declared
    if rule not in RULES:
        raise UnsupportedModelError(
            f"The metric {metric.name!r} ({type(metric).__qualname__}) is not Keras's own, and does not say how its "
            f"state {variable.name!r} merges over workers (state_merge is {declared!r}). Add a class attribute: "
            'state_merge = "sum" where the states of two halves of the data add up to the state of the whole (the '
            'usual case), or "max", "min", or a dict from variable name to one of these.'
        )
    return rule  # type: ignore[no-any-return]


def adds_up(metric: keras.metrics.Metric, variable: keras.Variable) -> bool:
    """Whether state of a metric is known to add up: it is Keras's, and no class of the user's sets it."""
    kinds = [kind for kind in type(metric).__mro__ if not kind.__module__.startswith("keras.")]
    if kinds == [object]:
        return True
    attributes = {name for name, value in vars(metric).items() if value is variable}
    users = [code for kind in kinds for code in _methods(kind)]
    kept = {name for kind in type(metric).__mro__ if kind not in kinds for name in _stored(_methods(kind))}
    sets = any("assign" in method.__code__.co_names for method in users if method.__name__ != "reset_state")
    return bool(attributes & kept) and not attributes & _stored(users) and not sets


def _methods(kind: type) -> list[FunctionType]:
    return [member for member in vars(kind).values() if isinstance(member, FunctionType)]


def _stored(methods: list[FunctionType]) -> set[str]:
    """The attributes that methods assign."""
    lines = [line for method in methods for line in dis.get_instructions(method)]
    return {line.argval for line in lines if line.opname == "STORE_ATTR"}
