"""What is wanted of workers' machines, from the modules that the code names; and the import of them."""

from __future__ import annotations

import sys

import pytest
from heliostat.cluster.errors import PreflightError
from heliostat.trainer.preflight import PACKAGES, import_all, luggage_of, wanted_for
from heliostat.trainer.source import source_of


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for path, text in {
        folder / "mine.py": "import json\nimport parts.layers\nfrom elsewhere_of_mine import thing",
        folder / "parts" / "__init__.py": "try:\n    import nothing_of_that_name\nexcept ImportError:\n    pass",
        folder / "parts" / "layers.py": "from . import base\nimport keras, msgspec",
        folder / "parts" / "base.py": "import xxhash\ndef later():\n    import click",
        folder / "other.py": "import rich",
        elsewhere / "elsewhere_of_mine.py": "thing = 1",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(elsewhere)
    return folder


def test_what_travels_is_looked_into_and_what_it_may_do_without_is_not_wanted(project):
    wanted = wanted_for(["mine", "heliostat.data", "builtins"], source_of(project))
    assert wanted.modules == ("msgspec", "xxhash")
    assert wanted.contents == ("elsewhere_of_mine",)
    assert set(wanted.packages) == {*PACKAGES, "msgspec", "xxhash"}
    assert wanted.room_bytes > 0


def test_a_package_may_have_another_name_than_its_module_or_share_it_with_others():
    assert wanted_for(["yaml"], None).packages["yaml"] == ("PyYAML",)
    shared = wanted_for(["google.protobuf.message"], None)
    assert "google" in shared.modules
    assert "google" not in shared.packages


def test_all_that_cannot_be_imported_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "raises_at_once.py").write_text("raise OSError('libmine.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    import_all(["json"])
    with pytest.raises(PreflightError) as raised:
        import_all(["raises_at_once", "not_there_at_all", "json"])
    assert "OSError: libmine.so.1: cannot open shared object file" in str(raised.value)
    assert "No module named 'not_there_at_all'" in str(raised.value)


def test_luggage_is_unpacked_before_the_code_needs_it(project, monkeypatch):
    monkeypatch.setattr("heliostat.trainer.source.script_folder", lambda: project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    luggage = luggage_of([{"a value": 1}])
    luggage.unpack()
    assert sys.path[0] == str(project)
