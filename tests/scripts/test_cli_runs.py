"""`heliostat runs`: what it makes of run folders, whole and damaged ones."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from heliostat.scripts.cli import main
from heliostat.scripts.commands.runs import SILENT_S, run_paths, summary_of
from heliostat.trainer.driver.run_folder import RunFolder
from heliostat.trainer.events import CheckpointCommitted, EpochRecord, WorkerLost

from .child import environment


def epoch(number: int, **logs: float) -> EpochRecord:
    return EpochRecord(epoch=number, logs=logs, rows=8, rows_by_worker={}, seconds_by_worker={})


def checkpoint(name: str, number: int) -> CheckpointCommitted:
    return CheckpointCommitted(name=name, epoch=number, step=0, seconds=0.0, write_s=0.0)


def heliostat(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def objects(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in heliostat("runs", "--json", *arguments).splitlines()]


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, state, ...) -> a folder as the trainer writes it, two epochs in."""

    def make(name: str, state: str = "running", workers: int = 2, **fields) -> Path:
        folder = RunFolder(tmp_path / name, resume=False)
        hosts = [{"worker": number, "host": "a", "pid": 1} for number in range(max(1, workers))]
        folder.update(state=state, epochs=5, plan={"workers": workers}, workers=hosts, **fields)
        folder.add_epoch(epoch(0, loss=2.0))
        folder.add_epoch(epoch(1, loss=float("nan"), val_loss=1.5, val_mae=0.25))
        folder.add_event(checkpoint("000001-00000000.g0", 1))
        folder.add_event(WorkerLost(worker=1, host="a", step=3, reason="killed", left=1))
        folder.add_event(checkpoint("000002-00000000.g1", 2))
        return folder.path

    return make


def write_long_ago(path: Path) -> None:
    then = time.time() - SILENT_S - 3600
    for each in path.iterdir():
        if each.is_file():
            os.utime(each, (then, then))


def test_json_has_what_the_folder_tells(make_run, tmp_path):
    make_run("one")
    (found,) = objects(tmp_path)
    assert found.pop("last_wrote_s") == pytest.approx(time.time(), abs=60)
    assert found == {
        "path": str(tmp_path / "one"),
        "state": "running",
        "epochs_done": 2,
        "epochs": 5,
        "logs": {"loss": "NaN", "val_loss": 1.5, "val_mae": 0.25},
        "num_workers": 2,
        "num_lost": 1,
        "checkpoint": "000002-00000000.g1",
        "problem": "",
        "damaged": [],
    }


def test_the_table_shows_every_run_and_the_last_to_write_comes_last(make_run, tmp_path):
    write_long_ago(make_run("old", "finished", workers=0))
    make_run("new", "paused", reason="SIGTERM")
    output = heliostat("runs", tmp_path)
    assert output.index("old") < output.index("new")
    for part in ("finished", "paused", "2 of 5", "nan", "val_mae 0.25", "000002-00000000.g1", "70 min ago", "SIGTERM"):
        assert part in output
    assert [each["num_workers"] for each in objects(tmp_path)] == [0, 2]


def test_a_silent_run_cannot_be_told_from_a_dead_one_and_that_is_said(make_run, tmp_path):
    path = make_run("one")
    assert "running?" not in heliostat("runs", tmp_path)
    write_long_ago(path)
    output = heliostat("runs", tmp_path)
    assert "running?:" in output
    assert "heliostat resume" in output


def test_a_finished_run_is_never_in_doubt(make_run, tmp_path):
    write_long_ago(make_run("one", "finished"))
    assert "?" not in heliostat("runs", tmp_path)


def test_runs_are_found_in_a_folder_one_level_below_and_where_the_folder_is_one(make_run, tmp_path):
    for name in ("one", "demo/run", "demo/run-2", "too/deep/run"):
        make_run(name)
    assert {path.relative_to(tmp_path).as_posix() for path in run_paths(tmp_path)} == {"one", "demo/run", "demo/run-2"}
    assert list(run_paths(tmp_path / "one")) == [tmp_path / "one"]
    assert len(objects(tmp_path, tmp_path / "one", tmp_path / "too")) == 4


