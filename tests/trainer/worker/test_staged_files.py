"""Changes wait beside their place until they count, and can be done twice, from wherever somebody was stopped."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.driver_files import filesystem
from heliostat.cluster.disk.served import Root
from heliostat.trainer.worker import staged_files
from heliostat.trainer.worker.staged_files import STAGING, StagedFiles
from heliostat.trainer.worker.watched_folder import WatchedFolder

from .test_watched_folder import content


class Stopped(Exception):
    """Stands for the death of a chief."""


class StopsAt(pafs.FileSystemHandler):
    """The local file system for somebody who dies before the call of this number that changes something."""

    def __init__(self, number: int) -> None:
        self._local, self._left = pafs.LocalFileSystem(), number

    def _changes(self) -> None:
        if not self._left:
            raise Stopped
        self._left -= 1

    def get_file_info(self, paths):
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self._local.get_file_info(selector)

    def open_input_stream(self, path):
        return self._local.open_input_stream(path, compression=None)

    def open_output_stream(self, path, metadata):
        self._changes()
        return self._local.open_output_stream(path, compression=None)

    def open_append_stream(self, path, metadata):
        self._changes()
        return self._local.open_append_stream(path, compression=None)

    def create_dir(self, path, recursive):
        self._changes()
        self._local.create_dir(path, recursive=recursive)

    def delete_file(self, path):
        self._changes()
        self._local.delete_file(path)

    def delete_dir(self, path):
        self._changes()
        self._local.delete_dir(path)

    def move(self, path, to):
        self._changes()
        self._local.move(path, to)

    def open_input_file(self, path):
        raise NotImplementedError

    def copy_file(self, path, to):
        raise NotImplementedError

    def delete_dir_contents(self, path, missing_dir_ok=False):
        raise NotImplementedError

    def delete_root_dir_contents(self):
        raise NotImplementedError

    def get_type_name(self):
        return "stops"

    def normalize_path(self, path):
        return path


class Chief:
    """A folder of callbacks' files, and the run folder that it goes to."""

    def __init__(self, folder: Path, run_dir: Path, filesystem: pafs.FileSystem | None = None) -> None:
        folder.mkdir(exist_ok=True)
        run_dir.mkdir(exist_ok=True)
        self.folder, self.run_dir = folder, run_dir
        self.watched = WatchedFolder(folder)
        self.staged = StagedFiles(filesystem or pafs.LocalFileSystem(), str(run_dir))

    def stage(self, version: int) -> bool:
        found = self.staged.stage(version, self.watched.changes())
        self.watched.keep()
        return found


@pytest.fixture
def chief(tmp_path):
    return Chief(tmp_path / "scratch", tmp_path / "run")


def first_writes(folder: Path) -> None:
    (folder / "log.csv").write_text("epoch\n0\n")
    (folder / "best.keras").write_bytes(b"first")
    (folder / "old.txt").write_text("goes")
    (folder / "plots" / "inner").mkdir(parents=True)
    (folder / "plots" / "inner" / "0.png").write_bytes(b"png")


def second_writes(folder: Path) -> None:
    with (folder / "log.csv").open("a") as file:
        file.write("1\n")
    (folder / "best.keras").write_bytes(b"second, which is better")
    (folder / "old.txt").unlink()
    (folder / "plots" / "inner" / "0.png").unlink()
    (folder / "plots" / "inner").rmdir()
    (folder / "notes").mkdir()


def test_nothing_counts_before_it_is_taken_in(chief):
    first_writes(chief.folder)
    assert chief.stage(5)
    assert not chief.stage(6)  # nothing has changed
    assert set(content(chief.run_dir)) == {STAGING, f"{STAGING}/{5:016x}"}
    chief.staged.take_in(4)
    assert set(content(chief.run_dir)) == {STAGING, f"{STAGING}/{5:016x}"}
    chief.staged.take_in(6)
    chief.staged.clear()
    assert content(chief.run_dir) == content(chief.folder)
    chief.staged.clear()  # once more is no mistake


