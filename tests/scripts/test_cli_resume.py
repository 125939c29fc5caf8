"""`heliostat resume` and `replay`, and the exit status of a pause: real runs in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from heliostat.data import write_dataset
from heliostat.scripts.cli import main
from heliostat.scripts.commands.recorded import recorded_run
from heliostat.scripts.commands.replay import check_wanted
from heliostat.scripts.errors import ScriptError
from heliostat.trainer.driver.lease import Lease
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.environment import ReplayWanted

from .child import environment, heliostat, interruptible

ROWS, BATCH, STEPS, EPOCHS, MICROBATCHES, BAD_ROW = 30, 8, 4, 10, 4, 17
SCRIPT = """
import os, signal, sys
from pathlib import Path
import keras
from heliostat.trainer import Trainer

MARKER = Path("paused").absolute()

class PausesOnce(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and not MARKER.exists():
            MARKER.touch()
            os.kill(os.getpid(), signal.SIGTERM)

def build():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model

if __name__ == "__main__":
    data, run_dir = sys.argv[1:]
    with Trainer(build, workers=0, num_microbatches=%d, threads_per_worker=1, run_dir=run_dir) as trainer:
        trainer.fit(data, validation_data="good", epochs=%d, global_batch_size=%d, callbacks=[PausesOnce()], verbose=2)
    print("the script goes on")
""" % (MICROBATCHES, EPOCHS, BATCH)  # noqa: UP031, the script has braces


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exit_code == 1, (result.output, result.exception)
    return result.stderr


def record_of(path: Path) -> dict:
    return json.loads((path / "run.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the script, a dataset, and one with a NaN."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "train.py").write_text(SCRIPT)
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    write_dataset(folder / "good", {"x": x, "y": 2 * x[:, :1]})
    broken = x.copy()
    broken[BAD_ROW, 1] = np.nan
    write_dataset(folder / "bad", {"x": broken, "y": 2 * x[:, :1]})
    return folder


@pytest.fixture(scope="module")
def paused(place) -> subprocess.CompletedProcess[str]:
    return heliostat("run", "train.py", "good", "run", cwd=place)


@pytest.fixture(scope="module")
def resumed(place, paused, tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """Resumed from another directory than the run was started in."""
    return heliostat("resume", place / "run", cwd=tmp_path_factory.mktemp("elsewhere"))


def check_pause(said: str, run: Path) -> None:
    """The last lines of a run that was paused by SIGTERM."""
    first, *others = said.strip().splitlines()[-3:]
    told = r"The run was paused: it was asked to by SIGTERM\. Its state is in checkpoint [0-9]{6}-[0-9]{8}\.g[0-9]+\. "
    assert re.fullmatch(f"{told}To go on:", first), first
    assert others == [f"  heliostat resume {run}", f"or run the same command again, with run_dir={str(run)!r}."]


@pytest.mark.engine
def test_a_paused_run_ends_with_its_message_and_status_75(place, paused):
    assert paused.returncode == 75, paused.stderr
    check_pause(paused.stderr, place / "run")
    assert "Traceback" not in paused.stderr
    assert "the script goes on" not in paused.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_a_plain_script_ends_a_pause_with_the_message_and_the_same_status(place, paused):
    """And resume, which takes the folder anew, is refused while another program has it."""
    marker, other = place / "paused", environment()
    marker.rename(place / "was paused")
    try:
        done = subprocess.run(
            [sys.executable, "train.py", "good", "plain"],
            cwd=place,
            env=other,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        (place / "was paused").replace(marker)
    assert done.returncode == 75, done.stderr
    check_pause(done.stderr, place / "plain")
    assert "Traceback" not in done.stderr
    assert "the script goes on" not in done.stdout
    with Lease(place / "plain", take_over=False):
        assert f"in use by process {os.getpid()}" in heliostat("resume", place / "plain").stderr


@pytest.mark.engine
def test_resume_goes_on_with_the_same_command_and_ends_where_an_undisturbed_run_does(place, resumed):
    assert resumed.returncode == 0, resumed.stderr
    assert "running train.py good run" in resumed.stdout
    assert "going on from checkpoint" in resumed.stdout
    assert "the script goes on" in resumed.stdout
    whole = heliostat("run", "train.py", "good", "whole", cwd=place)
    assert whole.returncode == 0, whole.stderr
    run, undisturbed = record_of(place / "run"), record_of(place / "whole")
    assert run["state"] == "finished"
    assert run["sha256"] == undisturbed["sha256"]
    assert not (place / "run-2").exists()


@pytest.mark.engine
def test_resume_of_a_finished_run_shows_its_result_and_runs_nothing(place, resumed):
    before = (place / "run" / "run.json").stat().st_mtime_ns
    result = CliRunner().invoke(main, ["resume", str(place / "run")])
    assert result.exit_code == 0, result.output
    assert f"is finished: {EPOCHS} epoch(s)" in result.output
    assert record_of(place / "run")["sha256"]["weights"][:8] in result.output
    assert "val_mae" in result.output
    assert "the script goes on" not in result.output
    assert (place / "run" / "run.json").stat().st_mtime_ns == before


@pytest.mark.engine
@pytest.mark.slow
def test_replay_shows_a_step_and_leaves_the_run_as_it_is(place, resumed):
    before = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    done = heliostat("replay", place / "run", "--step", 7, "--microbatch", 1, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["step"], found["epoch"], found["step_of_epoch"]) == (7, 1, 3)
    assert found["present"] == [0, 1, 2, 3]
    (microbatch,) = found["microbatches"]
    assert microbatch["number"] == 1
    assert len(microbatch["row_ids"]) == 2  # 6 rows are left for the last step: 1, 2, 1, 2
    assert set(microbatch["logs"]) == {"loss", "mae"}
    assert len(microbatch["norms"]) == 4
    assert microbatch["nonfinite"] == []
    values = microbatch["first_rows"]["first_values"]
    np.testing.assert_allclose(np.array(values["y"]), 2 * np.array(values["x"])[:, :1], rtol=1e-6)
    after = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    assert json.loads(after.pop(place / "run" / "replay.json"))["step"] == 3
    assert after == before


@pytest.mark.engine
@pytest.mark.slow
def test_rows_that_cannot_be_read_again_are_left_out_and_it_is_said(place, resumed):
    (place / "good").rename(place / "moved")
    script = (place / "train.py").read_text()
    moved = script.replace('trainer.fit(data, validation_data="good"', 'trainer.fit("moved", validation_data="moved"')
    (place / "train.py").write_text(moved)
    try:
        done = heliostat("replay", place / "run", "--step", 7, "--microbatch", 1, "--json", cwd=place)
    finally:
        (place / "moved").rename(place / "good")
        (place / "train.py").write_text(script)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["microbatches"][0]["first_rows"] is None
    assert len(found["microbatches"][0]["row_ids"]) == 2
    assert "The values of the rows cannot be shown:" in found["note"]


@pytest.mark.engine
@pytest.mark.slow
def test_replay_marks_what_is_not_finite_and_the_row_it_came_from(place):
    (place / "paused").touch()
    failed = heliostat("run", "train.py", "bad", "broken", cwd=place)
    assert failed.returncode == 1
    (event,) = [each for each in _events(place / "broken") if each["event"] == "nonfinite"]
    done = heliostat("replay", place / "broken", "--step", event["epoch"] * STEPS + event["step"], cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"NOT FINITE in microbatch {event['microbatch']}\n" in done.stdout
    assert done.stdout.count("NOT FINITE:") == 1
    (row,) = [line for line in done.stdout.splitlines() if "<nan>" in line]
    assert row.split()[0] == str(BAD_ROW)
    assert record_of(place / "broken")["state"] == "failed"


def _events(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


# -- what is refused before anything runs -----------------------------------------------------------------------------

RECORD = {
    "epochs": 3,
    "data": {"train": {"rows": 26, "path": "good"}},  # the last step of an epoch has 2 rows, for microbatches 1 and 3
    "identity": {
        "global_batch_size": BATCH,
        "num_microbatches": MICROBATCHES,
        "steps_per_epoch": None,
        "initial_epoch": 1,
    },
}


def test_steps_and_microbatches_that_exist_are_not_refused():
    for step, microbatch in ((4, None), (11, None), (4, 0), (7, 1), (11, 3)):
        check_wanted(RECORD, ReplayWanted(step=step, microbatch=microbatch))


@pytest.mark.parametrize(
    ("step", "microbatch", "said"),
    [
        (3, None, "no step 3: its steps are 4 to 11"),
        (12, None, "no step 12: its steps are 4 to 11"),
        (4, 4, "no microbatch 4: its steps have 4"),
        (7, 0, "Those with rows: 1, 3."),
    ],
)
def test_a_step_or_microbatch_that_does_not_exist_is_named_with_those_that_do(step, microbatch, said):
    with pytest.raises(ScriptError, match=said):
        check_wanted(RECORD, ReplayWanted(step=step, microbatch=microbatch))


@pytest.fixture
def begun(tmp_path):
    """begun(argv, **fields) -> the folder of a run that was started so."""

    def make(argv: list[str], **fields) -> Path:
        folder = RunFolder(tmp_path / "run", resume=False)
        command = {"argv": argv, "directory": str(tmp_path), "fit": 2}
        folder.update(state="failed", command=command, **fields)
        return folder.path

    return make


@pytest.mark.parametrize("argv", [["-c"], [""], [], ["-"], ["/usr/lib/ipykernel_launcher.py", "-f", "x.json"]])
@pytest.mark.parametrize("command", [["resume"], ["replay", "--step", "0"]])
def test_a_run_that_no_script_began_is_refused_with_what_to_do(begun, argv, command):
    message = refused(*command, begun(argv))
    assert "from a notebook, a prompt or python -c" in message
    assert "Trainer(run_dir=" in message


def test_a_script_that_is_gone_is_named(begun, tmp_path):
    assert str(tmp_path / "gone.py") in refused("resume", begun(["gone.py"]))


def test_a_folder_without_a_run_is_named(tmp_path):
    for command in (["resume"], ["replay", "--step", "0"]):
        assert f"{str(tmp_path)!r} is no run folder" in refused(*command, tmp_path)


def test_a_run_that_failed_before_it_began_says_how(tmp_path):
    RunFolder(tmp_path / "run", resume=False).update(state="failed", error="DataError: no column y")
    assert "DataError: no column y" in refused("resume", tmp_path / "run")


def test_the_script_is_looked_for_where_the_run_was_started(begun, tmp_path):
    (tmp_path / "train.py").write_text("")
    found = recorded_run(begun(["train.py", "--epochs", "3"]))
    assert (str(found.script), found.arguments, found.directory) == ("train.py", ("--epochs", "3"), tmp_path)
    assert found.fit == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("foreign", [".", "run.json", "../train.py"])
@pytest.mark.parametrize("command", [["resume"], ["replay", "--step", "0"]])
def test_what_another_user_wrote_is_not_run(begun, tmp_path, command, foreign):
    (tmp_path / "train.py").write_text("raise SystemExit('it was run')")
    path = begun(["train.py"])
    os.chown(path / foreign, 65534, -1)
    message = refused(*command, path)
    assert f"{str(path / foreign) if foreign == 'run.json' else ''}" in message
    assert "belongs to another user (uid 65534" in message
    assert "it was run" not in message


def test_a_command_line_with_secrets_is_not_run_without_them(begun, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('it was run')")
    path = begun(["train.py", "--token", "***"])
    record = json.loads((path / "run.json").read_text())
    record["command"]["masked"] = True
    (path / "run.json").write_text(json.dumps(record))
    message = refused("resume", path)
    assert "secrets on its command line, which are not recorded: train.py --token ***" in message
    assert "it was run" not in message


def test_a_script_that_never_comes_to_the_fit_is_an_error_and_its_status_counts(begun, tmp_path):
    (tmp_path / "train.py").write_text("print('here')")
    path = begun(["train.py"])
    assert "train.py ended without its fit number 2" in refused("resume", path)
    (tmp_path / "train.py").write_text("raise SystemExit(7)")
    assert CliRunner().invoke(main, ["resume", str(path)]).exit_code == 7


def test_signals_are_left_to_the_script(tmp_path):
    """SIGTERM is passed on; Ctrl-C is not, since a terminal sends it to the script as well."""
    (tmp_path / "train.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        "from pathlib import Path\n"
        "from heliostat.scripts.commands.run import exit_status, run_in_child\n"
        "from heliostat.trainer.environment import Command\n"
        "raise SystemExit(exit_status(run_in_child(Command(run_dir=Path('/none')), Path('train.py'), [])))"
    )
    pipes = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", code], preexec_fn=interruptible, **pipes)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(0.5)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 5
    finally:
        parent.kill()
        parent.communicate()