def test_the_default_is_the_folder_runs_and_no_runs_are_no_error(make_run, tmp_path):
    with contextlib.chdir(tmp_path):
        assert "No runs in runs" in heliostat("runs")
        assert objects() == []
        make_run("runs/one")
        assert [each["path"] for each in objects()] == ["runs/one"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"format_version": 99}'),
        ("run.json", '{"format_version": 3}'),
        ("run.json", "[" * 100_000),
        ("run.json", '{"format_version": 3, "state": "running", "identity": 5}'),
        ("metrics.jsonl", "no json\n{}\n"),
        ("metrics.jsonl", '{"loss": 1}\n'),
    ],
)
def test_a_damaged_run_is_named_and_hides_no_other(make_run, tmp_path, name, content):
    make_run("whole")
    (make_run("damaged") / name).write_text(content)
    by_name = {Path(each["path"]).name: each for each in objects(tmp_path)}
    assert by_name["whole"]["state"] == "running"
    assert by_name["damaged"]["state"] == "unreadable"
    assert by_name["damaged"]["problem"]
    output = heliostat("runs", tmp_path)
    assert "unreadable" in output
    assert by_name["damaged"]["problem"].splitlines()[0] in output


def test_a_line_that_is_being_written_is_left_out(make_run):
    path = make_run("one")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert summary_of(path).epochs_done == 2


def test_damaged_lines_are_left_out_counted_and_said(make_run, tmp_path):
    path = make_run("one")
    with (path / "events.jsonl").open("a") as file:
        file.write('{"time": 1}\nno json\n\x1b\xff\n{"time": 1, "ev')
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    (found,) = objects(tmp_path)
    assert (found["state"], found["epochs_done"], found["num_lost"]) == ("running", 2, 1)
    assert [line.split(" ", 1)[1] for line in found["damaged"]][:1] == [
        "line 4 is not what Heliostat writes: there is no event None"
    ]
    assert len(found["damaged"]) == 3
    assert f"3 damaged line(s) left out: {path / 'events.jsonl'}, line 4" in heliostat("runs", tmp_path)


def test_no_escape_of_a_foreign_run_folder_reaches_the_screen(make_run, tmp_path):
    evil = "\x1b]0;title\x07\x1b[2J\x9b"
    path = make_run(f"run{evil}", state=f"running{evil}", error=evil)
    (path / "events.jsonl").write_text(json.dumps({"time": 1, "event": evil}) + "\n")
    make_run("failed", "failed", error=f"Error: {evil}")
    with (tmp_path / "failed" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**epoch(2).to_json(), "logs": {"loss": evil, f"val_{evil}": evil}}) + "\n")
    for output in (heliostat("runs", tmp_path), heliostat("runs", "--json", tmp_path)):
        assert not set("\x1b\x07\x9b") & set(output)
    assert r"\x1b]0;title" in heliostat("runs", tmp_path)


def test_a_uri_is_no_folder_of_this_machine(tmp_path):
    for command in (["runs", "s3://bucket/runs"], ["demo", "--run-dir", "s3://bucket/run"]):
        result = CliRunner().invoke(main, command, prog_name="heliostat")
        assert result.exit_code == 2
        assert "is a URI" in result.output


def test_a_failed_run_says_why(make_run, tmp_path):
    make_run("one", "failed", error="TrainingFailedError: worker 1 died\nmore")
    assert "one: TrainingFailedError: worker 1 died\n" in heliostat("runs", tmp_path)


def test_it_loads_neither_tensorflow_nor_ray(make_run, tmp_path):
    make_run("one")
    code = (
        "import sys\nfrom heliostat.scripts.cli import main\n"
        f"main(['runs', {str(tmp_path)!r}], standalone_mode=False)\n"
        "print([m for m in ('tensorflow', 'keras', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path):
    result = CliRunner().invoke(main, ["runs", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
