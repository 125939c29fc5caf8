"""A process is ended only if it is the one that is meant: real processes and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from heliostat.cluster.pools.processes import end_process, open_process, start_ticks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no descriptors of processes")


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_stays_is_ended(sleeper):
    descriptor = open_process(sleeper.pid, start_ticks(sleeper.pid))
    end_process(descriptor, 0.0)
    assert sleeper.wait(60) == -signal.SIGKILL


def test_a_process_that_is_stopped_is_ended(sleeper):
    sleeper.send_signal(signal.SIGSTOP)
    end_process(open_process(sleeper.pid, start_ticks(sleeper.pid)), 0.0)
    assert sleeper.wait(60) == -signal.SIGKILL


def test_a_process_that_leaves_by_itself_gets_no_signal():
    leaver = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    descriptor = open_process(leaver.pid, start_ticks(leaver.pid))
    leaver.communicate(b"\n")
    end_process(descriptor, 60.0)
    assert leaver.returncode == 0


def test_another_process_with_the_number_is_left_alone(sleeper):
    assert open_process(sleeper.pid, start_ticks(sleeper.pid) - 1) is None, "it began at another time"
    assert open_process(sleeper.pid, 0) is None, "nobody knows when the one that is meant began"
    assert sleeper.poll() is None


def test_a_process_that_has_ended_and_that_nobody_has_asked_for_is_gone():
    gone = subprocess.Popen(["true"])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(gone.pid) == 0
    gone.wait()


def test_a_process_that_is_gone_is_not_opened():
    gone = subprocess.Popen(["true"])
    started = start_ticks(gone.pid)
    gone.wait()
    assert start_ticks(gone.pid) == 0
    assert open_process(gone.pid, started) is None
