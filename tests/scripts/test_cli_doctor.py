"""The doctor of a cluster behind its job server: what is found there arrives here, and what is wrong with the way."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict

import pytest
from click.testing import CliRunner
from heliostat.cluster.preflight import look
from heliostat.scripts.cli import main
from heliostat.scripts.commands.doctor import of_calls
from heliostat.trainer.preflight import wanted_for

from .child import heliostat


def test_nobody_answers_at_the_job_server():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    result = CliRunner().invoke(main, ["doctor", "--json", "--address", address])
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["findings"]
    assert (found["check"], found["state"]) == ("job server", "fail")
    assert address in found["what"]
    plain = CliRunner().invoke(main, ["doctor", "--address", address])
    assert plain.exit_code == 1
    assert plain.stdout.startswith("fail  job server   ")
    assert plain.stdout.endswith("1 fail, 0 warn, 0 ok\n")


def test_what_a_call_from_here_needs():
    here = asdict(look(wanted_for((), None)))
    assert of_calls({"driver": here}).line.startswith("ok    calls        Trainer(address=...) can be called from here")
    there = {**here, "python": ("3.9.1", "python"), "versions": {**here["versions"], "keras": "3.0.0", "ray": "1.0"}}
    found = of_calls({"driver": there})
    assert found.state == "warn"
    assert "Python is 3.9.1 there" in found.what
    assert "keras is 3.0.0 there" in found.what
    assert "ray" not in found.what


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_examines_its_cluster_for_who_reaches_nothing_else(head, tmp_path):
    done = heliostat("doctor", "--address", head.address, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    job server   Ray 2.")
    assert {line[:4] for line in lines[:-1]} <= {"ok  ", "warn"}
    for check in ("shards", "checkpoint", "all-reduce", "links", "step", "calls"):
        assert any(line.startswith(f"ok    {check}") for line in lines), lines
    assert lines[-1].startswith("0 fail")
    assert list(head.logs.glob("heliostat-doctor-*")) == []  # its links
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_token_that_is_wrong_is_found_before_a_job_is_made(head, tmp_path):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
    done = heliostat("doctor", "--json", "--address", head.address, cwd=tmp_path, **token)
    assert done.returncode == 1
    (found,) = json.loads(done.stdout)["findings"]
    assert "token" in found["what"]
