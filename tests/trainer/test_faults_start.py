"""Real workers die or stand still while they build: they are made good, and the result keeps its bits."""

from __future__ import annotations

import os
import signal

import pytest
from heliostat.cluster.group import liveness
from heliostat.trainer import Trainer

from .conftest import dense_data
from .faults import assert_gone, events_of, outcome
from .models import linear

pytestmark = pytest.mark.faults

JOB = {"epochs": 2, "global_batch_size": 16, "record_rows": True}


def once(place) -> bool:
    """Whether this process is the first to come to a place, where it leaves its number."""
    try:
        with place.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def test_who_is_killed_and_who_is_stopped_in_build_model_is_replaced(ray_here, train, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(liveness, "SETUP_SILENCE_S", 3.0)
    monkeypatch.setattr(liveness, "MAX_BACK_OFF_S", 0.5)
    build, killed, stopped = linear(), tmp_path / "killed", tmp_path / "stopped"

    def broken():
        if once(killed):
            os.kill(os.getpid(), signal.SIGKILL)
        if once(stopped):
            os.kill(os.getpid(), signal.SIGSTOP)
        return build()

    arguments = {"workers": 2, "num_microbatches": 4, "seed": 7, "run_dir": tmp_path / "run"}
    with Trainer(broken, **arguments, deadline_s=3) as trainer:
        result = trainer.fit(dense_data(), verbose=2, **JOB)
    assert outcome(result) == outcome(train(build, dense_data(), workers=0, **JOB))
    reasons = [each["reason"] for each in events_of(result.run_dir, "not_started")]
    assert len(reasons) == 2
    assert sum("did not answer" in reason for reason in reasons) == 1
    assert events_of(result.run_dir, "late"), "it is named before it is ended"
    assert capfd.readouterr().out.count("could not start") == 2
    assert_gone([int(each.read_text()) for each in (killed, stopped)])
