"""What tests of the engine share."""

from __future__ import annotations

import pytest
from heliostat.trainer.engine.runtime import Runtime


@pytest.fixture
def as_if_gpus(monkeypatch):
    """The logical CPU devices pass for GPUs: whoever asks for those gets all of them."""
    monkeypatch.setattr(Runtime, "gpus", property(lambda self: self.devices))
