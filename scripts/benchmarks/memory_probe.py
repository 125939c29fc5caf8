"""Looks at the memory of the process it runs in: what it takes, when it takes it, and which part of a step holds it."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from run import status_bytes  # type: ignore[import-not-found]

LOOK_EVERY_S = 0.002


class Peak:
    """Follows the largest RssAnon from a thread of its own."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> int:
        self._over.set()
        self._thread.join()
        return self.num_bytes

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.num_bytes = max(self.num_bytes, status_bytes("RssAnon"))


def build_probed(build_model: Callable[[], Any], folder: str, last_step: int) -> Any:
    """Build the model in a worker; at its last step write what its process holds into a file in `folder`."""
    from heliostat.cluster import instruments

    points = {"loaded": status_bytes("RssAnon")}
    model = build_model()
    points["built"] = status_bytes("RssAnon")
    peak = Peak()

    def on_point(point: str, step: int | None) -> None:
        if point == "compute" and step == 0:
            points["warm"] = status_bytes("RssAnon")
        elif point == "applied" and step == last_step:
            found = {
                "points": points,
                "parts": parts(),
                "peak_rss_anon": peak.close(),
                "vm_hwm": status_bytes("VmHWM"),
            }
            name = threading.current_thread().name
            (Path(folder) / f"{name}.json").write_text(json.dumps(found))

    instruments.listen(on_point)
    return model


def parts() -> dict[str, int]:
    """Bytes that each part of the step engine of this process holds between two steps."""
    from heliostat.cluster.group.member import Member
    from heliostat.trainer.engine.step import Step

    engine = next(each for each in gc.get_objects() if type(each) is Step)
    member = next(each for each in gc.get_objects() if type(each) is Member)
    seen: dict[int, Any] = {}
    built = engine.built
    return {
        "weights": held_bytes([v._value for v in (*built.trainable, *built.non_trainable)], seen),
        "optimizer state": held_bytes([v._value for v in built.optimizer.variables], seen),
        "joined weights and state": held_bytes([vars(phase._update).get("_flat") for phase in engine.phases], seen),
        "partial sums": held_bytes([phase.partial_sums for phase in engine.phases], seen),
        "sums of the all-reduce": held_bytes([member._results, member._buffers, member._collective], seen),
        "rows": held_bytes(engine.microbatches.feed, seen),
    }


def held_bytes(value: Any, seen: dict[int, Any], depth: int = 8) -> int:
    """Bytes of arrays and variables that a value leads to, each counted once; `seen` keeps them alive meanwhile."""
    import numpy as np
    import tensorflow as tf

    if id(value) in seen or depth < 0:
        return 0
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        base = value
        while isinstance(base.base, np.ndarray):
            base = base.base
        if base is not value and id(base) in seen:
            return 0
        seen[id(base)] = base
        return int(base.nbytes)
    if isinstance(value, (tf.Variable, tf.Tensor)):
        return int(value.dtype.size * value.shape.num_elements())
    if hasattr(value, "values") and type(value).__name__.startswith("Mirrored"):
        return sum(held_bytes(each, seen, depth - 1) for each in value.values)
    return sum(held_bytes(each, seen, depth - 1) for each in _inside(value))


_LOOKED_INTO = tuple(
    f"heliostat.{each}"
    for each in (
        "cluster",
        "trainer.engine.step",
        "trainer.engine.phase",
        "trainer.engine.microbatches",
        "trainer.engine.feed",
        "trainer.engine.flat",
    )
)


def _inside(value: Any) -> Iterator[Any]:
    """What a container or an object of Heliostat or Keras refers to; nothing else is followed."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value
    elif type(value).__module__.startswith(_LOOKED_INTO):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        yield from (
            getattr(value, name) for name in slots if hasattr(value, name) and name not in ("built", "flat_optimizer")
        )
        if hasattr(value, "__dict__"):
            yield from (each for name, each in vars(value).items() if name not in ("built", "microbatches", "_member"))
    elif hasattr(value, "_value"):  # a Keras variable
        yield value._value
