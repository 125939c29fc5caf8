"""A link in place of the run folder: where nothing lies, led elsewhere, and gone with all that was made for it."""

from __future__ import annotations

import pytest
from heliostat.cluster.disk.stand_in import NOTE, remove_stand_ins, stand_in


@pytest.fixture
def place(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "scratch" / name).mkdir(parents=True)
    return tmp_path


def test_a_link_is_put_led_elsewhere_and_removed_with_the_folders_made_for_it(place):
    path, scratch = place / "home" / "runs" / "one", place / "scratch"
    assert stand_in(str(path), scratch / "first")
    (path / "file").write_text("1")
    assert (scratch / "first" / "file").exists()
    assert stand_in(str(path), scratch / "second")  # another chief on this machine
    assert path.resolve() == scratch / "second"
    assert {each.name for each in path.parent.iterdir()} == {"one"}
    remove_stand_ins(place / "scratch")
    assert not (place / "home").exists()
    assert not (place / "scratch" / NOTE).exists()
    remove_stand_ins(place / "scratch")  # once more is no mistake


def test_folders_that_others_use_stay(place):
    path = place / "home" / "runs" / "one"
    assert stand_in(str(path), place / "scratch" / "first")
    (place / "home" / "other").write_text("somebody's")
    remove_stand_ins(place / "scratch")
    assert [each.name for each in (place / "home").iterdir()] == ["other"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "link to nothing"])
def test_what_lies_there_stays(place, kind):
    path = place / "one"
    match kind:
        case "folder":
            path.mkdir()
        case "file":
            path.write_text("1")
        case "link":
            path.symlink_to(place)
        case "link to nothing":
            path.symlink_to(place / "nowhere")
    before = path.lstat()
    assert not stand_in(str(path), place / "scratch" / "first")
    assert path.lstat().st_ino == before.st_ino
    remove_stand_ins(place / "scratch")
    assert path.lstat().st_ino == before.st_ino


def test_where_nothing_may_be_made_there_is_no_link_and_no_rest(place):
    (place / "file").write_text("1")
    assert not stand_in(str(place / "file" / "one"), place / "scratch" / "first")
    assert not (place / "scratch" / NOTE).exists()
