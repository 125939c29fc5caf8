"""The handle of a submitted run: written whole, read as it was, and told where it is damaged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from heliostat.trainer.errors import HandleError, StorageError
from heliostat.trainer.remote.handle import HANDLE_FILE, Handle, new_submission_id

HANDLE = Handle(
    address="http://10.0.0.1:8265",
    submission_id="heliostat-train-1",
    what="script",
    script="train.py",
    arguments=("--seed", "4"),
    workers=2,
    runs=("/home/u/runs/a",),
    code={"train.build": "00ff"},
)


def test_a_handle_comes_back_as_it_was_written(tmp_path):
    folder = tmp_path / "new" / "run"
    assert not Handle.is_in(folder)
    for handle in (HANDLE, replace(HANDLE, workers=None, ended="FAILED", exit_status=75)):
        handle.write(folder)
        assert Handle.is_in(folder)
        assert Handle.read(folder) == handle
    assert [path.name for path in folder.iterdir()] == [HANDLE_FILE]


def test_two_commands_write_the_handle_of_one_job_at_once(tmp_path):
    """As `attach` and `stop` do when the job ends."""
    with ThreadPoolExecutor(4) as commands:
        for each in [commands.submit(HANDLE.write_news, tmp_path) for _ in range(100)]:
            each.result()
    assert Handle.read(tmp_path) == HANDLE
    assert [path.name for path in tmp_path.iterdir()] == [HANDLE_FILE]


def test_news_of_a_job_do_not_take_the_place_of_another_jobs_handle(tmp_path):
    """A command that has watched a job for days writes how it ended; the folder may stand for the next one by then."""
    ended = replace(HANDLE, ended="STOPPED")
    ended.write_news(tmp_path / "gone")
    assert Handle.read(tmp_path / "gone") == ended
    HANDLE.write(tmp_path)
    ended.write_news(tmp_path)
    assert Handle.read(tmp_path) == ended
    other = replace(HANDLE, submission_id="heliostat-train-2")
    other.write(tmp_path)
    ended.write_news(tmp_path)
    assert Handle.read(tmp_path) == other


def test_a_run_folder_is_noted_once():
    assert HANDLE.with_run("/b").runs == ("/home/u/runs/a", "/b")
    assert HANDLE.with_run("/b").with_run("/b") == HANDLE.with_run("/b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 7}, "not of version 1"),
        ({"address": "ray://head:10001"}, "is no address"),
        ({"submission_id": "../../x"}, "is no name of a job"),
        ({"what": "both"}, "what='both'"),
        ({"runs": [3]}, "runs"),
        ({"address": 3}, "cannot be read"),
        ({"runs": 3}, "cannot be read"),
    ],
)
def test_what_is_no_handle_is_told(tmp_path, change, said):
    HANDLE.write(tmp_path)
    written = json.loads((tmp_path / HANDLE_FILE).read_text())
    (tmp_path / HANDLE_FILE).write_text(json.dumps({**written, **change}))
    with pytest.raises(HandleError, match=said):
        Handle.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', "[" * 100_000])
def test_a_damaged_handle_is_told(tmp_path, content):
    (tmp_path / HANDLE_FILE).write_text(content)
    with pytest.raises(HandleError, match=r"submitted\.json"):
        Handle.read(tmp_path)


def test_a_folder_without_one_is_told(tmp_path):
    with pytest.raises(HandleError, match="it holds none"):
        Handle.read(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        HANDLE.write(tmp_path / "file" / "run")


def test_names_of_jobs_are_new_and_plain():
    names = {new_submission_id("ein Lauf/ä.py") for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("heliostat-ein-Lauf-") and name.isascii() for name in names)
