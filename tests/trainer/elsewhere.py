"""A machine that does not see the driver's run folder, although it is this one: for callbacks' files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from heliostat.cluster.disk.reach import Reach


class Elsewhere(Reach):
    """How such a machine reaches the driver's, whose file system is that of this one.

    Args:
        disk: where it keeps its own files; a folder in there for each process and thread, which stand for machines.
    """

    def __init__(self, disk: Path) -> None:
        super().__init__(None)
        self._own = disk

    def sees(self, path: str) -> bool:
        return False

    def uri(self, path: str) -> str:
        return path

    def scratch(self, path: str) -> Path:
        return self._own / f"{os.getpid()}-{threading.current_thread().name}"
