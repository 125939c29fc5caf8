"""The run folder: whose it is, and what is in it when it could not be written for a while."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
from heliostat.trainer import ConfigurationError, Trainer, TrainerError
from heliostat.trainer.checkpoints.manifest import check_identity
from heliostat.trainer.driver.run_folder import RunFolder, damaged_lines, read_epochs, read_events, read_record
from heliostat.trainer.driver.run_paths import new_run_path, numbered_run_path, run_dir_of
from heliostat.trainer.errors import StorageError
from heliostat.trainer.events import EpochRecord, Paused

from ..models import linear


def test_a_run_folder_is_not_used_twice_unless_it_resumes(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.update(state="running")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        RunFolder(tmp_path / "run", resume=False)
    assert RunFolder(tmp_path / "run", resume=True).record["state"] == "running"
    assert numbered_run_path(tmp_path / "run", 1).name == "run"
    assert numbered_run_path(tmp_path / "run", 2).name == "run-2"
    assert new_run_path("<lambda>", tmp_path).parent == tmp_path


def test_a_folder_of_another_version_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format_version": 99}')
    with pytest.raises(ConfigurationError, match="format 99"):
        RunFolder(tmp_path, resume=True)


def test_run_json_is_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.update(state="running", plan={"workers": 2})
    folder.update(state="finished")
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {
        "format_version": 3,
        "state": "finished",
        "id": folder.run_id,
        "plan": {"workers": 2},
    }
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["logs", "run.json"]


def test_a_record_whose_plan_names_a_setting_that_is_gone_is_read(tmp_path):
    plan = {"workers": 2, "all_reduce": "sockets"}
    (tmp_path / "run.json").write_text(json.dumps({"format_version": 2, "state": "paused", "plan": plan}))
    assert RunFolder(tmp_path, resume=True).record["plan"] == plan


def test_what_has_changed_is_named_when_a_run_cannot_go_on(tmp_path):
    before = {"seed": 1, "data": {"train": "a"}, "epochs": 1}
    check_identity(before, dict(before), tmp_path)
    with pytest.raises(ConfigurationError, match=r"data.train: it began with 'a', and now it is 'b'") as raised:
        check_identity(before, before | {"data": {"train": "b"}}, tmp_path)
    assert "seed" not in str(raised.value)


@pytest.mark.parametrize("uri", ["s3://bucket/run", "file:///tmp/run", Path("s3://bucket/run")])
def test_a_run_folder_is_no_uri(uri):
    with pytest.raises(ConfigurationError, match=r"run_dir='\w+:/.* is a URI.*fit\(checkpoint_dir="):
        Trainer(linear(), run_dir=uri)


def test_a_run_folder_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_dir_of("~/runs/one") == tmp_path / "runs" / "one"
    assert run_dir_of(Path("~/runs/one")) == tmp_path / "runs" / "one"
    for wrong in (5, b"runs", "~nobody-of-this-name/runs"):
        with pytest.raises(ConfigurationError, match="run_dir="):
            run_dir_of(wrong)


def test_secrets_of_uris_do_not_get_into_the_record(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.update(state="failed", error="DatasetError: s3://id:secret@bucket/x is not there")
    assert "secret" not in (folder.path / "run.json").read_text()


def epoch(number):
    return EpochRecord(epoch=number, logs={"loss": 1.0}, rows=1, rows_by_worker={}, seconds_by_worker={})


def event(reason):
    return Paused(reason=reason, checkpoint=None)


def test_what_cannot_be_written_waits_and_is_written_in_order(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)

    def write_all():
        with folder.files.all_tried():
            pass

    folder.add_epoch(epoch(0))
    folder.add_event(event("one"))
    for name in ("metrics.jsonl", "events.jsonl"):
        (tmp_path / "run" / name).rename(tmp_path / name)
        (tmp_path / "run" / name).mkdir()
    for write in (
        lambda: folder.add_event(event("two")),
        lambda: folder.add_event(event("three")),
        lambda: folder.set_epochs([epoch(0)]),
        lambda: folder.add_epoch(epoch(1)),
        write_all,
    ):
        with pytest.raises(StorageError, match=r"run/(events|metrics)\.jsonl' cannot be written: Is a directory"):
            write()
    for name in ("metrics.jsonl", "events.jsonl"):
        (tmp_path / "run" / name).rmdir()
        (tmp_path / name).rename(tmp_path / "run" / name)
    folder.add_event(event("four"))
    assert [each.reason for each in read_events(folder.path)] == ["one", "two", "three", "four"]
    write_all()
    assert [each.epoch for each in read_epochs(folder.path)] == [0, 1]


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints"])
def test_a_file_that_the_disk_does_not_tell_of_is_an_error_of_storage(tmp_path, name):
    folder = RunFolder(tmp_path / "run", resume=False)
    assert not folder.began
    (folder.path / name).symlink_to("n" * 300)  # no file system takes such a name, so that nothing can be told of it
    with pytest.raises(StorageError, match=rf"run/{name}' cannot be written: File name too long"):
        _ = folder.began


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without room")
def test_a_full_disk_is_named(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    (tmp_path / "run" / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"events\.jsonl' cannot be written: No space left on device.*make room"):
        folder.add_event(event("one"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(StorageError, match=r"' cannot be written: .*, or give another run_dir"):
            RunFolder(path, resume=True)
    with pytest.raises(StorageError, match="/proc/heliostat/run' cannot be written: No such file or directory"):
        RunFolder(Path("/proc/heliostat/run"), resume=True)


@pytest.fixture
def file_size_limit():
    """file_size_limit(n): no file of this process can grow beyond n bytes, until it is called with None."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set_limit(num_bytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if num_bytes is None else (num_bytes, before[1]))

    yield set_limit
    set_limit(None)


