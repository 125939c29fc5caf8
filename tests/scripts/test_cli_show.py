"""`heliostat show` and `heliostat diff`: what they say of run folders, whole, damaged and of earlier versions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from heliostat.scripts.cli import main
from heliostat.scripts.commands.diff import difference
from heliostat.trainer.driver.run_folder import SAMPLES_FILE, RunFolder
from heliostat.trainer.report.recorded import RecordedRun

from ..trainer.report import made_up
from .child import environment


def heliostat(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def written(path: Path, run: RecordedRun) -> Path:
    """The run in a folder, as the trainer writes it."""
    folder = RunFolder(path, resume=False)
    folder.update(**run.record)
    folder.set_epochs(run.epochs)
    for event in run.events:
        folder.add_event(event)
    lines = "".join(json.dumps(sample.to_json()) + "\n" for sample in run.samples)
    folder.files.write(SAMPLES_FILE, lines.encode(), anew=True)
    return path


def with_loss(run: RecordedRun, epoch: int, factor: float) -> RecordedRun:
    """The run with another loss in that epoch."""
    logs = run.epochs[epoch].logs
    changed = replace(run.epochs[epoch], logs=logs | {"loss": factor * logs["loss"]})
    return replace(run, epochs=(*run.epochs[:epoch], changed, *run.epochs[epoch + 1 :]))


# -- show --------------------------------------------------------------------------------------------------------------


def test_it_says_state_verdict_metrics_workers_and_events(tmp_path):
    output = heliostat("show", written(tmp_path / "run", made_up.run()))
    for part in ("finished, 12 of 12 epochs", "verdict: ", "val_accuracy 0.9", "samples/s", "b (lost)"):
        assert part in output
    assert "lost worker 1 on b at step 83: killed by signal 9; 2 left" in output
    assert f"no report yet: heliostat show --report {tmp_path / 'run'}" in output


def test_it_fits_eighty_columns(tmp_path):
    path = written(tmp_path / "run", made_up.run())
    command = [sys.executable, "-P", "-m", "heliostat.scripts.cli", "show", str(path)]
    env = environment(COLUMNS="80", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1")
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    table = [line for line in plain.splitlines() if line.lstrip().startswith(("machine", "0 ", "1 ", "2 ", "─"))]
    assert len(table) >= 4, done.stdout + done.stderr
    assert max(map(len, table)) <= 80
    assert re.search("machine +compute +.*pace +memory", plain)
    assert plain.count("0.0 MB") == 3  # in one line each


def test_json_is_the_summary_that_the_folder_holds_after_a_report(tmp_path):
    path = written(tmp_path / "run", made_up.run())
    assert "report.html" in heliostat("show", "--report", path)
    assert json.loads(heliostat("show", "--json", path)) == json.loads((path / "summary.json").read_text())
    assert (path / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("state", ["running", "failed", "paused", "starting"])
def test_a_run_that_did_not_finish_is_shown(tmp_path, state):
    run = made_up.run(state=state, error="ValueError: no\nmore", reason="SIGTERM", seconds=None)
    output = heliostat("show", written(tmp_path / "run", replace(run, samples=(), epochs=run.epochs[:3])))
    assert f"{state}, 3 of 12 epochs" in output
    assert ("SIGTERM" if state == "paused" else "ValueError: no") in output


def test_a_run_of_which_there_is_only_its_record_is_shown(tmp_path):
    path = written(tmp_path / "run", RecordedRun(record={"state": "failed", "error": "no"}))
    assert "failed, 0 of ? epochs" in heliostat("show", path)
    assert "nothing" not in heliostat("show", "--report", path)


def test_no_run_and_a_damaged_one_are_mistakes(tmp_path):
    assert "is no run folder" in heliostat("show", tmp_path, status=1)
    (written(tmp_path / "run", made_up.run()) / "run.json").write_text("{")
    assert "run.json" in heliostat("show", tmp_path / "run", status=1)
    assert "run.json" in heliostat("diff", tmp_path / "run", tmp_path / "run", status=1)


def test_no_escape_of_a_foreign_run_folder_reaches_the_screen(tmp_path):
    evil = "\x1b]0;title\x07\x1b[2J\x9b"
    run = made_up.run(state="failed", error=evil, id=evil, versions={"keras": evil})
    run = replace(run, epochs=tuple(replace(each, logs={evil: evil}) for each in run.epochs))
    one, other = written(tmp_path / "one", run), written(tmp_path / "other", made_up.run())
    for output in (heliostat("show", one), heliostat("diff", one, other), heliostat("show", "--json", one)):
        assert not set("\x1b\x07\x9b") & set(output)


def test_they_load_neither_tensorflow_nor_ray_nor_what_draws(tmp_path):
    path = written(tmp_path / "run", made_up.run())
    code = (
        "import sys\nfrom heliostat.scripts.cli import main\n"
        f"main(['show', {str(path)!r}], standalone_mode=False)\n"
        f"main(['diff', {str(path)!r}, {str(path)!r}], standalone_mode=False)\n"
        "print([m for m in ('tensorflow', 'keras', 'ray', 'matplotlib', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


# -- diff --------------------------------------------------------------------------------------------------------------


def test_a_run_does_not_differ_from_itself(tmp_path):
    path = written(tmp_path / "run", made_up.run())
    output = heliostat("diff", path, path)
    assert "nothing differs in what run.json says of it" in output
    assert "the same in all 12 epochs that both have done, to the bit" in output
    assert "weights at the end: the same, to the bit" in output
    assert "equally fast" in output


def test_metrics_part_where_they_differ_first_and_where_by_more_than_the_tolerance():
    run = made_up.run()
    other = with_loss(with_loss(run, 4, 1 + 1e-9), 7, 1.01)
    found = difference(run, other, 1e-3)
    assert (found.first_bit.epoch, found.first_bit.metric) == (5, "loss")
    assert (found.first_beyond.epoch, found.first_beyond.metric) == (8, "loss")
    assert difference(run, other, 0.1).first_beyond is None
    assert difference(run, other, 0.0).first_beyond == found.first_bit


def test_values_that_are_no_numbers_are_compared_as_they_are():
    run = made_up.run()
    logs = [{"loss": float("nan"), "words": "a", "list": [1.0, 2.0]}, {"loss": float("nan"), "words": "b"}]
    runs = [replace(run, epochs=(replace(run.epochs[0], logs=each),)) for each in logs]
    assert difference(runs[0], runs[0], 1e-3).first_bit is None
    assert difference(*runs, 1e-3).first_beyond.metric == "words"


def test_what_differs_in_how_they_were_made_is_named(tmp_path):
    one = made_up.run()
    plan, identity = one.record["plan"], one.record["identity"]
    other = made_up.run(plan=plan | {"global_batch_size": 512}, identity=identity | {"seed": 8}, code={"step": "abc"})
    found = difference(one, other, 1e-3).settings
    assert found == {
        "plan.global_batch_size": (256, 512),
        "identity.seed": (7, 8),
        "code.step": (None, "abc"),
    }
    output = heliostat("diff", written(tmp_path / "a", one), written(tmp_path / "b", other))
    assert "identity.seed: 7 -> 8\n" in output
    assert "code.step: – -> abc\n" in output


def test_it_says_which_is_faster_and_why(tmp_path):
    slow = made_up.run()  # a worker waits for rows
    workers = {number: dict(made_up.PARTS) for number in range(3)}
    fast = replace(slow, samples=tuple(made_up.sample(step, workers) for step in range(0, 241, 5)))
    found = difference(slow, fast, 1e-3)
    assert found.samples_per_s[1] / found.samples_per_s[0] == pytest.approx(1 + 0.042 / made_up.STEP_S, rel=1e-3)
    output = heliostat("diff", written(tmp_path / "slow", slow), written(tmp_path / "fast", fast))
    assert "B is 1.43 times as fast" in output
    assert "waiting for rows: " in output
    assert "verdict on A: input-bound" in output
    as_json = json.loads(heliostat("diff", "--json", tmp_path / "slow", tmp_path / "fast"))
    assert as_json["samples_per_s"] == list(found.samples_per_s)
    assert as_json["first_bit"] is None


def test_a_run_that_has_done_nothing_can_be_compared(tmp_path):
    nothing = written(tmp_path / "nothing", RecordedRun(record=made_up.record("failed", sha256={})))
    output = heliostat("diff", nothing, written(tmp_path / "run", made_up.run()))
    assert "no epoch that both have done" in output
    assert "speed: not recorded of both" in output
