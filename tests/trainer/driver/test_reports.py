"""Reports of real runs: there when one has finished, paused or failed, anew when it goes on, and never its failure."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.driver.patient_files import PatientFiles
from heliostat.trainer.driver.reports import write_report
from heliostat.trainer.driver.run_folder import REPORT_FILE, SUMMARY_FILE
from heliostat.trainer.errors import RunPausedError, TrainingFailedError

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def reports_are_wanted(monkeypatch):
    monkeypatch.delenv("HELIOSTAT_REPORT")


def build_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    return model


def fit(run_dir: Path, *, workers: int = 0, **arguments):
    x = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
    with Trainer(build_model, workers=workers, in_process=True, run_dir=run_dir) as trainer:
        return trainer.fit(x, x.sum(1), batch_size=8, validation_split=0.25, **{"verbose": 2, "epochs": 2} | arguments)


def told(run_dir: Path) -> dict:
    """The summary of a run whose report says the same."""
    summary, page = json.loads((run_dir / SUMMARY_FILE).read_text()), (run_dir / REPORT_FILE).read_text()
    for part in (summary["run"], summary["state"], summary["verdict"]["evidence"]):
        assert part in page
    return summary


class Ends(keras.callbacks.Callback):
    """Ends the run within its second epoch, by an error."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise ValueError("enough is <enough>")


def test_a_finished_run_has_a_report_and_its_place_is_said(tmp_path, capsys):
    result = fit(tmp_path / "run", workers=2)
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'run' / REPORT_FILE}"
    found = told(tmp_path / "run")
    assert found["metrics"] == {name: values[-1] for name, values in result.history.items()}
    assert found["sha256"] == result.sha256
    assert (found["state"], found["rows"], found["epochs_done"]) == ("finished", 72, 2)
    assert [worker["worker"] for worker in found["workers"]] == [0, 1]
    page = (tmp_path / "run" / REPORT_FILE).read_text()
    assert page.count("<svg") >= 2


def test_a_failed_run_has_a_report_that_says_why_and_another_when_it_goes_on(tmp_path):
    with pytest.raises(TrainingFailedError):
        fit(tmp_path / "run", callbacks=[Ends()])
    found = told(tmp_path / "run")
    assert (found["state"], found["epochs_done"]) == ("failed", 1)
    assert "enough is <enough>" in found["problem"]
    assert "enough is &lt;enough&gt;" in (tmp_path / "run" / REPORT_FILE).read_text()
    fit(tmp_path / "run")
    assert (told(tmp_path / "run")["state"], told(tmp_path / "run")["problem"]) == ("finished", "")


def test_a_paused_run_has_a_report(tmp_path):
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunPausedError):
        fit(tmp_path / "run", epochs=100_000, callbacks=[stop])
    found = told(tmp_path / "run")
    assert (found["state"], found["epochs"]) == ("paused", 100_000)
    assert "SIGTERM" in found["problem"]
    assert found["checkpoint"]


def test_a_report_that_cannot_be_written_is_said_and_the_run_is_finished(tmp_path, capsys):
    (tmp_path / "run" / REPORT_FILE).mkdir(parents=True)
    result = fit(tmp_path / "run")
    said = capsys.readouterr().out
    assert "warning: no report of the run was written" in said
    assert f"heliostat show --report {tmp_path / 'run'}" in said
    assert json.loads((result.run_dir / "run.json").read_text())["state"] == "finished"
    (tmp_path / "run" / REPORT_FILE).rmdir()
    write_report(tmp_path / "run", PatientFiles(tmp_path / "run"))
    assert told(tmp_path / "run")["state"] == "finished"


def test_who_wants_no_reports_has_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HELIOSTAT_REPORT", "0")
    fit(tmp_path / "run", epochs=1)
    assert not {REPORT_FILE, SUMMARY_FILE} & {path.name for path in (tmp_path / "run").iterdir()}
    assert "report: " not in capsys.readouterr().out


def test_mistakes_that_are_found_before_a_run_begins_leave_no_report(tmp_path):
    with pytest.raises(Exception, match="batch_size"):
        fit(tmp_path / "run", batch_size=0)
    assert not (tmp_path / "run").exists()
