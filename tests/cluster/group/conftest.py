"""Groups of toys whose workers are threads of this process, and scripts of what befalls them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat.cluster import instruments
from heliostat.cluster.group import driver_loop, liveness, worker_group
from heliostat.cluster.group import start as start_of_workers

from .script import Script
from .toy_group import Toys, start_toys

Start = Callable[..., Toys]


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    remove = instruments.listen(made.reached)
    yield made
    remove()
    assert not made.unfired, "what was planned did not happen"


def sockets() -> set[str]:
    links = (str(each) for each in Path("/proc/self/fd").iterdir())
    return {target for link in links if os.path.islink(link) and "socket:" in (target := _target(link))}


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


@pytest.fixture
def start(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts groups; after the test nothing of them may be left."""
    monkeypatch.setattr(driver_loop, "TICK_S", 0.02)
    monkeypatch.setattr(worker_group, "TICK_S", 0.02)
    monkeypatch.setattr(start_of_workers, "TICK_S", 0.02)
    monkeypatch.setattr(liveness, "MAX_BACK_OFF_S", 0.02)
    threads, listeners, before = set(threading.enumerate()), list(instruments._listeners), sockets()
    made: list[Toys] = []

    def starter(num_workers: int, **options: Any) -> Toys:
        made.append(start_toys(script, num_workers, **options))
        return made[-1]

    yield starter
    for toys in made:
        toys.group.close()
    until_s = time.monotonic() + 10.0
    while (left := set(threading.enumerate()) - threads) and time.monotonic() < until_s:
        for thread in left:
            if thread.is_alive():
                thread.join(1.0)
            else:
                os.sched_yield()  # it is just about to begin
    assert not left
    assert instruments._listeners == listeners
    assert not sockets() - before
