"""The run folder: whose it is, and what is in it when it could not be written for a while."""

from __future__ import annotations

import json
import os

import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.checkpoints.manifest import check_identity
from heliostat.trainer.driver.run_folder import RunFolder, new_run_path, numbered_run_path, read_epochs, read_events
from heliostat.trainer.errors import StorageError
from heliostat.trainer.events import EpochRecord, Paused


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


def epoch(number):
    return EpochRecord(epoch=number, logs={"loss": 1.0}, rows=1, rows_by_worker={}, seconds_by_worker={})


def event(reason):
    return Paused(reason=reason, checkpoint=None)


def test_what_cannot_be_written_waits_and_is_written_in_order(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
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
        folder.flush,
    ):
        with pytest.raises(StorageError, match=r"run/(events|metrics)\.jsonl' cannot be written: Is a directory"):
            write()
    for name in ("metrics.jsonl", "events.jsonl"):
        (tmp_path / "run" / name).rmdir()
        (tmp_path / name).rename(tmp_path / "run" / name)
    folder.add_event(event("four"))
    assert [each.reason for each in read_events(folder.path)] == ["one", "two", "three", "four"]
    folder.flush()
    assert [each.epoch for each in read_epochs(folder.path)] == [0, 1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device without room")
def test_a_full_disk_is_named(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    (tmp_path / "run" / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"events\.jsonl' cannot be written: No space left on device.*make room"):
        folder.add_event(event("one"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/run' cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run", resume=False)
