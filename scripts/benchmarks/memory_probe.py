"""Looks at the memory of the process it runs in: what it takes, and when it takes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from run import Watch, status_bytes  # type: ignore[import-not-found]

if TYPE_CHECKING:
    import keras

LOOK_EVERY_S = 0.002


class Peak(Watch):
    """Follows the largest RssAnon of this process."""

    def __init__(self) -> None:
        super().__init__(lambda: status_bytes("RssAnon"), LOOK_EVERY_S)

    def close(self) -> int:
        """Look no more; returns it, in bytes."""
        super().close()
        return max(num_bytes for _, num_bytes in self.looks)


def build_probed(build_model: Callable[[], keras.Model], folder: str, last_step: int) -> keras.Model:
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
            found = {"points": points, "peak_rss_anon": peak.close(), "vm_hwm": status_bytes("VmHWM")}
            name = threading.current_thread().name
            (Path(folder) / f"{name}.json").write_text(json.dumps(found))

    instruments.listen(on_point)
    return model
