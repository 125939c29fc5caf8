"""The states of a run's callbacks as all workers have agreed on them, and what the chief tells of changes.

A state may hold the weights of a model (`EarlyStopping` does), and the chief tells after every hook, with batch hooks
before every step. So it asks as few callbacks as it can, and sends as little: between two steps only the callbacks are
asked that have one of the hooks that ran, and of a changed state only the arrays travel that are other ones than
before. They are compared in pieces with those that all agreed on, without a copy. (Comparing by identity would be
faster still, and wrong for a callback that changes an array in place.)

A part of a state is only left out where all workers surely have it: the group is of the generation in which it agreed
last. A worker that has joined since may have been handed a later state, in the middle of the chief's hooks; then all is
told. A chief without other workers tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from keras.callbacks import Callback

from ..checkpoints.values import decode, pack, unpack
from .callback_hooks import hooks_of
from .callback_state import State, encoded_state

PIECE_BYTES = 1 << 20  # compared at once


@dataclass(frozen=True, slots=True)
class _Agreed:
    """A callback's state: JSON text in tags, and the arrays that it names."""

    text: str = "{}"
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class CarriedStates:
    """What every worker has of the callbacks' states.

    Attributes:
        has_agreed: whether there are states to go on from: the workers have agreed once, or a snapshot had them.

    Args:
        callbacks: this worker's copies.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self._having: dict[str, set[int]] = {}  # hook: the callbacks that have it
        for number, callback in enumerate(callbacks):
            for hook in hooks_of(callback):
                self._having.setdefault(hook, set()).add(number)
        self._agreed = [_Agreed() for _ in callbacks]
        self._touched = set(range(len(callbacks)))  # whose hooks have run here since the workers agreed
        self._generation = -1  # the group's when they agreed
        self.has_agreed = False

    def hook_ran(self, hook: str) -> None:
        """A hook of all callbacks has run here."""
        self._touched |= self._having.get(hook, set())

    def all_ran(self) -> None:
        """Any callback's state may have changed here."""
        self._touched.update(range(len(self._callbacks)))

    def agreed(self) -> list[State]:
        """The states as of when the workers last agreed; not to be changed."""
        return [decode(json.loads(each.text), each.arrays) for each in self._agreed]

    @property
    def names(self) -> list[str]:
        """The callbacks' classes."""
        return [type(callback).__name__ for callback in self._callbacks]

    def restore(self, states: Sequence[State], names: Sequence[str] | None = None) -> None:
        """Go on from the states of a snapshot; a callback that had none there begins afresh.

        Args:
            states: of the callbacks there.
            names: their classes; None where the snapshot does not say, then they are those here.
        """
        left = list(zip(self.names if names is None else names, states, strict=False))
        for number, name in enumerate(self.names):
            found = next((each for each in left if each[0] == name), None)
            if found is not None:
                left.remove(found)
                self._agreed[number] = _Agreed(*encoded_state(found[1], "a snapshot's state of callbacks"))
        self.has_agreed = True

    def changes(self, generation: int, *, between_steps: bool) -> memoryview | None:
        """On the chief: what the others have to hear of the callbacks' states; None if they have them.

        Args:
            generation: of the group now.
            between_steps: only ask callbacks whose hooks have run.

        Raises:
            ConfigurationError: a user's get_state() returned what cannot be carried.
        """
        complete = generation != self._generation
        asked = self._touched if between_steps and not complete else range(len(self._callbacks))
        told: list[object] = []
        for number in sorted(asked):
            text, arrays = encoded_state(self._callbacks[number])
            before = _Agreed() if complete else self._agreed[number]
            new = {name: array for name, array in arrays.items() if not _equal(array, before.arrays.get(name))}
            if complete or new or text != before.text or len(arrays) < len(before.arrays):
                kept: list[object] = [name for name in arrays if name not in new]
                told.append({"callback": number, "state": text, "arrays": new, "kept": kept})
        return pack(told) if told else None

    def agree(self, generation: int, message: memoryview | None) -> None:
        """All workers of a generation have heard the same of `changes`.

        Raises:
            DamagedStateError: the message is none of `changes`.
        """
        self.has_agreed = True
        self._touched.clear()
        if message is None:
            return
        self._generation = generation
        for each in unpack(message):
            before = self._agreed[each["callback"]].arrays
            arrays = {name: before[name] for name in each["kept"]} | each["arrays"]
            self._agreed[each["callback"]] = _Agreed(each["state"], arrays)


def _equal(one: np.ndarray, other: np.ndarray | None) -> bool:
    """Whether two C-contiguous arrays have the same dtype, shape and bits."""
    if other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    left, right = (each.reshape(-1).view(np.uint8) for each in (one, other))
    pieces = (slice(at, at + PIECE_BYTES) for at in range(0, left.size, PIECE_BYTES))
    return all(np.array_equal(left[piece], right[piece]) for piece in pieces)
