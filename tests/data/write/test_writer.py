"""A dataset appears complete or not at all, and bad columns are named."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from heliostat.data import BadColumnError, DatasetExistsError, DatasetNotFoundError, open_dataset, write_dataset
from heliostat.data.write import folder_writer as writer_module
from heliostat.data.write import shard_sequence as file_module


class DiskFullError(OSError):
    """What the tests raise while a dataset is being written."""


def rows_of(path) -> list[int]:
    return next(open_dataset(path).batches(100, shuffle=False))["x"].tolist()


def fail(*_arguments) -> None:
    raise DiskFullError


MOMENTS = {
    "a write": (file_module.HashedFile, "write"),
    "a flush": (file_module.HashedFile, "sync"),
    "the manifest": (writer_module, "write_manifest"),
    "the rename": (writer_module, "put_in_place"),
}


@pytest.mark.parametrize("had_old", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_failure_while_writing_leaves_what_was_there(tmp_path, monkeypatch, moment, had_old):
    if had_old:
        write_dataset(tmp_path / "set", {"x": np.arange(3)})
    monkeypatch.setattr(*MOMENTS[moment], fail)
    with pytest.raises(DiskFullError):
        write_dataset(tmp_path / "set", {"x": np.arange(9)}, overwrite=had_old)
    assert os.listdir(tmp_path) == (["set"] if had_old else [])
    if had_old:
        assert rows_of(tmp_path / "set") == [0, 1, 2]


def test_a_failure_of_the_last_rename_brings_the_old_dataset_back(tmp_path, monkeypatch):
    write_dataset(tmp_path / "set", {"x": np.arange(3)})
    real, renamed = os.rename, []

    def second_fails(source, target):
        renamed.append(target)
        if len(renamed) == 2:
            raise DiskFullError
        real(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(DiskFullError):
        write_dataset(tmp_path / "set", {"x": np.arange(9)}, overwrite=True)
    assert len(renamed) == 3
    assert rows_of(tmp_path / "set") == [0, 1, 2]
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("had_old", [False, True])
def test_a_process_that_dies_while_writing_leaves_the_old_dataset_or_none(tmp_path, had_old):
    if had_old:
        write_dataset(tmp_path / "set", {"x": np.arange(3)})
    program = (
        "import os, sys, numpy as np\n"
        "from heliostat.data import write_dataset\nfrom heliostat.data.write import folder_writer\n"
        "folder_writer.write_manifest = lambda *_: os._exit(9)\n"
        "write_dataset(sys.argv[1], {'x': np.arange(9)}, overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "set")], timeout=60)
    assert done.returncode == 9
    if had_old:
        assert rows_of(tmp_path / "set") == [0, 1, 2]
    else:
        with pytest.raises(DatasetNotFoundError):
            open_dataset(tmp_path / "set")


def test_an_overwrite_that_died_between_its_renames_tells_where_the_old_dataset_is(tmp_path):
    write_dataset(tmp_path / "set", {"x": np.arange(3)})
    program = (
        "import os, sys, numpy as np\n"
        "from heliostat.data import write_dataset\n"
        "real = os.rename\n"
        "os.rename = lambda source, target: (real(source, target), os._exit(9))\n"
        "write_dataset(sys.argv[1], {'x': np.arange(9)}, overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "set")], timeout=60)
    assert done.returncode == 9
    with pytest.raises(DatasetNotFoundError, match=r"interrupted. The one before is in .*\.set\.replaced-"):
        open_dataset(tmp_path / "set")
    os.rename(next(tmp_path.glob(".set.replaced-*")), tmp_path / "set")
    assert rows_of(tmp_path / "set") == [0, 1, 2]


def test_overwrite_replaces_the_whole_dataset(tmp_path):
    write_dataset(tmp_path / "set", {"x": np.arange(30)}, rows_per_shard=3)
    old = open_dataset(tmp_path / "set").reader()
    assert old.gather(np.array([29]))["x"].tolist() == [29]
    write_dataset(tmp_path / "set", {"x": np.arange(2)}, overwrite=True)
    assert sorted(os.listdir(tmp_path / "set")) == ["manifest.json", "shard-00000.arrow"]
    assert rows_of(tmp_path / "set") == [0, 1]
    assert old.gather(np.array([29]))["x"].tolist() == [29]  # a reader keeps what it has mapped
    assert os.listdir(tmp_path) == ["set"]


def test_a_taken_path_is_refused(tmp_path):
    write_dataset(tmp_path / "set", {"x": np.arange(3)})
    with pytest.raises(DatasetExistsError, match="exists already"):
        write_dataset(tmp_path / "set", {"x": np.arange(9)})
    assert rows_of(tmp_path / "set") == [0, 1, 2]


def test_overwrite_never_removes_what_is_not_a_dataset(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"sun")
    (tmp_path / "file").write_bytes(b"text")
    for name in ("photos", "file"):
        with pytest.raises(DatasetExistsError, match="is not a dataset"):
            write_dataset(tmp_path / name, {"x": np.arange(9)}, overwrite=True)
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"sun"


def test_missing_parents_are_made(tmp_path):
    assert len(write_dataset(tmp_path / "news" / "train", {"x": np.arange(4)})) == 4


def test_shards_have_the_rows_asked_for(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(10)}, rows_per_shard=4)
    assert [shard.num_rows for shard in dataset.shards] == [4, 4, 2]


def test_shards_have_the_bytes_asked_for(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.zeros((40_000, 100), np.uint8)}, shard_bytes=1 << 20)
    assert len(dataset.shards) == 5
    assert all(shard.num_bytes < 1.1 * (1 << 20) for shard in dataset.shards)


@pytest.mark.parametrize("rows_per_shard", [0, -1, 2.5])
def test_a_senseless_shard_size_is_refused(tmp_path, rows_per_shard):
    with pytest.raises(ValueError, match="rows_per_shard is"):
        write_dataset(tmp_path / "set", {"x": np.arange(3)}, rows_per_shard=rows_per_shard)


BAD_COLUMNS = {
    "objects": (np.array([object(), object()]), "'bad' cannot be stored as it is"),
    "lists of text": ([["a"], ["b", "c"]], "'bad' has Arrow type large_list<item: large_string>"),
    "text and numbers": (["a", 3], "'bad' is string, but row 1 of those given is 3"),
    "complex": (np.zeros(2, complex), "'bad' has dtype complex128"),
    "dates": (np.zeros(2, "M8[s]"), "'bad' has dtype datetime64"),
    "records": (np.zeros(2, [("a", "f4")]), "'bad' has dtype"),
    "long double": (np.zeros(2, np.longdouble), "'bad' has dtype float128"),
    "one value": (np.float32(3), "'bad' is a single value"),
    "ragged twice": ([[[1], [2, 3]], [[1]]], "'bad' has Arrow type large_list<item: large_list"),
    "missing": ([1, None], "'bad' has 1 missing value, the first in row 1"),
    "missing text": (["a", None], "'bad' has 1 missing value, the first in row 1"),
    "masked": (np.ma.masked_equal([1, 2], 2), "'bad' has 1 missing value, the first in row 1"),
    "other length": (np.arange(3), "'bad' has 3 rows and column 'good' has 2"),
    "no values": (np.zeros((2, 0)), r"'bad' has rows of shape \(0,\)"),
}


@pytest.mark.parametrize("kind", BAD_COLUMNS)
def test_a_column_that_cannot_be_stored_is_named(tmp_path, kind):
    values, message = BAD_COLUMNS[kind]
    with pytest.raises(BadColumnError, match=message) as caught:
        write_dataset(tmp_path / "set", {"good": np.arange(2), "bad": values})
    assert caught.value.column == "bad"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "at least one column"),
        ({"x": np.zeros((0, 3))}, "'x' has 0 rows"),
        ({"": np.arange(3)}, "named ''"),
        ({3: np.arange(3)}, "named 3"),
    ],
)
def test_datasets_without_content_or_names_are_refused(tmp_path, columns, message):
    with pytest.raises(BadColumnError, match=message):
        write_dataset(tmp_path / "set", columns)
