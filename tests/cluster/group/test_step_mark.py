"""A worker's step outlives its process."""

from __future__ import annotations

import signal
import subprocess
import sys

from heliostat.cluster.group.worker_process import StepMark, take_mark

SCRIPT = """
import os, signal, sys
from heliostat.cluster.group.worker_process import StepMark
mark = StepMark(sys.argv[1])
for step in range(12346):
    mark.note(step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_step_of_a_killed_process_is_known(tmp_path):
    log_path = str(tmp_path / "worker-3.log")
    done = subprocess.run([sys.executable, "-c", SCRIPT, log_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert take_mark(log_path) == 12345
    assert list(tmp_path.iterdir()) == []


def test_no_step_and_no_mark_are_no_step(tmp_path):
    log_path = str(tmp_path / "worker-3.log")
    assert take_mark(log_path) is None
    mark = StepMark(log_path)
    assert take_mark(log_path) is None
    mark = StepMark(log_path)
    mark.note(7)
    mark.note(None)
    assert take_mark(log_path) is None
    mark.close()


def test_a_task_that_ends_leaves_no_mark(tmp_path):
    mark = StepMark(str(tmp_path / "worker-0.log"))
    mark.note(1)
    mark.close()
    assert list(tmp_path.iterdir()) == []
