"""What goes through the port of a real head: packages, jobs, their logs, files, stops; its tokens and its end."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import signal
import sys
import threading
import time
import uuid

import pytest
from heliostat.cluster.errors import JobServerError, NoAnswerError, NoSuchJobError, PlacementError
from heliostat.cluster.head import server
from heliostat.cluster.head.api import PACKAGE_BYTES, Head
from heliostat.cluster.head.entrypoint import entrypoint
from heliostat.cluster.head.own_package import heliostat_package
from heliostat.cluster.pools.private_api import authorization
from heliostat.trainer.remote.packing import pack_folder

from ...ray_head import ray_head
from ...slow import SLOW

pytestmark = pytest.mark.ray


def submitted(here: Head, command: str, **runtime_env) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    here.submit(submission_id=name, entrypoint=command, runtime_env=runtime_env, metadata={"what": "a test"})
    return name


def ended(here: Head, name: str):
    until_s = time.monotonic() + 60 * SLOW
    while not (job := here.job(name)).is_over:
        assert time.monotonic() < until_s, job
        time.sleep(0.2)
    return job


JOB = """
import os, sys
import heliostat.cluster.head.api as api
from heliostat.cluster.pools import private_api
print("arguments", sys.argv[1:])
print("interpreter", sys.executable, os.getcwd())
print("heliostat", api.__file__)
content, missing = (private_api.package(os.environ["RAY_ADDRESS"], sys.argv[2] + end) for end in ("", "x"))
print("package", len(content), len(set(content)), missing)
node = private_api.own_node(os.environ["RAY_ADDRESS"])
print("node", node.node_id)
os.symlink(sys.argv[3], node.log_dir / sys.argv[4])
print("\\x1e{}", "größer")
sys.exit(7)
"""


def test_a_job_takes_a_package_and_gives_a_file_back_through_the_port_alone(head, tmp_path):
    """Code, Heliostat and data go up; the interpreter is the cluster's; log, exit status and a file come down."""
    here = Head(head.address)
    assert here.check().split(".")[0] == "2"
    work = tmp_path / "work"
    work.mkdir()
    (work / "user_module.py").write_text(JOB)
    code, own = here.put_all((pack_folder(work).code, heliostat_package()))
    data = here.put(random.Random(1).randbytes(3_000_000))
    assert here.put(random.Random(1).randbytes(3_000_000)) == data
    result = tmp_path / "result"
    result.mkdir()
    (result / "model.keras").write_bytes(random.Random(2).randbytes(5_000_001))
    (result / "empty").touch()
    odd = 'it\'s "$HOME" `x` \\ ü'
    line = entrypoint("user_module", odd, data, str(result), "heliostat-test-link")
    name = submitted(here, line, working_dir=code, py_modules=[own], env_vars={"RAY_JOB_STOP_WAIT_TIME_S": "60"})

    lines = list(here.log_lines(name))
    job = here.job(name)
    assert (job.state, job.exit_code, job.metadata["what"]) == ("FAILED", 7, "a test"), (job, lines)
    assert job.started_s < job.ended_s < time.time() + 1
    told = {line.split(" ")[0]: line.partition(" ")[2] for line in lines}
    assert told["arguments"] == str([odd, data, str(result), "heliostat-test-link"])
    interpreter, _, folder = told["interpreter"].partition(" ")
    assert interpreter == sys.executable
    assert "working_dir_files" in folder
    assert "py_modules_files" in told["heliostat"]
    assert told["package"] == "3000000 256 None"
    assert told["node"] == job.node_id
    assert lines[-1] == "\x1e{} größer"
    assert b"".join(here.read(job.node_id, "heliostat-test-link/model.keras")) == (result / "model.keras").read_bytes()
    assert b"".join(here.read(job.node_id, "heliostat-test-link/empty")) == b""
    for path in ("heliostat-test-link/none", "../../../etc/passwd", "/etc/passwd"):
        assert "status 500" in [read_wrong(here, job.node_id, path) for _ in range(3)]
    with pytest.raises(JobServerError, match=r"already exists"):
        here.submit(submission_id=name, entrypoint="true", runtime_env={}, metadata={})
    for ask in (here.job, here.stop, lambda name: next(here.log_lines(name))):
        with pytest.raises(NoSuchJobError, match=r"knows no job not-there"):
            ask("not-there")


def read_wrong(here, node_id, path):
    """How the server refuses a file; now and then it sends an empty one instead."""
    try:
        assert b"".join(here.read(node_id, path)) == b""
    except JobServerError as error:
        return f"status {error.status}"
    return "empty"


