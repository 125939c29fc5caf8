"""What is on the screen when nobody catches an error of ours: in a script, and in a notebook's shell."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from ...scripts.child import environment

HOOKS = {
    "of python": "",
    "of ray": "import ray",
    "of ray, behind ours": "show_errors_shortly()\nimport ray",
    "of somebody else": "sys.excepthook = lambda *_: print('theirs', file=sys.stderr)",
}
# Each is raised by a fork of its own, which ends with it.
ERRORS = {
    "ours": "DatasetError('it is no good')",
    "a pause": "RunPausedError('it was late', Path('runs/x'), None)",
    "left alone": "CallDetachedError(['The run goes on.', '  heliostat attach x'])",
    "others": "KeyError('x')",
    "chained": "DatasetError('it is no good') from OSError('the disk')",
}
SCRIPT = """import os, sys
from pathlib import Path
from heliostat.data import DatasetError
from heliostat.trainer.driver.uncaught import show_errors_shortly
from heliostat.trainer.errors import CallDetachedError, RunPausedError
{hook}
show_errors_shortly()
def train():
{raised}
for number in range({count}):
    if child := os.fork():
        print(f"status {{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}}", file=sys.stderr, flush=True)
    else:
        train()
"""
PAUSED = (
    "The run was paused: it was late. Nothing of it was saved: it had no checkpoints, or nothing was computed yet. The "
)
PAUSED += "same command begins anew."
ALONE = "The run goes on.\n  heliostat attach x"
SHORT = """Traceback (most recent call last), of your code alone:
  File "{path}", line {call}, in <module>
    train()
  File "{path}", line {line}, in train
    {source}
DatasetError: it is no good
(HELIOSTAT_TRACEBACK=1 shows all of it.)"""
LONG = """Traceback (most recent call last):
  File "{path}", line {call}, in <module>
    train()
  File "{path}", line {line}, in train
    {source}
{error}"""
CHAINED = """OSError: the disk

The above exception was the direct cause of the following exception:

"""


def script(hook):
    raised = [f"    if number == {number}:\n        raise {error}" for number, error in enumerate(ERRORS.values())]
    return SCRIPT.format(hook=hook, raised="\n".join(raised), count=len(ERRORS))


def shown(path, hook, **variables):
    """(status, text) by the names of `ERRORS`; and the numbers of lines in the script: of the call, and of `raise`."""
    path.write_text(script(hook))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env=environment(**variables), timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    found, text = [], ""
    for line in done.stderr.splitlines():
        if line.startswith("status "):
            found.append((int(line.split()[1]), text.rstrip()))
            text = ""
        else:
            text += f"{line}\n"
    lines = path.read_text().splitlines()
    places = {
        name: {
            "path": path,
            "call": lines.index("        train()") + 1,
            "line": lines.index(f"        raise {error}") + 1,
            "source": f"raise {error}",
        }
        for name, error in ERRORS.items()
    }
    return dict(zip(ERRORS, found, strict=True)), places


@pytest.mark.parametrize("name", ["of python", pytest.param("of ray", marks=pytest.mark.slow), "of ray, behind ours"])
def test_errors_of_ours_are_short_and_a_pause_is_its_message(name, tmp_path):
    found, places = shown(tmp_path / "train.py", HOOKS[name])
    assert found == {
        "ours": (1, SHORT.format(**places["ours"])),
        "a pause": (75, PAUSED),
        "left alone": (130, ALONE),
        "others": (1, LONG.format(**places["others"], error="KeyError: 'x'")),
        "chained": (1, SHORT.format(**places["chained"])),
    }


def test_where_somebody_else_shows_errors_he_shows_all_of_them(tmp_path):
    found, _ = shown(tmp_path / "train.py", HOOKS["of somebody else"])
    assert found == dict.fromkeys(ERRORS, (1, "theirs"))


def test_all_frames_are_shown_where_they_are_wanted_and_none_of_a_pause(tmp_path):
    found, places = shown(tmp_path / "train.py", "", HELIOSTAT_TRACEBACK="1")
    error = "heliostat.data.errors.DatasetError: it is no good"
    assert found == {
        "ours": (1, LONG.format(**places["ours"], error=error)),
        "a pause": (75, PAUSED),
        "left alone": (130, ALONE),
        "others": (1, LONG.format(**places["others"], error="KeyError: 'x'")),
        "chained": (1, CHAINED + LONG.format(**places["chained"], error=error)),
    }


INTERRUPTED = """import sys
from heliostat.trainer.driver.uncaught import shows_errors_shortly
def wait():
    raise KeyboardInterrupt
train = wait if sys.argv[1:] else shows_errors_shortly(wait)
shows_errors_shortly(print)()
train()
"""


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_call_of_ours_that_is_interrupted_is_short(is_ours, tmp_path):
    path = tmp_path / "train.py"
    path.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, path, *([] if is_ours else ["theirs"])],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    first, last = (
        ("Traceback (most recent call last), of your code alone:", "(HELIOSTAT_TRACEBACK=1 shows all of it.)\n")
        if is_ours
        else ("Traceback (most recent call last):", "")
    )
    assert (done.returncode, done.stderr) == (
        -signal.SIGINT,
        f'{first}\n  File "{path}", line 7, in <module>\n    train()\n  File "{path}", line 4, in wait\n'
        f"    raise KeyboardInterrupt\nKeyboardInterrupt\n{last}",
    )


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(colors="nocolor")
for cell in (
    "from heliostat.trainer import Trainer, DataError, RunPausedError\\n"
    "from pathlib import Path\\n"
    "trainer = Trainer(print, workers=0)\\n"
    "def train():\\n"
    "    raise DataError('it is no good')",
    "train()",
    "raise RunPausedError('it was late', Path('runs/x'), None)",
    "{}['x']",
):
    assert (shell.run_cell(cell, store_history=True).error_in_exec is None) == ("Trainer" in cell)
"""
IN_A_SHELL = """Traceback (most recent call last), of your code alone:
  File "<cell 2>", line 1, in <module>
    train()
  File "<cell 1>", line 5, in train
    raise DataError('it is no good')
DataError: it is no good
(%env HELIOSTAT_TRACEBACK=1 shows all of it.)
"""


def test_a_shell_of_notebooks_shows_it_shortly(tmp_path):
    path = tmp_path / "shell.py"
    path.write_text(NOTEBOOK)
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        env=environment(IPYTHONDIR=str(tmp_path)),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours, _, others = done.stdout.partition(f"{PAUSED}\n")
    assert re.sub(r"<ipython-input-(\d)-[0-9a-f]+>", r"<cell \1>", ours) == IN_A_SHELL
    assert others.splitlines()[1].startswith("KeyError ")
