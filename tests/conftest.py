"""What all tests share: a hang guard, and one TensorFlow set-up for the tests that compute in this process."""

from __future__ import annotations

import os
import threading

import pytest

from .slow import WATCH_S, stretch_waits, watch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["HELIOSTAT_REPORT"] = "0"  # thousands of runs, of which nobody reads one; tests of reports want them


_STDERR = pytest.StashKey[int]()
_GONE = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[_STDERR] = os.dup(2)  # what pytest captures later is another one
    config.add_cleanup(stretch_waits())


def pytest_collection_modifyitems(config, items):
    """Mark as slow what is listed in twins.txt."""
    lines = (config.rootpath / "tests" / "twins.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)
    config.stash[_GONE] = sorted(listed - {item.nodeid for item in items})


@pytest.fixture
def gone_twins(pytestconfig):
    """Names in twins.txt that no test has, of those that were collected."""
    return pytestconfig.stash[_GONE]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    usual_s = 5 * WATCH_S if item.get_closest_marker("reach") else WATCH_S
    timer = watch(item.nodeid, item.config.stash[_STDERR], usual_s)
    try:
        return (yield)
    finally:
        timer.cancel()


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("heliostat") and t.is_alive()]
    for thread in left:
        thread.join(5)
    assert not [t for t in left if t.is_alive()], "a test left threads of Heliostat running"


@pytest.fixture(scope="session")
def ray_here():
    """One Ray for all tests that need it."""
    import ray

    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def head():
    """One head of a cluster with its job server for all tests that need it; see `ray_head.RayHead`."""
    from .ray_head import ray_head

    with ray_head() as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Whoever computes first in this process decides how TensorFlow runs in it: alike, before any fixture computes."""
    if item.get_closest_marker("engine"):
        from heliostat.trainer.engine.runtime import set_up

        set_up(replicas=8, threads=1)
