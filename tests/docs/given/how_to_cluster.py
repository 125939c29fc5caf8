"""A cluster of one machine, as the one that this machine is a node of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ray_head import ray_head


@contextmanager
def prepare(folder: Path) -> Iterator[dict[str, str]]:
    with ray_head() as head:
        os.environ |= {"RAY_ADDRESS": head.gcs, "RAY_AUTH_MODE": "token"}
        yield {}
