"""What is compared before anything is loaded on a worker's machine, and the one message that tells of it."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace

import pytest
from heliostat.cluster.errors import Complaint, PreflightError
from heliostat.cluster.preflight import (
    CACHE,
    TEMPORARY,
    Facts,
    Wanted,
    answered,
    asked,
    complaints_of,
    digest_of,
    facts_of,
    look,
    module_files,
)

WANTED = Wanted(
    packages={"numpy": ("numpy",), "tensorflow": ("no-such-tensorflow", "tensorflow")},
    modules=("numpy", "nothing_of_that_name"),
    contents=("mine",),
    folders=(CACHE,),
    room_bytes=10**6,
    memory_bytes=10**6,
)
HERE = Facts(
    host="driver",
    python=("3.11.7", "/env/bin/python"),
    heliostat=("a" * 64, "/env/heliostat"),
    versions={"keras": "3.15.1"},
    contents={"mine": "1"},
    room={"~": 10**9},
    memory_bytes=10**9,
)


def test_a_process_finds_what_it_is_asked_for_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise RuntimeError('this is not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = facts_of(answered(asked(WANTED)))
    assert found == replace(look(WANTED), memory_bytes=found.memory_bytes, room=found.room)
    assert found.missing == ("nothing_of_that_name",)
    assert found.versions["numpy"] == sys.modules["numpy"].__version__
    assert found.versions["tensorflow"]
    assert found.contents["mine"] == digest_of([tmp_path / "mine.py"])
    assert len(found.heliostat[0]) == 64
    assert found.room[CACHE] > 0
    assert found.memory_bytes > 0
    assert complaints_of(WANTED, found, found) == ()


def test_room_is_looked_for_where_the_cache_and_what_a_run_keeps_will_be(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("OF_THE_USER", f"{tmp_path}/not/yet/there")
    asks = Wanted(folders=(CACHE, TEMPORARY), homes=("$NOT_SET", "/dev/null/home", "$OF_THE_USER"))
    assert all(isinstance(room, int) and room > 0 for room in look(asks).room.values())
    scratch = tmp_path / f"heliostat-{os.geteuid()}-scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    assert look(asks).room[TEMPORARY] == "others may write to it"
    (complaint,) = complaints_of(asks, HERE, replace(HERE, room=look(asks).room))
    assert "nothing can be written in temporary files: others may write to it" in complaint.what
    assert "TMPDIR" in complaint.remedy
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    assert look(replace(asks, homes=("/dev/null/home",))).room[CACHE] == "/dev/null is no folder"


def test_a_question_of_a_later_version_is_answered_as_far_as_it_is_known():
    assert facts_of(answered(b'{"packages": {}, "colour": "blue"}')).host


@pytest.mark.parametrize(
    ("there", "word"),
    [
        ({"python": ("3.12.1", "/usr/bin/python3")}, "Python is 3.12.1"),
        ({"versions": {"keras": "3.14.0"}}, "keras is 3.14.0, the driver's is 3.15.1"),
        ({"versions": {}}, "keras is not installed"),
        ({"heliostat": ("b" * 64, "/other")}, "Heliostat in /other has other files"),
        ({"missing": ("scipy",)}, "the module 'scipy'"),
        ({"contents": {"mine": "2"}}, "the module 'mine', which is installed nowhere, has other contents"),
        ({"contents": {}}, "the module 'mine', which is installed nowhere, is not there"),
        ({"room": {"~": 5}}, "the disk of ~ has 0 MB left"),
        ({"room": {"~": "/root is read-only"}}, "nothing can be written in ~: /root is read-only"),
        ({"memory_bytes": 5}, "0 MB of memory are free"),
    ],
)
def test_every_difference_is_one_complaint_with_its_remedy(there, word):
    complaint, *more = complaints_of(WANTED, HERE, replace(HERE, host="c", **there))
    assert (complaint.host, more) == ("c", [])
    assert word in complaint.what
    assert complaint.remedy


def test_what_the_driver_itself_lacks_is_asked_of_nobody():
    here = replace(HERE, versions={"keras": ""}, missing=("scipy",))
    assert complaints_of(WANTED, here, replace(here, versions={"keras": "3.15.1"})) == ()


def test_a_package_is_its_files_wherever_it_lies(tmp_path, monkeypatch):
    digests = []
    for place in ("one", "other"):
        package = tmp_path / place / "parts_of_mine"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "layers.py").write_text("WIDTH = 3")
        (package / "notes.txt").write_text(place)  # is no code
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / place)
            digests.append(digest_of(module_files("parts_of_mine")))
    assert digests[0] == digests[1] != digest_of([tmp_path / "one" / "parts_of_mine" / "__init__.py"])


def test_one_message_names_what_is_wrong_on_several_machines_once():
    keras = [Complaint(host=host, what="keras is 3.14.0", remedy="Install it") for host in ("b", "c", "c")]
    room = Complaint(host="c", what="the disk is full", remedy="Free some")
    error = PreflightError.of_all([PreflightError(keras), PreflightError([room])])
    assert str(error).splitlines()[1:] == ["  b, c: keras is 3.14.0. Install it.", "  c: the disk is full. Free some."]
    assert "2 things are not right on 2 machine(s)" in str(error)
    assert error.complaints == (keras[0], keras[1], room)
    assert "\n" not in str(PreflightError([room]))