@pytest.mark.slow
def test_a_stop_is_a_sigterm_to_the_module_itself(head, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "waits.py").write_text(
        "import signal, sys, time\n"
        "def stop(*_):\n    print('told to stop')\n    time.sleep(5)\n    print('stopped')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\nprint('ready')\ntime.sleep(300)\n"
    )
    here = Head(head.address)
    code = here.put(pack_folder(work).code)
    name = submitted(here, entrypoint("waits"), working_dir=code, env_vars={"RAY_JOB_STOP_WAIT_TIME_S": "60"})
    lines = here.log_lines(name)
    seen = []
    for line in lines:
        seen.append(line)
        if line == "ready":
            here.stop(name)
    assert seen[-2:] == ["told to stop", "stopped"]
    assert ended(here, name).state == "STOPPED"
    here.stop(name)  # which is no error


@pytest.mark.slow
def test_a_killed_driver_is_known_by_its_status(head):
    here = Head(head.address)
    name = submitted(
        here, f"exec {shlex.quote(sys.executable)} -c 'import time; print(1, flush=True); time.sleep(300)'"
    )
    lines = here.log_lines(name)
    while next(lines) != "1":
        pass
    silent = here.log_lines(name, silent_s=0.1)
    assert [next(silent) for _ in range(3)][1:] == [None, None]
    silent.close()
    (process,) = [each for each in head.drivers() if "time.sleep(300)" in " ".join(each.cmdline())]
    os.kill(process.pid, signal.SIGKILL)
    assert list(lines) == []
    job = ended(here, name)
    assert (job.state, job.exit_code) == ("FAILED", -9)


@pytest.mark.slow
def test_a_log_that_is_no_text_comes_whole_when_the_job_is_over(head):
    """Ray's tail breaks at the first byte that is no UTF-8."""
    here = Head(head.address)
    name = submitted(here, r"printf 'one\n\377\ntwo\rthree\n'; seq 30; sleep 1; printf 'no end'")
    while True:
        lines = list(here.log_lines(name))
        if here.job(name).is_over:
            break
    # Ray writes that one when it likes.
    lines = [line for line in here.log_lines(name) if not line.startswith("Running entrypoint")]
    first = lines.index("one")
    assert lines[first : first + 4] == ["one", "\N{REPLACEMENT CHARACTER}", "two", "three"]
    assert lines[first + 4 :] == [*map(str, range(1, 31)), "no end"]


@pytest.mark.slow
def test_who_leaves_a_log_leaves_no_thread(head):
    here = Head(head.address)
    name = submitted(here, "echo here; sleep 300")
    lines = here.log_lines(name)
    while next(lines) != "here":
        pass
    began_s = time.monotonic()
    lines.close()
    assert not [each for each in threading.enumerate() if each.name == "heliostat-tail"]
    assert time.monotonic() - began_s < 60 * SLOW
    here.stop(name)
    ended(here, name)


@pytest.mark.slow
def test_tokens_that_are_missing_or_wrong_are_told_apart(head, monkeypatch):
    monkeypatch.setattr(server, "authorization", lambda: "")
    with pytest.raises(PlacementError, match=r"this machine has none .*copy that file"):
        Head(head.address).check()
    monkeypatch.setattr(server, "authorization", lambda: "Bearer wrong" + "0" * 200)
    with pytest.raises(PlacementError, match=r"it refuses this machine's.*copy that file") as caught:
        Head(head.address).check()
    assert "wrong" not in str(caught.value)
    with pytest.raises(PlacementError, match=r"http://\S+ is not the job server of a Ray cluster") as caught:
        Head(f"http://{head.gcs}").check()
    assert not isinstance(caught.value, NoAnswerError)
    assert authorization() not in str(caught.value)


@pytest.mark.slow
def test_a_package_as_large_as_they_may_be_arrives(head):
    here = Head(head.address)
    content = random.Random(5).randbytes(PACKAGE_BYTES)
    uri = here.put(content)
    assert here.put(content) == uri
    code = f"""
import hashlib, ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_del
ray.init(log_to_driver=False, logging_level="error")
print("digest", hashlib.sha256(_internal_kv_get({uri.encode()!r})).hexdigest())
_internal_kv_del({uri.encode()!r})
"""
    name = submitted(here, f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")
    assert f"digest {hashlib.sha256(content).hexdigest()}" in list(here.log_lines(name))


@pytest.mark.slow
def test_the_end_of_a_head_ends_a_log_and_is_told():
    with ray_head() as made:
        here = Head(made.address)
        name = submitted(here, "echo here; sleep 300")
        lines = here.log_lines(name)
        while next(lines) != "here":
            pass
        folder, drivers = made.folder, made.drivers()
        assert drivers
    for ask in (lambda: list(lines), lambda: here.job(name)):
        with pytest.raises(NoAnswerError):
            ask()
    assert not folder.exists()
    assert not any(each.is_running() for each in drivers)
