"""The command on this machine, by real parts: all is proved; and what is broken on purpose hides nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ...scripts.child import COMMAND, environment, heliostat

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LOOKED_AT = {"packages", "run folders", "Ray", "token", "versions", "disk", "machine", "memory", "clocks", "hardware"}
PROVED = {"network", "shards", "checkpoint", "workers", "all-reduce", "links", "step"}


def examined(folder, *arguments, start=COMMAND, **variables):
    """Exit status, findings by check (the worst of each), and the whole object; nothing may be left running."""
    env = environment(CUDA_VISIBLE_DEVICES="-1", **variables)
    command = [*start, "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    by_state = sorted(found["findings"], key=lambda each: ["ok", "warn", "fail"].index(each["state"]))
    assert done.returncode == (0 if found["is_well"] else 1)
    here = [each for each in psutil.process_iter(["cwd", "cmdline"]) if each.info["cwd"] == str(folder)]
    assert [each.info["cmdline"] for each in here] == []
    return done.returncode, {each["check"]: each for each in by_state}, found


def test_this_machine_is_a_place_to_train(tmp_path):
    status, worst, found = examined(tmp_path)
    assert {check: each for check, each in worst.items() if each["state"] == "fail"} == {}
    assert status == 0
    assert {*worst} >= LOOKED_AT | PROVED
    (link,) = found["links"]
    assert link["bytes_per_s"] > 0
    assert [each["resources"]["CPU"] > 0 for each in found["machines"]] == [True]
    assert list(tmp_path.iterdir()) == []


def test_lines_come_with_a_summary_and_a_broken_thing_hides_no_other(tmp_path):
    (tmp_path / "runs").touch()
    done = heliostat("doctor", cwd=tmp_path, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1
    *lines, summary = done.stdout.splitlines()
    (broken,) = (line for line in lines if line.startswith("fail"))
    assert broken.startswith("fail  run folders  ")
    assert "is no folder" in broken
    assert any(line.startswith("ok    step") for line in lines)
    assert summary.startswith("1 fail, ")


def test_nobody_answers_at_the_address(tmp_path):
    status, worst, found = examined(tmp_path, "--address", "127.0.0.1:1")
    assert status == 1
    assert "There is no Ray cluster at 127.0.0.1:1" in worst["Ray"]["what"]
    assert worst["packages"]["state"] == "ok"
    assert worst["proofs"]["state"] == "warn"
    assert found["machines"] == []


def test_an_address_that_is_none(tmp_path):
    _, worst, _ = examined(tmp_path, "--address", "ray://127.0.0.1:10001")
    assert "leads to a cluster from outside" in worst["Ray"]["what"]


def without(package: str, folder: Path) -> tuple[str, ...]:
    """The command of a Python that has all that is installed here but one package, and links to it in a folder."""
    folder.mkdir()
    for place in map(Path, sys.path):
        for path in place.iterdir() if place.name in ("site-packages", "ns") else ():
            if not path.name.startswith(package) and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return (COMMAND[0], "-S", *COMMAND[1:])


def test_a_package_that_is_missing_hides_nothing_else(tmp_path):
    (tmp_path / "work").mkdir()
    start = without("tensorflow", tmp_path / "packages")
    _, worst, _ = examined(tmp_path / "work", start=start, PYTHONPATH=str(tmp_path / "packages"))
    assert worst["packages"]["state"] == "fail"
    assert worst["packages"]["what"].startswith("tensorflow is not installed")
    assert worst["packages"]["remedy"] == "pip install tensorflow"
    assert {worst[check]["state"] for check in ("network", "shards", "checkpoint")} == {"ok"}
    assert "none was started" in worst["workers"]["what"]


@pytest.mark.parametrize("package", ["ray", "pyarrow"])
def test_heliostat_cannot_even_be_loaded(tmp_path, package):
    (tmp_path / "work").mkdir()
    start = without(package, tmp_path / "packages")
    status, worst, _ = examined(tmp_path / "work", start=start, PYTHONPATH=str(tmp_path / "packages"))
    assert status == 1
    assert worst["packages"]["remedy"] == f"pip install {package}"
