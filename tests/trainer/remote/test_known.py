"""What a call does in a folder that holds a handle, as far as nobody has to be asked; and what it compares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from heliostat.cluster.head.api import Head
from heliostat.cluster.preflight import Facts
from heliostat.data import DatasetWriter
from heliostat.trainer import CallError, ConfigurationError
from heliostat.trainer.columns import Columns
from heliostat.trainer.config import FitConfig
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.runs import FitCall
from heliostat.trainer.driver.trained import end_in_folder
from heliostat.trainer.remote.call import RemoteRuns
from heliostat.trainer.remote.called import decided, differences
from heliostat.trainer.remote.enclosed import Rows
from heliostat.trainer.remote.follow import Outcome
from heliostat.trainer.remote.handle import Handle
from heliostat.trainer.remote.known import ARGUMENTS, handle_in, hashes_of, step_for
from heliostat.trainer.trainer_config import TrainerConfig

from ..helpers import local_trainer
from ..models import chapter

HEAD = Head("http://127.0.0.1:1")  # nobody is there: who asks it fails
DATA = Rows(named="/data")


def call(**wanted) -> FitCall:
    return FitCall(wanted=FitConfig(**wanted), data="/data", validation_data=None, anew=False, code={"python": "3"})


def hashes(settings=None, asked=None, rows=(DATA,)):
    return hashes_of(settings or TrainerConfig(), asked or call(), rows, None)


def handle(**fields) -> Handle:
    given = {"address": HEAD.address, "submission_id": "job", "created_s": 1.0}
    given |= {"what": "call", "code": hashes(), "ended": "SUCCEEDED"}
    return Handle(**given | fields)


@pytest.mark.parametrize(
    "other",
    [
        lambda: hashes(TrainerConfig(seed=1)),
        lambda: hashes(TrainerConfig(num_microbatches=4)),
        lambda: hashes(asked=call(epochs=2)),
        lambda: hashes(asked=call(shuffle=False)),
        lambda: hashes(rows=[Rows(named="/other")]),
        lambda: hashes(rows=[DATA, DATA]),
        lambda: hashes(asked=replace(call(), anew=True)),
        lambda: hashes(asked=replace(call(initial_weights=(np.zeros(3),)), anew=True)),
    ],
)
def test_what_decides_a_result_is_hashed(other):
    assert hashes()[ARGUMENTS] == hashes()[ARGUMENTS]
    assert hashes()[ARGUMENTS] != other()[ARGUMENTS]


@pytest.mark.parametrize("settings", [{"workers": 5}, {"start_timeout_s": 3}, {"balance": False}])
def test_what_decides_nothing_is_not(settings):
    assert hashes()[ARGUMENTS] == hashes(TrainerConfig(**settings))[ARGUMENTS]


def test_a_result_that_is_here_is_taken_and_other_arguments_go_on(tmp_path):
    def step(given, wanted=None):
        return step_for(given, tmp_path, wanted or hashes(), HEAD, Display())

    assert step(handle()) == "attach"  # it has ended well, and is not here yet
    (tmp_path / "run.json").write_text('{"format_version": 3, "state": "finished"}')
    assert step(handle()) == "take"
    assert step(handle(), hashes(asked=call(epochs=2))) == "submit"
    assert step(handle(), {**hashes(), "build": "new"}) == "submit"
    assert step(handle(ended="FAILED")) == "submit"
    assert step(handle(ended="STOPPED")) == "submit"


@pytest.mark.parametrize(
    ("fields", "wanted", "said"),
    [
        ({"address": "http://other:8265"}, {}, "was submitted to http://other:8265 as a call"),
        ({"what": "script"}, {}, "as a script"),
        ({}, {"resume": False}, "leave out resume=False"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, fields, wanted, said):
    assert handle_in(tmp_path, HEAD, call()) is None
    handle().write(tmp_path)
    assert handle_in(tmp_path, HEAD, call()) == handle()
    handle(**fields).write(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        handle_in(tmp_path, HEAD, call(**wanted))


def test_what_a_cluster_lacks_is_named():
    here = Facts(
        host="laptop",
        python=("3.11.4", "/here/python"),
        versions={"keras": "3.15.1", "numpy": "2.2", "pandas": "", "cloudpickle": "3.1"},
        contents={"mine": "abc", "same": "x"},
    )
    assert differences(here, replace(here, host="head", python=("3.11.9", "/there"), heliostat=("other", "/"))) == {}
    there = Facts(
        host="head",
        python=("3.12.1", "/there/python"),
        versions={"keras": "3.14.0", "numpy": "", "pandas": "2.0", "cloudpickle": "3.1"},
        missing=("sklearn",),
        contents={"mine": "", "same": "x"},
    )
    assert differences(here, there) == {
        "Python": ("3.12.1", "3.11.4"),
        "keras": ("3.14.0", "3.15.1"),
        "numpy": ("not installed", "2.2"),
        "module sklearn": ("not installed", "installed"),
        "module mine": ("not there", "in no package"),
    }


def test_data_of_the_clusters_own_tell_the_columns_there(tmp_path):
    metadata = {"model": {"inputs": "image", "targets": "label"}}
    with DatasetWriter(tmp_path / "set", metadata=metadata) as writer:
        writer.write({"image": np.zeros((4, 2)), "label": np.arange(4), "x": np.zeros(4)})
    place, columns = str(tmp_path / "set"), Columns(sample_weight="w")  # "x" and "y", by which nobody has asked
    opened, found = decided(place, columns, ("inputs", "targets"))
    assert (found, len(opened)) == (Columns(inputs="image", targets="label", sample_weight="w"), 4)
    assert decided(place, columns, ()) == (place, columns)
    assert decided(place, Columns(inputs="x"), ("targets",))[1] == Columns(inputs="x", targets="label")
    assert decided(place, Columns(targets=None), ("inputs",))[1] == Columns(inputs="image", targets=None)


@pytest.mark.engine
def test_a_fit_is_found_in_its_folder_as_its_process_has_left_it(tmp_path):
    """What the next fit begins with: the state, and the numbers that rows and seeds come from."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 50, (20, 30)), rng.integers(0, 5, 20)
    with local_trainer(chapter, tmp_path) as trainer:
        for _ in range(2):
            trainer.fit(data, epochs=5, initial_epoch=3, global_batch_size=8, verbose=0)
            end = trainer._runs.model.end
            found = end_in_folder(end.path, end.state.prepared, None)
            same = replace(end.state, key=found.state.key)
            assert found == replace(end, state=same, begins=replace(end.begins, state=same))
            assert (found.begins.epochs, found.state.name) != (0, "")


def test_a_pass_whose_result_was_never_told_is_no_empty_result(tmp_path):
    """A job that has succeeded on a machine that is gone, with the log that held the metrics."""
    runs = RemoteRuns(TrainerConfig(workers=1), HEAD.address, "m", None)
    with pytest.raises(CallError, match=r"job has succeeded, but its log.*cannot be read"):
        runs._brought(handle(), Outcome(state="SUCCEEDED", exit_status=0), tmp_path, Display())
