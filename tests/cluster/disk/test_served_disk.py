"""What others may do with the driver's disk: below its roots, and nowhere else."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from heliostat.cluster.disk.served import TOKEN, Root, ServedDisk, as_memo


@pytest.fixture
def served(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows").write_bytes(bytes(range(100)))
    (tmp_path / "secret").write_text("not theirs")
    (tmp_path / "run" / TOKEN).write_text("mine")
    disk = ServedDisk("/none")
    roots = [Root(path=f"{tmp_path}/run", is_writable=True), Root(path=f"{tmp_path}/data")]
    assert disk.serve(roots, "mine") is None
    return disk


def test_reads_and_lists_below_its_roots(served, tmp_path):
    data = f"{tmp_path}/data"
    assert served.read(f"{data}/rows", 90, 50).tolist() == list(range(90, 100))
    assert served.read(f"{data}/rows", 100, 50).size == served.read(f"{data}/rows", 200, 50).size == 0
    assert [(each.path, each.kind, each.num_bytes) for each in served.list(data, is_deep=True)] == [
        (f"{data}/rows", "file", 100)
    ]
    assert [each.kind for each in served.info([data, f"{data}/rows", f"{data}/none"])] == ["folder", "file", "nothing"]


def test_pieces_make_a_file_and_its_first_one_empties_it(served, tmp_path):
    path = f"{tmp_path}/run/new"
    (tmp_path / "run/new").write_bytes(b"longer than what comes")
    served.write(path, 0, np.empty(0, np.uint8), is_first=True)
    served.write(path, 3, np.frombuffer(b"def", np.uint8), is_first=False)
    served.write(path, 0, np.frombuffer(b"abc", np.uint8), is_first=False)
    served.sync(path)
    assert (tmp_path / "run/new").read_bytes() == b"abcdef"


def test_folders_are_made_moved_copied_and_deleted(served, tmp_path):
    run = tmp_path / "run"
    served.make_folder(f"{run}/a/b")
    (run / "a/b/file").write_text("x")
    served.copy(f"{run}/a/b/file", f"{run}/a/copy")
    served.move(f"{run}/a/copy", f"{run}/a/moved")
    served.remove(f"{run}/a/moved")
    assert [path.name for path in (run / "a").iterdir()] == ["b"]
    served.remove_folder(f"{run}/a")
    assert not (run / "a").exists()
    (run / "left").write_text("x")
    served.remove_folder(str(run))
    assert run.is_dir()
    assert not any(run.iterdir())


@pytest.mark.parametrize(
    "way", ["{}/secret", "{}/run/../secret", "{}/run/link", "{}/run/folder/secret", "/etc/passwd", "{}/runs"]
)
def test_nothing_outside_of_the_roots_is_read_or_written(served, tmp_path, way):
    (tmp_path / "run/link").symlink_to(tmp_path / "secret")
    (tmp_path / "run/folder").symlink_to(tmp_path)
    path = way.format(tmp_path)
    for action in (
        lambda: served.read(path, 0, 9),
        lambda: served.info([path]),
        lambda: served.write(path, 0, np.zeros(9, np.uint8), is_first=True),
        lambda: served.move(f"{tmp_path}/run/{TOKEN}", path),
        lambda: served.remove_folder(path),
    ):
        with pytest.raises(PermissionError):
            action()
    assert (tmp_path / "secret").read_text() == "not theirs"
    assert (tmp_path / "run" / TOKEN).exists()


def test_data_is_only_read_and_a_link_is_deleted_as_such(served, tmp_path):
    for action in (
        lambda: served.write(f"{tmp_path}/data/rows", 0, np.zeros(9, np.uint8), is_first=True),
        lambda: served.remove(f"{tmp_path}/data/rows"),
        lambda: served.move(f"{tmp_path}/data/rows", f"{tmp_path}/run/rows"),
    ):
        with pytest.raises(PermissionError):
            action()
    assert (tmp_path / "data/rows").stat().st_size == 100
    (tmp_path / "run/link").symlink_to(tmp_path / "secret")
    served.remove(f"{tmp_path}/run/link")
    assert not os.path.lexists(tmp_path / "run/link")
    assert (tmp_path / "secret").exists()


def test_errors_keep_their_number(served, tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        served.read(f"{tmp_path}/data/none", 0, 9)
    assert missing.value.errno == errno.ENOENT
    with pytest.raises(FileNotFoundError):
        served.list(f"{tmp_path}/data/none", is_deep=False)


def test_a_folder_that_is_another_one_for_ray_is_told(tmp_path):
    disk, path = ServedDisk("/none"), f"{tmp_path}"
    (found, why) = disk.serve([Root(path=path, is_writable=True)], "mine")
    assert (found, "No such file" in why) == (path, True)
    (tmp_path / TOKEN).write_text("of another")
    assert disk.serve([Root(path=path, is_writable=True)], "mine") == (path, "another folder is there")
    with pytest.raises(PermissionError):
        disk.info([f"{tmp_path}"])


def test_what_was_served_before_is_so_no_more_and_stays_so_where_others_cannot_be(served, tmp_path):
    before = served.info([f"{tmp_path}/data"])
    assert served.serve([Root(path=f"{tmp_path}/gone")], "mine") == (f"{tmp_path}/gone", "No such file or directory")
    assert served.info([f"{tmp_path}/data"]) == before
    assert served.serve([Root(path=f"{tmp_path}/run")], "mine") is None
    with pytest.raises(PermissionError):
        served.info([f"{tmp_path}/data"])


def test_who_takes_the_place_of_a_dead_one_serves_what_the_driver_has_kept(served, tmp_path):
    memo = tmp_path / "memo"
    assert ServedDisk(str(memo)).serve([], "mine") is None
    memo.write_bytes(as_memo([Root(path=f"{tmp_path}/run", is_writable=True), Root(path=f"{tmp_path}/data")]) + b"  ")
    other = ServedDisk(str(memo))
    assert other.read(f"{tmp_path}/data/rows", 98, 2).tolist() == [98, 99]
    other.make_folder(f"{tmp_path}/run/new")
    with pytest.raises(PermissionError):
        other.make_folder(f"{tmp_path}/data/new")
    memo.write_bytes(b"")
    for nothing in (memo, tmp_path / "none"):
        with pytest.raises(PermissionError):
            ServedDisk(str(nothing)).info([f"{tmp_path}/data"])
