"""One set of machines for all tests here, brought back to what it was before each; what every test must end with."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ..slow import SLOW
from .machines import HEAD, LAPTOP, Machines, why_not

WORK = Path(__file__).parent / "work"
ROWS = pytest.StashKey[list[str]]()
TIMES = pytest.StashKey[list[str]]()
GONE_S = 20 * SLOW
RAYS_OWN = ("ray::IDLE", "ray::JobSupervisor", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
NEVER = (
    "core dumped",
    "*** SIG",
    "Fatal Python error",
    "site-packages/ray/",
    "/ray/_private",
    "A worker died or was killed",
)


def pytest_configure(config):
    config.stash[ROWS], config.stash[TIMES] = [], []


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[ROWS]:
        terminalreporter.section("machines: seconds, longest silence after the first line, exit status")
        for row in config.stash[ROWS]:
            terminalreporter.write_line(row)
    if config.stash[TIMES]:
        terminalreporter.section("machines: seconds from a command on the laptop to the first step, by part")
        for row in config.stash[TIMES]:
            terminalreporter.write_line(row)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The machines; the head and the laptop have data and a script of the user's, the others nothing."""
    if reason := why_not():
        pytest.skip(reason)
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        machines.cut(LAPTOP, *(name for name in machines.names if name != LAPTOP))
        for name in (HEAD, LAPTOP):
            machines.put(name, *WORK.glob("*.py"))
        assert machines.python(LAPTOP, "make_data.py", "/tmp/data").wait() == 0
        machines.put(HEAD, machines.disk(LAPTOP) / "data", to=".")
        yield machines


@pytest.fixture
def machines(made):
    """The machines, all there; when the test ends well nothing of a run may be left on any of them."""
    made.heal()
    for name in made.names:
        (made.disk(name) / "gate").unlink(missing_ok=True)
    yield made
    until_s = time.monotonic() + GONE_S
    while (left := left_behind(made)) and time.monotonic() < until_s:
        time.sleep(0.2)
    assert not left


@pytest.fixture
def told(request):
    """told(running): keeps a line about a command for the report, and makes sure that it was no crash.

    `but`: what Ray may say, since the test has killed a worker's process on the driver's own machine.
    """

    def tell(running, what="", but=()):
        status = running.wait()
        name = f"{request.node.name}{what and ': '}{what}"
        request.config.stash[ROWS].append(
            f"{name:70} {running.seconds:6.1f} s {running.longest_silence_s:6.1f} s  {status}"
        )
        for word in set(NEVER).difference(but):
            assert word not in running.text, running.text[-6000:]
        return running.text

    return tell


@pytest.fixture
def timed(request):
    """timed(text): keeps a line about where a command's time went, for the report."""
    return lambda text: request.config.stash[TIMES].append(f"{request.node.name:70} {text}")


@pytest.fixture(scope="session")
def undisturbed(made):
    """What one machine makes of the data, without a cluster: the laptop, with two workers of its own."""
    running = made.python(
        LAPTOP, "train.py", "--workers=2", "--run-dir=/tmp/undisturbed", "--epochs=3", "--files", "--passes"
    )
    assert running.wait() == 0, running.text[-6000:]
    return outcome(running.text)["stored"], made.disk(LAPTOP) / "undisturbed"


def outcome(text):
    """What train.py has printed at its end."""
    lines = [line for line in text.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, text[-6000:]
    return json.loads(lines[0].removeprefix("RESULT "))


def open_gates(machines):
    for name in machines.names:
        (machines.disk(name) / "gate").touch()


def left_behind(machines):
    """Processes, files in memory, tokens and scratch folders of ours, on all machines."""
    found = []
    for name in machines.names:
        for line in machines.processes(name):
            is_actor = line.startswith("ray::") and not line.startswith(RAYS_OWN)
            if is_actor or "train.py" in line:
                found.append(f"{name}: {line}")
        disk = machines.disk(name)
        if name not in machines.crashed:
            in_memory = (each for each in machines.memory_files(name) if each.startswith("heliostat"))
            found += [f"{name}: /dev/shm/{each}" for each in in_memory]
            found += [f"{name}: {path}" for path in disk.glob("heliostat-*-scratch/*")]
        found += [f"{name}: {path}" for path in disk.glob("*/.heliostat-driver")]
        found += [f"{name}: {path}" for path in disk.glob("data/*/.heliostat-driver")]
    return found
