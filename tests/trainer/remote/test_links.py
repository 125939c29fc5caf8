"""Links to run folders, and what is told of the files behind them."""

from __future__ import annotations

import os
import socket

import pytest
import xxhash
from heliostat.trainer.remote.links import FileMark, bytes_of, link, linked, marks_of, prefix_of, unlink


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "logs").mkdir()
    return prefix_of(tmp_path / "logs", "train-20260101-a1")


def test_run_folders_have_a_link_each_in_their_order(prefix, tmp_path):
    folders = [tmp_path / f"run-{number}" for number in range(12)]
    names = [link(prefix, folder) for folder in folders]
    assert names == [f"heliostat-train-20260101-a1-{number}" for number in range(1, 13)]
    assert link(prefix, folders[4]) == names[4], "one that is gone on with has its link"
    assert list(linked(prefix).items()) == list(zip(names, folders, strict=True)), "by number, not by letters"


def test_links_of_other_jobs_are_not_taken_for_ours(prefix, tmp_path):
    other = prefix_of(prefix.parent, "train-20260101-a1-2")
    link(other, tmp_path / "theirs")
    (prefix.parent / f"{prefix.name}-x").symlink_to(tmp_path)
    (prefix.parent / f"{prefix.name}-7").write_text("no link")
    assert linked(prefix) == {}
    link(prefix, tmp_path / "ours")
    assert list(linked(other).values()) == [tmp_path / "theirs"]
    assert list(linked(prefix).values()) == [tmp_path / "ours"]


def test_a_link_that_is_taken_away_leaves_the_others_their_names(prefix, tmp_path):
    folders = [tmp_path / name for name in "abc"]
    names = [link(prefix, folder) for folder in folders]
    unlink(prefix, folders[1])
    unlink(prefix, tmp_path / "never")
    assert linked(prefix) == {names[0]: folders[0], names[2]: folders[2]}
    assert link(prefix, tmp_path / "d") == f"{prefix.name}-4"


def test_two_that_link_at_once_get_two_links(prefix, tmp_path, monkeypatch):
    import heliostat.trainer.remote.links as module

    looked = module.linked

    def somebody_is_faster(of):
        found = looked(of)
        (of.parent / f"{of.name}-{len(found) + 1}").symlink_to(tmp_path / "theirs")
        return found

    monkeypatch.setattr(module, "linked", somebody_is_faster)
    assert link(prefix, tmp_path / "ours") == f"{prefix.name}-2"


def test_every_file_of_a_run_folder_is_told_with_its_hash(tmp_path):
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run_dir / "logs").mkdir(parents=True)
    (run_dir / ".callbacks" / "x").mkdir(parents=True)
    (elsewhere / "step-1").mkdir(parents=True)
    contents = {
        "run.json": b"{}",
        "logs/größe 1.log": b"",
        "checkpoints/step-1/state": os.urandom(5_000_000),
        ".hidden-by-a-callback": b"1",
    }
    (run_dir / "checkpoints").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(run_dir)
    (elsewhere / "nowhere").symlink_to(tmp_path / "gone")
    for name, content in contents.items():
        (run_dir / name).write_bytes(content)
    for name in ("driver.lease", ".heliostat-driver", ".callbacks/x/y"):
        (run_dir / name).write_text("of the driver")
    os.mkfifo(run_dir / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run_dir / "socket"))
        found = marks_of(run_dir)
    assert bytes_of(run_dir) == sum(map(len, contents.values()))
    assert found == {
        name: FileMark(size=len(content), digest=xxhash.xxh3_128_hexdigest(content))
        for name, content in contents.items()
    }


def test_of_a_folder_that_is_gone_nothing_is_told(tmp_path):
    assert marks_of(tmp_path / "gone") == {}
