"""What a job tells of a failure is raised here as an error of the same class, with its text, stage and frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from heliostat.cluster.errors import Complaint, PreflightError
from heliostat.data.errors import DatasetNotFoundError
from heliostat.trainer.errors import (
    CallError,
    ConfigurationError,
    LeaseHeldError,
    OtherEnvironmentError,
    RunPausedError,
    TrainingFailedError,
)
from heliostat.trainer.remote.in_job import failed
from heliostat.trainer.remote.remote_errors import error_of
from heliostat.trainer.remote.wire import Failed, split, to_line

ADDRESS, THERE, HERE = "http://head:8265", "/far/away/run", Path("/here/run")


def sent(error: BaseException) -> CallError:
    """The error that is raised here for one that was raised there."""
    told = failed(error, "train", Path("/code"))
    _, message = split(to_line(told))
    assert message == told
    return error_of(message, ADDRESS, {THERE: HERE})


@pytest.mark.parametrize(
    "error",
    [
        RunPausedError("it was asked to by SIGTERM", Path(THERE), "000001-00000000.g0"),
        ConfigurationError("epochs=0; it must be at least 1."),
        LeaseHeldError(Path(THERE), {"host": "b", "pid": 7, "since": 1.0}, 3.0, 300.0),
        DatasetNotFoundError("There is no dataset at /data.", path="/data"),
        PreflightError([Complaint(host="b", what="Keras is 1", remedy="Install 3")]),
        OtherEnvironmentError("b", "/bin/python", {"keras": ("1", "3")}),
    ],
)
def test_an_error_of_ours_is_of_its_own_class_and_a_call_error(error):
    found = sent(error)
    assert isinstance(found, type(error))
    assert isinstance(found, CallError)
    assert type(found).__name__ == type(error).__name__
    assert str(error).replace(THERE, str(HERE)) in str(found)
    assert THERE not in str(found)
    assert str(found).endswith(f"(on the cluster at {ADDRESS}, stage of the call: train)")
    assert (found.stage, found.address) == ("train", ADDRESS)


def test_a_pause_has_the_folder_here_and_its_exit_status():
    found = sent(RunPausedError("max_time_s=3 is over", Path(THERE), "000001-00000000.g0"))
    assert (found.run_dir, found.checkpoint, found.exit_status) == (HERE, "000001-00000000.g0", 75)
    assert f"heliostat resume {HERE}" in str(found)


def test_a_failed_run_keeps_its_fields_and_has_the_workers_traceback_as_its_cause():
    error = TrainingFailedError(
        "raised",
        "Odd: no",
        worker=1,
        host="b",
        step=7,
        where="the script, line 3, in on_epoch_end",
        worker_traceback="Traceback (most recent call last):\n  line 3\nOdd: no\n",
        log_path=f"{THERE}/logs/worker-1.log",
        run_dir=Path(THERE),
    )
    found = sent(error)
    assert isinstance(found, TrainingFailedError)
    assert (found.kind, found.worker, found.host, found.step) == ("raised", 1, "b", 7)
    assert found.where == "the script, line 3, in on_epoch_end"
    assert (found.log_path, found.run_dir) == (f"{HERE}/logs/worker-1.log", HERE)
    assert found.class_there == "heliostat.trainer.errors.training.TrainingFailedError"
    assert "In your code: the script, line 3, in on_epoch_end." in str(found)
    assert "Traceback (most recent call last):\n  line 3\nOdd: no" in str(found.__cause__)


def test_an_error_of_others_is_told_with_its_class_and_frames():
    class NoPickleError(Exception):
        def __reduce__(self):
            raise TypeError("never")

    found = sent(NoPickleError("odd"))
    assert type(found).__name__ == "CallError"
    assert "NoPickleError: odd" in str(found)
    frames = ('  File "train.py", line 3, in <module>\n    build()',)
    found = error_of(Failed(stage="unpickle", kind="KeyError", message="'x'", frames=frames), ADDRESS, {})
    assert str(found).splitlines()[:3] == ["KeyError: 'x'", '  File "train.py", line 3, in <module>', "    build()"]


OTHERS = [
    "heliostat.trainer.errors.settings.Mapping",
    "heliostat.trainer.errors.nothing",
    "heliostat.trainer.errors.TrainerError",
    "os.system",
]


@pytest.mark.parametrize("kind", OTHERS)
def test_a_name_that_is_no_error_of_ours_becomes_none(kind):
    found = error_of(Failed(stage="start", kind=kind, message="odd"), ADDRESS, {})
    assert type(found).__mro__[1].__mro__[1] is CallError
    assert str(found).startswith(f"{kind}: odd")


def test_it_can_be_pickled():
    for error in (sent(RunPausedError("because", Path(THERE), None)), sent(KeyError("x"))):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.stage) == (type(error), str(error), "train")
