"""Ray is connected to beside the program: what becomes of it when it is wanted, and when nobody wants it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import psutil
import pytest
from heliostat.cluster.pools import ray_ahead, ray_session
from heliostat.cluster.pools.ray_ahead import RayAhead, begin_ahead

from ...slow import SLOW

pytestmark = pytest.mark.ray


class Ahead(RayAhead):
    """Connects by a function; notes how often, and on which threads."""

    def __init__(self, connect: Callable[[], bool]) -> None:
        super().__init__(None, 1, None)
        self.connect, self.threads = connect, list[threading.Thread]()

    def _join(self) -> bool:
        self.threads.append(threading.current_thread())
        return self.connect()


@pytest.fixture
def left(monkeypatch):
    """How often a connection was given up; the threads of those that are made end at once."""
    found: list[None] = []
    monkeypatch.setattr(ray_session, "leave_ray", lambda: found.append(None))
    monkeypatch.setattr(ray_session, "connection_over", lambda: None)
    return found


def ended(ahead: RayAhead) -> None:
    ahead.thread.join(60 * SLOW)
    assert not ahead.thread.is_alive()


def test_what_is_wanted_is_waited_for_and_belongs_to_who_takes_it(left):
    may_connect = threading.Event()
    ahead = Ahead(lambda: may_connect.wait(60 * SLOW))
    ahead.thread.start()
    threading.Timer(0.1, may_connect.set).start()
    assert ahead.take() is True
    ahead.give_up()
    assert (ahead.threads, left) == ([ahead.thread], [])


def test_a_connection_of_the_programs_own_is_not_left(left):
    ahead = Ahead(lambda: False)
    ahead.thread.start()
    assert ahead.take() is False
    other = Ahead(lambda: False)
    other.thread.start()
    other.give_up()
    assert left == []


def test_an_error_is_raised_where_it_was_waited_for(left):
    may_fail = threading.Event()

    def fail() -> bool:
        may_fail.wait(60 * SLOW)
        raise ConnectionError("nobody answers")

    ahead = Ahead(fail)
    ahead.thread.start()
    threading.Timer(0.1, may_fail.set).start()
    with pytest.raises(ConnectionError, match="nobody answers"):
        ahead.take()
    assert ahead.threads == [ahead.thread], "who has waited does not wait twice"


def test_what_failed_before_it_was_wanted_is_tried_again(left):
    answers = iter([ConnectionError("not yet"), True])

    def connect() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ahead = Ahead(connect)
    ahead.thread.start()
    ended(ahead)
    assert ahead.take() is True
    assert ahead.threads == [ahead.thread, threading.current_thread()]


def test_what_nobody_wants_is_left_or_never_made(left):
    ahead = Ahead(lambda: True)
    ahead.thread.start()
    ended(ahead)
    ahead.give_up()
    ahead.give_up()
    assert left == [None], "once"
    never = Ahead(lambda: True)
    threading.Thread(target=never.give_up).start()
    while not never._given_up:
        pass
    never.thread.start()
    ended(never)
    assert never.threads == []


def test_a_fork_waits_for_what_is_under_way(monkeypatch, left):
    may_connect = threading.Event()
    ahead = Ahead(lambda: may_connect.wait(60 * SLOW))
    monkeypatch.setattr(ray_ahead._process, "last", ahead)
    ahead.thread.start()
    threading.Timer(0.1, may_connect.set).start()
    ray_ahead._process.before_fork()
    assert may_connect.is_set()
    ended(ahead)


def test_a_program_that_has_loaded_ray_connects_it_by_itself():
    assert "ray" in sys.modules
    assert begin_ahead(None, num_cpus=1, runtime_env=None) is None


SCRIPT = """
import signal, sys, threading, time
from heliostat.trainer import Trainer

def own(number, frame):
    sys.exit(7)

how = sys.argv[1]
if how == "own handler":
    signal.signal(signal.SIGTERM, own)
trainer = Trainer(print, workers=1)
if how != "ends":
    import ray
    while not ray.is_initialized():
        time.sleep(0.05)
    print("connected", flush=True)
if how == "closed":
    trainer.close()
    print("left:", not ray.is_initialized(), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
elif how == "collected":
    del trainer
    while ray.is_initialized():
        time.sleep(0.05)
elif how != "ends":
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("ends", 0, ""),
        pytest.param("closed", 0, "left: True True\n", marks=pytest.mark.slow),
        pytest.param("collected", 0, "", marks=pytest.mark.slow),
        pytest.param("handler", 15, "", marks=pytest.mark.slow),
        pytest.param("own handler", 7, "", marks=pytest.mark.slow),
    ],
)
def test_a_trainer_that_is_not_used_leaves_nothing_behind(how, status, said):
    given = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        env=os.environ | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        children = []
        if how != "ends":
            assert program.stdout.readline() == "connected\n"
            children = psutil.Process(program.pid).children(recursive=True)
            assert children, "Ray runs"
        if how.endswith("handler"):
            program.send_signal(signal.SIGTERM)
        out, errors = program.communicate(timeout=120 * SLOW)
    assert (program.returncode, out, errors) == (status, said, "")
    _, alive = psutil.wait_procs(children, timeout=20 * SLOW)
    assert not alive
