"""``heliostat run``: like ``python script.py``, with Heliostat's errors as messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from .child import heliostat


def failed(*arguments: object, status: int = 1) -> str:
    """What a failing command says."""
    done = heliostat(*arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stderr


@pytest.fixture
def script(tmp_path):
    def write(source: str) -> Path:
        path = tmp_path / "train.py"
        path.write_text(source)
        return path

    return write


def test_run_is_like_python_script(script, tmp_path):
    (tmp_path / "neighbour.py").write_text("name = 'neighbour'\n")
    path = script(
        "import sys, neighbour, __main__\n"
        "print(__name__, sys.argv, sys.path[0], neighbour.name, __main__.__dict__ is globals())\n"
    )
    done = heliostat("run", path, "--workers", "2", "--help", "-x")
    argv = [str(path), "--workers", "2", "--help", "-x"]
    assert (done.stdout, done.stderr) == (f"__main__ {argv} {path.parent.resolve()} neighbour True\n", "")


def test_run_ends_with_the_status_of_the_script(script):
    assert heliostat("run", script("import sys; sys.exit(7)")).returncode == 7
    assert heliostat("run", script("pass")).returncode == 0


def test_run_shows_the_frames_of_the_script_and_the_message_of_an_error_of_heliostat(script):
    path = script("from heliostat.data import open_dataset\nopen_dataset('/no/such/dataset')\n")
    frame = f"  File \"{path}\", line 2, in <module>\n    open_dataset('/no/such/dataset')\n"
    message = failed("run", path)
    assert message.startswith(f"Traceback (most recent call last), of your code alone:\n{frame}DatasetNotFoundError: ")
    assert "/no/such/dataset" in message.splitlines()[3]
    assert message.endswith(f"\n(heliostat --traceback run {path} shows all of it.)\n")
    assert message.count("\n") < 8


@pytest.mark.parametrize("family", ["trainer.errors.TrainerError", "cluster.errors.ClusterError"])
def test_run_knows_the_errors_of_every_package_and_their_notes(script, family):
    module, _, name = family.rpartition(".")
    path = script(
        f"from heliostat.{module} import {name} as E\n"
        "error = E('it went wrong')\nerror.add_note('there')\nraise error\n"
    )
    assert failed("run", path) == (
        f"Traceback (most recent call last), of your code alone:\n"
        f'  File "{path}", line 4, in <module>\n'
        "    raise error\n"
        f"{name}: it went wrong\nthere\n"
        f"(heliostat --traceback run {path} shows all of it.)\n"
    )


def test_run_shows_the_tracebacks_when_asked_the_workers_too(script):
    path = script(
        "from heliostat.trainer import TrainingFailedError\n"
        "def train():\n"
        "    raise TrainingFailedError('died', 'killed', worker=1, worker_traceback='its frames')\n"
        "train()\n"
    )
    message = failed("--traceback", "run", path)
    assert f'File "{path}", line 3, in train' in message
    assert message.endswith("Traceback of worker 1:\nits frames\n")


def test_run_names_the_log_of_the_worker_once(script):
    path = script(
        "from heliostat.trainer import TrainingFailedError\n"
        "import sys\n"
        "raise TrainingFailedError(sys.argv[1], 'the cause', worker=1, log_path=sys.argv[2])\n"
    )
    for kind, message in (("raised", "raised an error"), ("died", "died before the first step")):
        said = failed("run", path, kind, "logs/worker-1.log")
        assert message in said
        assert said.count("logs/worker-1.log") == 1


def test_run_shows_the_traceback_of_another_error_from_the_script_on(script):
    path = script("def inner():\n    return {}['missing']\ninner()\n")
    lines = failed("run", path).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{path}", line 3, in <module>'
    assert lines[-1] == "KeyError: 'missing'"


def test_run_shows_where_the_syntax_of_a_script_is_wrong(script):
    path = script("x = 1\ny = (\n")
    message = failed("run", path)
    assert f'File "{path}", line 2' in message
    assert "runpy" not in message


def test_run_of_no_script_is_a_mistake_in_usage(tmp_path):
    assert "nothing.py" in failed("run", tmp_path / "nothing.py", status=2)


def test_run_hands_the_number_of_workers_to_the_script(script):
    path = script("import os, sys\nprint(os.environ.get('HELIOSTAT_WORKERS'), sys.argv[1:])\n")
    assert heliostat("run", "--workers", "3", path, "--workers", "5").stdout == "3 ['--workers', '5']\n"
    assert heliostat("run", path).stdout == "None []\n"
    assert "Invalid value for '--workers'" in failed("run", "--workers", "-1", path, status=2)
