from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import ANY

import pytest

SCRIPT = Path(__file__).with_name("mesh_worker.py")
OPS = ("sum", "sum", "max")


def load_worker_module():
    spec = importlib.util.spec_from_file_location("mesh_worker", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start():
    """Start workers as processes and give each its task; whatever happens, none is left."""
    with contextlib.ExitStack() as stack:

        def start(num_workers, *, lengths, present, repeat=1, deadline_s=30.0, die=None, pauses=False):
            processes = []
            for _ in range(num_workers):
                process = subprocess.Popen(
                    [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                stack.enter_context(process)  # closes its pipes and waits for it
                stack.callback(process.kill)
                processes.append(process)
            addresses = [json.loads(process.stdout.readline())["address"] for process in processes]
            for rank, process in enumerate(processes):
                task = {
                    "rank": rank,
                    "addresses": addresses,
                    "generation": 7,
                    "secret": "ab" * 16,
                    "deadline_s": deadline_s,
                    "present": present,
                    "lengths": lengths,
                    "repeat": repeat,
                    "pauses": pauses,
                    **({"die": die} if die else {}),
                }
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            return processes

        yield start


def lines(process):
    return [json.loads(line) for line in process.stdout]


@pytest.mark.parametrize("num_workers", [2, 3, 4, 5])
def test_every_process_gets_the_bits_of_the_plain_recursion(start, tree_sum, num_workers):
    worker = load_worker_module()
    present = [n != 3 for n in range(8)]
    lengths = [1, 2, 1000, 300_001]
    processes = start(num_workers, lengths=lengths, present=present)
    expected = []
    for length in lengths:
        leaves = {n: worker.leaf(n, length) for n in range(8) if present[n]}
        expected.append({"length": length, "digest": worker.digest(tree_sum(leaves, OPS, 8))})
    for process in processes:
        assert lines(process) == expected
        assert process.wait() == 0


def run_until_struck(start, victim, strike, **options):
    """Let three workers sum without end, strike one in the middle, and return the survivors' last lines."""
    processes = start(3, present=[True] * 6, repeat=1_000_000, **options)
    for process in processes:
        for _ in range(3):
            assert "digest" in json.loads(process.stdout.readline())
    processes[victim].send_signal(strike)
    survivors = [process for rank, process in enumerate(processes) if rank != victim]
    last = [lines(process)[-1] for process in survivors]
    assert [process.wait() for process in survivors] == [0, 0]
    processes[victim].kill()
    assert processes[victim].wait() == -signal.SIGKILL
    return last


@pytest.mark.parametrize("length", [10, 400_000])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_worker_is_lost_on_every_survivor(start, length, victim):
    for report in run_until_struck(start, victim, signal.SIGKILL, lengths=[length]):
        assert report["error"] == "PeerError"
        assert f"lost rank {victim}: " in report["text"]


@pytest.mark.parametrize("length", [10, 400_000])
def test_a_stopped_worker_is_named_by_every_survivor_at_the_deadline(start, length):
    reports = run_until_struck(start, 1, signal.SIGSTOP, lengths=[length], deadline_s=1.0)
    assert [1] in [report["unresponsive"] for report in reports]
    for report in reports:  # who notices first says goodbye, the other one hears of it
        assert report["error"] == "PeerError"
        assert "rank 1 was silent" in report["text"]


def wait_until_asleep(process):
    while "State:\tS" not in Path(f"/proc/{process.pid}/status").read_text():
        assert process.poll() is None


def test_workers_that_stood_still_together_do_not_take_each_other_for_dead(start):
    """As when a machine is frozen for longer than the deadline and goes on: nobody could have heard anybody."""
    deadline_s = 2.0
    processes = start(3, lengths=[10], present=[True] * 3, repeat=4, deadline_s=deadline_s, pauses=True)
    for process in processes:
        assert "digest" in json.loads(process.stdout.readline())
    for process in processes[1:]:  # the first one waits for the others, who are not yet at the call
        process.send_signal(signal.SIGSTOP)
    processes[0].stdin.write("on\n")
    processes[0].stdin.flush()
    assert json.loads(processes[0].stdout.readline()) == {"calls": 1}
    wait_until_asleep(processes[0])
    processes[0].send_signal(signal.SIGSTOP)
    time.sleep(deadline_s + 1)  # the frozen time itself
    for process in processes:
        process.send_signal(signal.SIGCONT)
    for process in processes[1:]:
        process.stdin.write("on\n" * 3)
        process.stdin.flush()
    processes[0].stdin.write("on\n" * 2)
    processes[0].stdin.flush()
    for process in processes:
        assert [line for line in lines(process) if "calls" not in line] == [{"length": 10, "digest": ANY}] * 3


@pytest.mark.parametrize(
    ("where", "half_done", "count"),
    [
        ("sending", False, 1),
        ("sending", False, 8),
        ("receiving", False, 3),
        ("stage", False, 1),
        ("stage", True, 1),
        ("stage", True, 10),
        ("tell_sum", False, 1),
        ("tell_sum", True, 5),
        ("collect", False, 1),
        ("collect", True, 6),
    ],
)
def test_a_worker_killed_at_any_point_of_shared_memory_is_lost_at_once_and_leaves_nothing(
    start, where, half_done, count
):
    """Before and after it wrote, before it told: the survivors learn it from the connection, not from the deadline."""
    die = {"rank": 1, "where": where, "count": count, "half_done": half_done}
    processes = start(3, lengths=[3_000_000], present=[True] * 6, repeat=1000, deadline_s=1000.0, die=die)
    assert processes[1].wait(60) == -signal.SIGKILL
    for rank in (0, 2):
        last = lines(processes[rank])[-1]
        assert last["error"] == "PeerError"
        assert "lost rank 1: " in last["text"] or "Also closed by now: ranks 1" in last["text"]
        assert last["mappings"] == 0
        assert processes[rank].wait(60) == 0
