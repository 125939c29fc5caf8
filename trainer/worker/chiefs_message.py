"""What the chief tells all workers once its hooks have run, as bytes.

With batch hooks one of these precedes every step, so a message that tells of no change is a few bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from heliostat.cluster.vectors import joined

from ..checkpoints.values import pack, unpack

# Stop after this step, no step follows, version of callbacks' files, bytes of what is packed; then come the states.
_HEAD = struct.Struct("<??6xQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChiefsMessage:
    """What the chief's hooks have made.

    Attributes:
        stops: the run is to stop.
        steps_over: no step follows in this epoch.
        files_version: of the callbacks' files.
        changed: values of the variables that have changed, by their place in `FollowedState.variables`.
        attributes: Python values that have changed, see `Attributes.changes`.
        states: what has changed of the callbacks' states, see `CarriedStates.changes`; None if they are as before.
    """

    stops: bool
    steps_over: bool
    files_version: int
    changed: Mapping[int, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)  # Any: plain values
    states: memoryview | None = None

    def packed(self) -> memoryview:
        """The message as bytes."""
        more: memoryview | bytes = b""
        if self.changed or self.attributes:
            changed = {str(place): value for place, value in self.changed.items()}
            more = pack({"changed": changed, "attributes": dict(self.attributes)})
        head = _HEAD.pack(self.stops, self.steps_over, self.files_version, len(more))
        return joined([head, *(np.frombuffer(each, np.uint8) for each in (more, self.states or b"") if len(each))])

    @classmethod
    def of(cls, message: memoryview) -> ChiefsMessage:
        """The message that these bytes are."""
        stops, steps_over, files_version, num_packed = _HEAD.unpack_from(message)
        packed, states = message[_HEAD.size : _HEAD.size + num_packed], message[_HEAD.size + num_packed :]
        more = unpack(packed) if num_packed else {}
        changed = {int(place): value for place, value in more.get("changed", {}).items()}
        return cls(
            stops=stops,
            steps_over=steps_over,
            files_version=files_version,
            changed=changed,
            attributes=more.get("attributes", {}),
            states=states if len(states) else None,
        )
