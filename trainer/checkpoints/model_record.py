"""What a run folder says of the model of its run, and whether another model is the same.

``model.json`` holds the model's settings as Keras gives them: what it is compiled with, its layers, and the names,
shapes and types of its state. So whoever has changed one is told which, from what to what. A run of an earlier version
has only hashes by part, in ``run.json``; they are still written, for comparing and for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors.texts import listed
from .manifest import check_identity
from .values import from_line, to_line

# What Keras writes beside the settings: where a class comes from, a lambda's bytecode with its place in a file (what it
# does is among the hashes of `code_digests`), and what decides no result here.
_LEFT_OUT = ("module", "code", "run_eagerly", "steps_per_execution")
_MAX_NAMES = 6  # of settings that are not compared, in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """The model of a run.

    Attributes:
        hashes: by part.
        settings: by part, as `snapshot.model_settings` gives them; empty where they were not kept.
        keras: the version of Keras that told them; empty if that is not known.
    """

    hashes: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    keras: str = ""

    def check(self, hashes: Mapping[str, str], settings: Mapping[str, Any], run_dir: Path, keras: str) -> None:
        """Compare a model with this one.

        Args:
            hashes, settings: of the model that there is now.
            run_dir: the run folder, for the message.
            keras: the version that tells them: what only one of two versions knows is left out.

        Raises:
            ConfigurationError: it is another; it names the settings that differ, with both values.
        """
        if self.settings:
            before, now = self._flat(settings)
            for name in self._unknown(settings, keras):
                before.pop(name, None)
                now.pop(name, None)
            if "state" not in settings:  # a pass, which does not know the optimizers that the step applies
                before = {name: value for name, value in before.items() if not _is_of_optimizers(name)}
            check_identity({"model": before}, {"model": now}, run_dir)
        elif self.hashes:
            check_identity({"model": self.hashes}, {"model": hashes}, run_dir)

    def not_compared(self, settings: Mapping[str, Any], keras: str) -> str:
        """What to say of settings that `check` leaves out; empty where there are none."""
        names = self._unknown(settings, keras)
        line = f"warning: settings that only one of Keras {self.keras} and {keras} knows are not compared: "
        return line + listed(names, _MAX_NAMES) if names else ""

    def _unknown(self, settings: Mapping[str, Any], keras: str) -> list[str]:
        """Settings that only one of two versions of Keras knows, of objects that both models have."""
        if not self.settings or not self.keras or not keras or keras == self.keras:
            return []
        before, now = self._flat(settings)
        found = [name for name in before if name not in now and _is_unknown(name, now)]
        return found + [name for name in now if name not in before and _is_unknown(name, before)]

    def _flat(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return dict(flat_settings(self.settings)), dict(flat_settings(from_line(to_line(settings))))


def _is_of_optimizers(name: str) -> bool:
    """Whether a setting is one of optimizers, or of the state, which is in their order."""
    return re.split(r"[.\[]", name, maxsplit=1)[0] in ("optimizer", "optimizers", "state")


def _is_unknown(name: str, others: Mapping[str, Any]) -> bool:
    """Whether a setting is one that others have no word for; a layer more, or a weight, is another model."""
    objects = {each[:end] for each in others for end, letter in enumerate(each) if letter in ".["}
    above, part = _parted(name)
    while above and above not in objects:
        name = above
        above, part = _parted(name)
    return not (part.startswith("[") or above == "state" or name in others)


def _parted(name: str) -> tuple[str, str]:
    """The object that has a setting, empty for the model, and what it is called there: a word, or a number in [ ]."""
    end = max(name.rfind("."), name.rfind("["))
    return (name[:end], name[end:].lstrip(".")) if end >= 0 else ("", name)


def flat_settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # Any: whatever JSON holds
    """Every setting by its path, such as ``optimizer.learning_rate`` or ``layers[2].units``."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name not in _LEFT_OUT:  # Keras wraps the settings of every object into a "config"
                yield from flat_settings(each, path if name == "config" else f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(each, (Mapping, list)) for each in value):
        for number, each in enumerate(value):
            yield from flat_settings(each, f"{path}[{number}]")
    else:
        yield path, _shown(value) if isinstance(value, float) else value


def _shown(value: float) -> float | str:
    """A number as its user wrote it: optimizers keep theirs in float32."""
    short = float(str(np.float32(value)))
    return str(value) if value != value else short if np.float32(short) == np.float32(value) else value