def test_a_new_chief_takes_in_what_it_has_heard_of_and_drops_the_rest(chief, tmp_path):
    first_writes(chief.folder)
    chief.stage(5)
    before = content(chief.folder)
    second_writes(chief.folder)
    chief.stage(6)
    other = StagedFiles(pafs.LocalFileSystem(), str(chief.run_dir))
    assert other.take_in(5) == []
    other.clear()
    assert content(chief.run_dir) == before
    (tmp_path / "elsewhere").mkdir()
    other.fetch(tmp_path / "elsewhere", lambda path: "")
    assert content(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("inline", [staged_files.INLINE_BYTES, 0])
def test_who_is_stopped_anywhere_in_taking_in_leaves_what_the_next_one_completes(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(staged_files, "INLINE_BYTES", inline)
    for number in range(100):
        place = tmp_path / str(number)
        place.mkdir()
        chief = Chief(place / "scratch", place / "run")
        first_writes(chief.folder)
        chief.stage(1)
        chief.staged.take_in(1)
        second_writes(chief.folder)
        chief.stage(2)
        stopped = StagedFiles(pafs.PyFileSystem(StopsAt(number)), str(chief.run_dir))
        try:
            stopped.take_in(2)
        except Stopped:
            assert content(chief.run_dir) != content(chief.folder)
            assert StagedFiles(pafs.LocalFileSystem(), str(chief.run_dir)).take_in(2) == []
        chief.staged.clear()
        assert content(chief.run_dir) == content(chief.folder)
        if stopped._filesystem.handler._left:
            break
    assert number >= 8


def test_rows_that_were_half_appended_are_completed(chief):
    (chief.folder / "log.csv").write_text("one\n")
    chief.stage(1)
    chief.staged.take_in(1)
    with (chief.folder / "log.csv").open("a") as file:
        file.write("two\nthree\n")
    chief.stage(2)
    (chief.run_dir / "log.csv").write_text("one\ntw")
    assert chief.staged.take_in(2) == []
    assert (chief.run_dir / "log.csv").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("there", ["somebody has written much more into it\n", "", None])
def test_rows_are_not_appended_to_what_somebody_else_has_changed_and_it_is_said(chief, there):
    (chief.folder / "log.csv").write_text("one\n")
    chief.stage(1)
    chief.staged.take_in(1)
    with (chief.folder / "log.csv").open("a") as file:
        file.write("two\n")
    chief.stage(2)
    (chief.run_dir / "log.csv").unlink()
    if there is not None:
        (chief.run_dir / "log.csv").write_text(there)
    assert chief.staged.take_in(2) == ["log.csv"]
    chief.watched.forget("log.csv")
    chief.stage(3)
    assert chief.staged.take_in(3) == []
    assert (chief.run_dir / "log.csv").read_text() == "one\ntwo\n"


def test_a_folder_in_which_others_files_lie_stays(chief):
    (chief.folder / "logs").mkdir()
    (chief.folder / "logs" / "board").write_text("events")
    chief.stage(1)
    chief.staged.take_in(1)
    (chief.run_dir / "logs" / "worker-0.log").write_text("the run's own")
    (chief.folder / "logs" / "board").unlink()
    (chief.folder / "logs").rmdir()
    chief.stage(2)
    chief.staged.take_in(2)
    chief.staged.clear()
    assert content(chief.run_dir) == {"logs": None, "logs/worker-0.log": b"the run's own"}


def test_files_of_any_size_and_name_arrive(chief, monkeypatch):
    monkeypatch.setattr(staged_files, "INLINE_BYTES", 10)
    files = {
        "small": b"0123456789",
        "large": b"x" * 3_000_000,
        "packed.gz": b"no gzip at all",
        "empty": b"",
        "ä b": b"1",
    }
    for name, raw in files.items():
        (chief.folder / name).write_bytes(raw)
    chief.stage(1)
    chief.staged.take_in(1)
    with (chief.folder / "large").open("ab") as file:
        file.write(b"y" * 2_000_000)
    chief.stage(2)
    chief.staged.take_in(2)
    chief.staged.clear()
    assert content(chief.run_dir) == content(chief.folder)


@pytest.mark.ray
def test_all_of_it_through_the_driver_s_disk(ray_here, tmp_path, monkeypatch):
    monkeypatch.setattr(staged_files, "INLINE_BYTES", 20)
    (tmp_path / "run").mkdir()
    disk = start_disk()
    try:
        served = disk.serving(Root(path=str(tmp_path / "run"), is_writable=True))
        chief = Chief(tmp_path / "scratch", tmp_path / "run", filesystem(served))
        served.unmark()
        for version, write in enumerate((first_writes, second_writes), 1):
            write(chief.folder)
            chief.stage(version)
            before = content(chief.run_dir)
            assert chief.staged.take_in(version) == []
            assert content(chief.run_dir) != before
        (tmp_path / "elsewhere").mkdir()
        chief.staged.clear()
        chief.staged.clear()
        chief.staged.fetch(tmp_path / "elsewhere", lambda path: "")
        assert content(tmp_path / "elsewhere") == content(chief.run_dir) == content(chief.folder)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/file").write_text("of no run")
        for name in ("mine", "mine/file"):
            (tmp_path / "run" / name.replace("/", "-")).symlink_to(tmp_path / name)
        (tmp_path / "again").mkdir()
        assert sorted(chief.staged.fetch(tmp_path / "again", lambda path: "")) == ["mine", "mine-file"]
        assert content(tmp_path / "again") == content(chief.folder)
    finally:
        stop_disk(disk)
