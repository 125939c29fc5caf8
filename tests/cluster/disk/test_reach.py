"""What this user's processes keep among temporary files, where anybody may have made a folder by that name."""

from __future__ import annotations

import os
import tempfile

import pytest
from heliostat.cluster.disk.reach import own_folder, scratch_of, why_not_own


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_of_ones_own_is_made_once_and_for_nobody_else(temporary):
    assert why_not_own("scratch") == ""
    assert not list(temporary.iterdir())
    folder = own_folder("scratch")
    (folder / "file").touch()
    assert own_folder("scratch") == folder == scratch_of("id").parent
    assert (folder.parent, folder.stat().st_mode & 0o777) == (temporary, 0o700)


@pytest.mark.parametrize(
    ("made_by", "why"),
    [
        ("another user", "another user's"),
        ("a link", "no folder"),
        ("a file", "no folder"),
        ("mode", "others may"),
    ],
)
def test_what_others_have_made_by_that_name_is_not_used(temporary, monkeypatch, made_by, why):
    if made_by == "another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    path = temporary / f"heliostat-{os.geteuid()}-scratch"
    if made_by == "a link":
        (temporary / "theirs").mkdir()
        path.symlink_to(temporary / "theirs")
    elif made_by == "a file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777 if made_by == "mode" else 0o700)
    assert why in why_not_own("scratch")
    with pytest.raises(PermissionError, match=why):
        scratch_of("id")
