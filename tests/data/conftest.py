"""Data that most tests of the data layer use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heliostat.data import Dataset, write_dataset

NUM_ROWS = 10_007


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched or decoded lies in no user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(5)
    return {
        "x": numbers.integers(0, 256, (NUM_ROWS, 3, 5), dtype=np.uint8),
        "y": numbers.integers(-3, 7, NUM_ROWS),
        "flag": numbers.random(NUM_ROWS) < 0.5,
        "w": numbers.normal(size=NUM_ROWS).astype(np.float32),
    }


@pytest.fixture(params=[None, 3000, 40], ids=["one shard", "few shards", "many shards"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path, arrays: dict[str, np.ndarray]) -> Dataset:
    return write_dataset(tmp_path / "set", arrays, rows_per_shard=request.param)
