"""What a command hands to a script by environment variables."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from heliostat.trainer import Trainer
from heliostat.trainer.environment import (
    WORKERS,
    Command,
    KillSchedule,
    ReplayWanted,
    TraceWanted,
    take_command,
)
from heliostat.trainer.errors import ConfigurationError, EnvironmentVariableError
from heliostat.trainer.shortened import QuickWanted, VerifyWanted

from .conftest import dense_data
from .models import linear

RUN = Path("/runs/a b")


@pytest.mark.parametrize(
    "command",
    [
        Command(run_dir=RUN),
        Command(run_dir=RUN, fit=3),
        Command(run_dir=RUN, fit=1, replay=ReplayWanted(step=0)),
        Command(run_dir=RUN, fit=1, replay=ReplayWanted(step=7, microbatch=2)),
        Command(run_dir=RUN, trace=TraceWanted(first=0, last=1)),
        Command(run_dir=RUN, kills=KillSchedule(every_s=1e-3 / 3, seed=5)),
        Command(run_dir=RUN, kills=KillSchedule(every_s=math.inf, seed=0)),
        Command(run_dir=RUN, verify=VerifyWanted(steps=4)),
        Command(run_dir=RUN, fit=1, verify=VerifyWanted(steps=4, num_microbatches=8, threads=2, kills=True)),
        Command(run_dir=RUN, fit=1, verify=VerifyWanted(steps=4, plain=True)),
        Command(run_dir=RUN, quick=QuickWanted(steps=2)),
    ],
)
def test_a_command_comes_through_the_environment_once(command):
    environ = command.variables() | {"PATH": "/bin"}
    assert take_command(environ) == command
    assert environ == {"PATH": "/bin"}
    assert take_command(environ) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HELIOSTAT_RUN_DIR", "runs/a"),
        ("HELIOSTAT_RUN_DIR", ""),
        ("HELIOSTAT_FIT", "0"),
        ("HELIOSTAT_FIT", "all"),
        ("HELIOSTAT_REPLAY", "-1"),
        ("HELIOSTAT_REPLAY", "1:"),
        ("HELIOSTAT_TRACE", "4"),
        ("HELIOSTAT_TRACE", "4:4"),
        ("HELIOSTAT_KILLS", "0:1"),
        ("HELIOSTAT_KILLS", "nan:1"),
        ("HELIOSTAT_KILLS", "1.2.3:1"),
        ("HELIOSTAT_KILLS", "30"),
        ("HELIOSTAT_VERIFY", "0"),
        ("HELIOSTAT_VERIFY", "4:8"),
        ("HELIOSTAT_VERIFY", "4:8:1:more"),
        ("HELIOSTAT_QUICK", "0"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value_and_gone(name, value):
    environ = Command(run_dir=RUN).variables() | {name: value}
    with pytest.raises(EnvironmentVariableError) as caught:
        take_command(environ)
    assert (caught.value.name, caught.value.value) == (name, value)
    assert f"{name} is {value!r}; it must be" in str(caught.value)
    assert environ == {}
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_variable_without_a_run_folder_is_refused():
    with pytest.raises(EnvironmentVariableError, match=r"HELIOSTAT_RUN_DIR is ''.*since HELIOSTAT_TRACE is set"):
        take_command({"HELIOSTAT_TRACE": "1:2"})


def test_a_command_is_checked_when_it_is_made():
    for wrong in ({"run_dir": Path("a")}, {"run_dir": RUN, "fit": 0}):
        with pytest.raises(ConfigurationError, match="run folder"):
            Command(**wrong)
    with pytest.raises(ConfigurationError, match="no steps"):
        TraceWanted(first=3, last=3)
    with pytest.raises(ConfigurationError, match="every 0 s"):
        KillSchedule(every_s=0.0, seed=1)


def test_fit_refuses_a_malformed_variable_before_anything_starts(tmp_path):
    code = (
        "import os\n"
        "from heliostat.trainer import EnvironmentVariableError, Trainer\n"
        "try:\n"
        "    Trainer(lambda: None).fit('nowhere', verbose=0)\n"
        "except EnvironmentVariableError as error:\n"
        "    print('HELIOSTAT_RUN_DIR' in os.environ, error)\n"
    )
    given = {"HELIOSTAT_FIT": "first", "HELIOSTAT_RUN_DIR": str(tmp_path / "run")}
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60)
    assert done.stdout.startswith("False "), done.stderr
    assert "HELIOSTAT_FIT is 'first'" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.engine
def test_a_named_number_of_workers_wins_over_the_scripts_and_that_is_said(monkeypatch, capsys):
    def workers_of(given: int, wanted: str | None) -> tuple[int, bool]:
        monkeypatch.delenv(WORKERS, raising=False) if wanted is None else monkeypatch.setenv(WORKERS, wanted)
        with Trainer(linear("sgd"), workers=given, in_process=given > 0, num_microbatches=4) as trainer:
            trainer.evaluate(dense_data(16), verbose=2)
            told = capsys.readouterr().out
            return len(
                trainer.hosts
            ), f"workers={wanted}, as HELIOSTAT_WORKERS (--workers) says, not the script" in told

    assert workers_of(1, "3") == (3, True)
    assert workers_of(2, None) == (2, False)
    assert workers_of(2, "") == (2, False)
    monkeypatch.setenv(WORKERS, "many")
    with pytest.raises(EnvironmentVariableError, match="HELIOSTAT_WORKERS is 'many'; it must be a number of workers"):
        Trainer(linear("sgd"))
