"""A failed task becomes one error for users."""

from __future__ import annotations

import pickle

from heliostat.cluster.errors import TaskFailed
from heliostat.cluster.group.messages import Failure
from heliostat.cluster.spec import WorkerInfo
from heliostat.trainer import DataError, TrainingFailedError
from heliostat.trainer.driver.failures import explain_failure
from heliostat.trainer.errors import NonfiniteGradientError

SEEN = {worker: WorkerInfo(worker=worker, host=f"host-{worker}", pid=1) for worker in range(2)}


def test_a_death_is_explained_with_worker_host_step_and_log(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-1.log").write_text("")
    cause = Failure(worker=1, kind="died", reason="killed", step=12)
    error = explain_failure(TaskFailed(cause), SEEN, tmp_path)
    assert isinstance(error, TrainingFailedError)
    log = str(tmp_path / "logs" / "worker-1.log")
    assert (error.worker, error.host, error.step, error.log_path) == (1, "host-1", 12, log)
    assert str(error).startswith("Worker 1 on host-1 died at step 12: killed")
    assert f"Its log: {log}" in str(error)
    assert explain_failure(TaskFailed(cause), SEEN, None).log_path == ""


def test_a_users_mistake_found_on_a_worker_is_raised_as_itself():
    mistake = DataError("labels out of range")
    cause = Failure(worker=0, kind="raised", reason="DataError", error=mistake)
    assert explain_failure(TaskFailed(cause), SEEN, None) is mistake
    assert mistake.__notes__ == ["(found by worker 0 on host-0)"]


def not_finite(microbatch):
    return NonfiniteGradientError(epoch=0, step=1, num_steps=4, microbatch=microbatch)


def test_errors_keep_their_fields_when_pickled():
    error = pickle.loads(pickle.dumps(not_finite(3)))
    assert (type(error), error.microbatch) == (NonfiniteGradientError, 3)
    assert "Microbatch 3 of step 1 of epoch 1" in str(error)


def test_of_several_nonfinite_gradients_the_one_with_its_microbatch_is_raised():
    failures = [Failure(worker=w, kind="raised", reason="", error=not_finite(microbatch=w or None)) for w in range(2)]
    assert explain_failure(TaskFailed(failures[0], (failures[1],)), SEEN, None) is failures[1].error


def test_of_a_gradient_that_is_not_finite_the_command_that_looks_at_it_names_the_run(tmp_path):
    failure = Failure(worker=0, kind="raised", reason="", error=not_finite(3))
    error = explain_failure(TaskFailed(failure), SEEN, tmp_path)
    assert f"heliostat replay {tmp_path} --step 1 --microbatch 3;" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
