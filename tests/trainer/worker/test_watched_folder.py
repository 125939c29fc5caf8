"""A folder is looked at again and again: a copy that does what is said is like it, and little travels."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from heliostat.cluster.disk.served import PIECE_BYTES
from heliostat.trainer.worker.watched_folder import Change, WatchedFolder

LONG_AGO = time.time() - 3600


@pytest.fixture
def root(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def said(root, tmp_path):
    """said() -> what has changed as (kind, path, at, bytes); afterwards a copy that did it must be like the folder."""
    watched = WatchedFolder(root)
    copy = tmp_path / "copy"
    copy.mkdir()

    def look():
        found = [do(copy, change) for change in watched.changes()]
        watched.keep()
        assert content(copy) == content(root)
        return found

    return look


def do(copy: Path, change: Change) -> tuple:
    path, raw = copy / change.path, b"".join(change.pieces)
    assert len(raw) == change.size
    match change.kind:
        case "folder":
            path.mkdir()
        case "gone":
            path.rmdir() if path.is_dir() else path.unlink()
        case "file":
            with path.open("r+b" if change.at else "wb") as file:
                assert file.seek(0, os.SEEK_END) == change.at
                file.write(raw)
    return change.kind, change.path, change.at, raw


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.exists()
    }


def age(path: Path) -> None:
    """Let a file look as if nobody had touched it for long; the time of its change is the kernel's."""
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_of_a_file_that_grows_only_the_new_rows_travel(root, said):
    (root / "log.csv").write_text("epoch,loss\n")
    assert said() == [("file", "log.csv", 0, b"epoch,loss\n")]
    assert said() == []
    with (root / "log.csv").open("a") as file:
        file.write("0,0.5\n")
    assert said() == [("file", "log.csv", 11, b"0,0.5\n")]
    assert said() == []


def test_a_file_that_is_written_anew_travels_whole_however_it_is_done(root, said):
    path = root / "best.keras"
    path.write_bytes(b"old")
    said()
    path.write_bytes(b"newer and longer")  # the same file on the disk
    assert said() == [("file", "best.keras", 0, b"newer and longer")]
    (root / "other").write_bytes(b"replaced")
    (root / "other").replace(path)
    assert said() == [("file", "best.keras", 0, b"replaced")]
    path.write_bytes(b"")
    assert said() == [("file", "best.keras", 0, b"")]
    path.write_bytes(b"from nothing")
    assert said() == [("file", "best.keras", 0, b"from nothing")]


def test_a_change_of_the_same_length_within_the_steps_of_the_clock_is_seen(root, said):
    path = root / "state"
    for number in range(20):
        path.write_bytes(b"%02d" % number)
        about = path.stat()
        assert said() == [("file", "state", 0, b"%02d" % number)]
        assert path.stat().st_mtime_ns == about.st_mtime_ns


def test_a_file_that_was_only_touched_does_not_travel(root, said):
    path = root / "state"
    path.write_bytes(b"as it was")
    said()
    age(path)
    assert said() == []
    (root / "copy").write_bytes(b"as it was")
    (root / "copy").replace(path)
    assert said() == []


def test_folders_and_what_is_gone_are_done_in_an_order_in_which_they_can_be(root, said):
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("1")
    (root / "empty").mkdir()
    assert [each[:2] for each in said()] == [
        ("folder", "a"),
        ("folder", "a/b"),
        ("folder", "empty"),
        ("file", "a/b/file"),
    ]
    shutil.rmtree(root / "a")
    (root / "a").write_text("a file now")
    (root / "empty").rmdir()
    assert [each[:2] for each in said()] == [
        ("gone", "a/b/file"),
        ("gone", "empty"),
        ("gone", "a/b"),
        ("gone", "a"),
        ("file", "a"),
    ]


def test_what_could_not_be_sent_is_found_again(root, tmp_path):
    watched = WatchedFolder(root)
    (root / "one").write_text("1")
    for _ in range(2):
        assert [change.path for change in watched.changes()] == ["one"]  # without keep()
    list(watched.changes())
    for change in watched.changes():
        b"".join(change.pieces)
    watched.keep()
    assert list(watched.changes()) == []
    watched.forget("one")
    assert [(change.path, change.at) for change in watched.changes()] == [("one", 0)]


def test_links_to_files_are_followed_and_what_cannot_be_copied_is_left_out_with_the_reason(root):
    watched = WatchedFolder(root, lambda path: "the run's own" if path == "run.json" else "")
    (root / "file").write_text("1")
    (root / "latest").symlink_to("file")
    (root / "to_nothing").symlink_to("nowhere")
    (root / "up").symlink_to("..")
    (root / "itself").symlink_to("itself")
    os.mkfifo(root / "pipe")
    (root / "run.json").write_text("{}")
    (root / os.fsdecode(b"\xff")).write_text("1")
    found = {change.path: b"".join(change.pieces) for change in watched.changes()}
    assert found == {"file": b"1", "latest": b"1"}
    assert watched.left_out == {
        "up": "it is a link to a folder",
        "pipe": "it is no file",
        "itself": "it cannot be looked at: Too many levels of symbolic links",
        "run.json": "the run's own",
        os.fsdecode(b"\xff"): "its name is no UTF-8",
    }


def test_a_large_file_comes_in_pieces(root):
    watched = WatchedFolder(root)
    with (root / "large").open("wb") as file:
        file.truncate(2 * PIECE_BYTES + 5)
    (change,) = (list(each.pieces) for each in watched.changes())
    assert [len(piece) for piece in change] == [PIECE_BYTES, PIECE_BYTES, 5]