def test_a_line_that_found_room_for_a_part_leaves_nothing_of_it(tmp_path, file_size_limit):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.add_event(event("one"))
    before = (folder.path / "events.jsonl").read_bytes()
    file_size_limit(len(before) + 20)
    with pytest.raises(StorageError, match=r"events\.jsonl' cannot be written: File too large.*raise the limit"):
        folder.add_event(event("two"))
    with pytest.raises(StorageError, match=r"replay\.json' cannot be written: File too large"):
        folder.save("replay.json", "r" * 1000)
    file_size_limit(None)
    assert (folder.path / "events.jsonl").read_bytes() == before
    assert not list(folder.path.glob(".*")), "a part of a file takes no room"
    with folder.files.all_tried():
        folder.add_event(event("three"))
    assert [each.reason for each in read_events(folder.path)] == ["one", "two", "three"]
    assert (folder.path / "replay.json").stat().st_size == 1003


def test_a_file_that_cannot_be_written_keeps_no_other_from_being_written(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    (folder.path / "replay.json").mkdir(parents=True)

    def finish():
        with folder.files.all_tried():
            folder.save("replay.json", "replay")
            folder.add_event(event("one"))
            folder.update(state="finished")

    with pytest.raises(StorageError, match=r"replay\.json"):
        finish()
    assert [each.reason for each in read_events(folder.path)] == ["one"]
    assert read_record(folder.path)["state"] == "finished"


def test_a_line_that_was_cut_short_does_not_take_up_the_next_one(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    folder.add_event(event("one"))
    folder.add_epoch(epoch(0))
    for name in ("events.jsonl", "metrics.jsonl"):
        with (folder.path / name).open("a") as file:
            file.write('{"time": 3, "ev')
    again = RunFolder(folder.path, resume=True)
    again.add_event(event("two"))
    again.add_epoch(epoch(1))
    assert [each.reason for each in read_events(folder.path)] == ["one", "two"]
    assert [each.epoch for each in read_epochs(folder.path)] == [0, 1]
    damaged = damaged_lines(folder.path)
    assert [line.split(": ")[0] for line in damaged] == [
        f"{folder.path / name}, line 2 is no JSON" for name in ("metrics.jsonl", "events.jsonl")
    ]


def test_an_epoch_that_is_missing_where_a_line_is_damaged_is_not_passed_over(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    for number in range(3):
        folder.add_epoch(epoch(number))
    file = folder.path / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")
    for damaged in (0, 1):
        file.write_bytes(b"\n".join([*lines[:damaged], b"\xff\x1b", *lines[damaged + 1 :]]))
        with pytest.raises(TrainerError, match=rf"metrics\.jsonl, line {damaged + 1} is no JSON"):
            read_epochs(folder.path)


@pytest.mark.parametrize("content", ['{"format_version": 3, "sta', "[" * 100_000, "\xff", "", '{"format_version": 3}'])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_damaged_record_is_named_with_the_way_out(tmp_path, content, checkpoints):
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    if checkpoints:
        (tmp_path / "checkpoints" / "000001-00000000.g0").mkdir(parents=True)
        (tmp_path / "checkpoints" / "000001-00000000.g0" / "manifest.json").touch()
    way_out = r"mv .*run\.json .*run\.json\.damaged.*run_dir=" if checkpoints else "give another run_dir"
    with pytest.raises(ConfigurationError, match=rf"run\.json' cannot be read: .*{way_out}"):
        RunFolder(tmp_path, resume=True)
    (tmp_path / "run.json").rename(tmp_path / "run.json.damaged")
    assert RunFolder(tmp_path, resume=True).resumes == checkpoints


def test_a_record_that_is_no_file_or_without_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ConfigurationError, match="cannot be read: no file of at most"):
        RunFolder(tmp_path, resume=True)
    (tmp_path / "run.json").unlink()
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole
    with pytest.raises(ConfigurationError, match="cannot be read: no file of at most"):
        RunFolder(tmp_path, resume=True)
