"""A worker's actor without Ray: what it says while its log's disk stalls, and for how long it waits for a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

from heliostat.cluster.allreduce import awake
from heliostat.cluster.pools.ray_worker import DriverWatch

# The log is a pipe: to open it waits for a reader, and to write waits while it is full, as on storage that stalls.
SCRIPT = """
import contextlib, json, os, sys, threading, time
from types import SimpleNamespace
import ray
ray.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "here")
from heliostat.cluster.pools.ray_worker import RayWorker
from heliostat.cluster.spec import GroupSpec

log, out, go, events = sys.argv[1], os.fdopen(os.dup(1), "w"), threading.Event(), []

class Hosted:
    def work(self, job, member):
        go.wait()
        print("bye", end="")
        return "done"

def activities(until):
    found, limit_s = [], time.monotonic() + 30
    while not until(found) and time.monotonic() < limit_s:
        heartbeat = worker.heartbeat()[1]
        name = heartbeat and heartbeat.activity.value
        found += [name] if [name] != found[-1:] else []
        time.sleep(0.01)
    return found

worker = RayWorker(0)
worker.prepare(lambda slot: Hosted(), GroupSpec(num_workers=1), True)
running = threading.Thread(target=lambda: events.extend(worker.run("work", None, log)), daemon=True)
running.start()
begins = activities(lambda found: "setting up" in found)
reader, writer = (os.open(log, how | os.O_NONBLOCK) for how in (os.O_RDONLY, os.O_WRONLY))
with contextlib.suppress(BlockingIOError):
    while True:
        os.write(writer, b"x")
for each in (reader, writer):
    os.set_blocking(each, True)
go.set()
ends = activities(lambda found: "waiting for the end" in found)
running.join(30)
read = b""
while b"bye" not in read and len(read) < 1 << 20:
    read += os.read(reader, 1 << 16)
json.dump([begins, ends, [event.result for event in events], activities(lambda found: found)], out)
out.flush()
os._exit(0)
"""


def test_a_worker_whose_logs_disk_stalls_says_that_it_lives_and_tells_its_result(tmp_path):
    log = tmp_path / "worker-0.log"
    os.mkfifo(log)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}  # print() shall not wait
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, log], stdout=subprocess.PIPE, text=True, env=environ, timeout=120, check=True
    )
    begins, ends, results, after = json.loads(done.stdout)
    assert "setting up" in begins
    assert "waiting for the end" in ends
    assert (results, after) == (["done"], [None])


LOGS = """
import os, sys
from heliostat.cluster.pools.ray_worker import _log_to
print("before", flush=True)
os.write(2, b":job_id:01000000\\n:actor_name:RayWorker\\nsaid while TensorFlow was loaded\\n")
for name in ("first", "second"):
    _log_to(f"{sys.argv[1]}/{name}.log")
    print(name, flush=True)
"""


def test_the_first_log_begins_with_what_the_process_said_before(tmp_path):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "worker.err").open("wb") as errors:
        command = [sys.executable, "-c", LOGS, str(tmp_path)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, env=environ, timeout=120, check=True)
    assert (tmp_path / "first.log").read_text() == "said while TensorFlow was loaded\nfirst\n"
    assert (tmp_path / "second.log").read_text() == "second\n"


def test_time_in_which_the_workers_machine_was_frozen_is_no_absence_of_the_driver(monkeypatch):
    now_s = iter([0.0, 0.0, 0.5, 100.0, 100.5, 101.0])
    monkeypatch.setattr(awake, "time", SimpleNamespace(monotonic=lambda: next(now_s)))
    watch = DriverWatch()
    assert [watch.unheard_s() for _ in range(3)] == [0.5, 1.0, 1.5]
    watch.called()
    assert watch.unheard_s() == 0.0
