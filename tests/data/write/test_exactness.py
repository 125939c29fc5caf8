"""What is written is what was given, or it is refused or on the account; also after a writer was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from heliostat.data import BadColumnError, Column, DatasetWriter, open_dataset, write_dataset
from heliostat.data.format.account import Account, Entry
from heliostat.data.format.columns import NanStatistics
from heliostat.data.write import journal as journal_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BORDERS = [sign * (1 << power) + step for power in (24, 31, 53, 63) for sign in (1, -1) for step in (-1, 0, 1)]
NUMBERS = st.one_of(
    st.sampled_from(BORDERS), st.integers(-9, 9), st.floats(width=64, allow_nan=False, allow_infinity=False)
)


def rows(path, name="x"):
    dataset = open_dataset(path)
    with dataset.reader([name]) as reader:
        values = reader.gather(np.arange(len(dataset)))[name]
    return values.to_list() if hasattr(values, "to_list") else values.tolist()


def float32(name="x"):
    return [Column(name=name, dtype=np.dtype(np.float32))]


PROGRAM = """
import sys
import numpy as np, pandas as pd
from heliostat.data import DatasetError, Ragged, from_generator, from_pandas, open_dataset, write_dataset
path = sys.argv[1]
rows = [[1, None], [2, 3, 4]]
whole = write_dataset(path + "-whole", {"n": np.arange(2)})
for make in (
    lambda: write_dataset(path, {"x": rows}),
    lambda: from_pandas(pd.DataFrame({"x": rows}), path),
    lambda: from_generator([{"x": row} for row in rows], path),
    lambda: next(whole.map(lambda batch: {"x": rows}, ["n"]).batches(2, shuffle=False)),
    lambda: write_dataset(path, {"x": Ragged(np.arange(3), np.array([0, 1 << 40]))}),
    lambda: write_dataset(path, {"x": Ragged(np.arange(3), np.array([0, 3, 1]))}),
    lambda: write_dataset(path, {"x": np.array([np.array([1, None]), np.array([2])], object)}),
):
    try:
        make()
        print("nothing")
    except DatasetError as error:
        print(error)
"""


def test_no_rows_end_the_process(tmp_path):
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "set")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 7
    assert all("missing value" in line and "row 0" in line for line in said[:4]), said
    assert all("row splits" in line for line in said[4:6])
    assert "missing value" in said[6]


@given(st.lists(st.lists(NUMBERS, max_size=3), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_of_any_numbers_come_back_or_are_refused(tmp_path, given_rows):
    for name, values in (("lists", given_rows), ("scalars", [one for row in given_rows for one in row])):
        try:
            dataset = write_dataset(tmp_path / "set", {"x": values}, overwrite=True)
        except BadColumnError:
            continue
        found = rows(tmp_path / "set")
        flat = [one for row in found for one in row] if name == "lists" else found
        expected = [one for row in values for one in row] if name == "lists" else values
        assert [_exact(one) for one in flat] == [_exact(one) for one in expected]
        assert dataset.account == ()


def _exact(number):
    return int(number) if float(number).is_integer() else number


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([9007199254740993, None], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        [np.int64(9007199254740993), np.float64(0.5)],
        np.array([9007199254740993, 0.5], object),
        [np.array([1 << 63], np.uint64), np.array([-1])],
    ],
)
def test_what_pandas_and_numpy_would_make_floats_of_is_refused(tmp_path, values):
    with pytest.raises(BadColumnError, match="'x'"):
        write_dataset(tmp_path / "set", {"x": values})


def test_a_declared_column_takes_what_fits_and_refuses_the_rest(tmp_path):
    with DatasetWriter(tmp_path / "set", columns=float32()) as writer:
        writer.write({"x": [1 << 24, 0.5]})
        with pytest.raises(BadColumnError, match="16777217 in row 2"):
            writer.write({"x": [16777217]})
        with pytest.raises(BadColumnError, match=r"1e\+300 in row 2"):
            writer.write({"x": [1e300]})
        writer.write({"x": [0.1]})
    assert writer.dataset.account == (
        Entry(change="rounded", name="x", count=1, detail="fractions, to float32 as asked"),
    )
    half = [Column(name="x", dtype=np.dtype(np.float16))]
    with pytest.raises(BadColumnError, match="70000"), DatasetWriter(tmp_path / "half", columns=half) as writer:
        writer.write({"x": [70000.0]})
    assert not os.path.exists(tmp_path / "half")


def test_columns_of_one_name_are_refused(tmp_path):
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for given_rows in (batch, pa.Table.from_batches([batch])):
        with (
            pytest.raises(BadColumnError, match="several columns named 'a'"),
            DatasetWriter(tmp_path / "set") as writer,
        ):
            writer.write(given_rows)


def test_digests_that_end_in_zero_bytes_are_kept_or_refused(tmp_path):
    digests = [b"\xff\1\0\2", b"\xfe\1\2\0"]
    write_dataset(tmp_path / "set", {"x": digests})
    assert rows(tmp_path / "set") == digests
    with pytest.raises(BadColumnError, match="row 1 ends in zero bytes"):
        write_dataset(tmp_path / "other", {"x": np.array(digests)})
    write_dataset(tmp_path / "words", {"x": np.array([b"cat", b"horse"])})
    assert rows(tmp_path / "words") == [b"cat", b"horse"]


def test_nan_is_told_with_its_row_when_it_is_written(tmp_path):
    labels = np.array([0.0, 1.0, 0.0, np.nan, 1.0, np.nan])
    lists = [[1.0], [], [2.0, np.nan], [], [0.5], [0.5]]
    dataset = write_dataset(tmp_path / "set", {"y": labels, "l": lists}, rows_per_shard=2)
    assert dataset.statistics["y"].nans == NanStatistics(count=2, first_row=3)
    assert dataset.statistics["l"].nans == NanStatistics(count=1, first_row=2)
    assert [(entry.change, entry.name, entry.count) for entry in dataset.account] == [
        ("noticed", "y", 2),
        ("noticed", "l", 1),
    ]


def test_the_account_is_in_the_manifest_and_not_in_the_fingerprint(tmp_path):
    account = Account()
    account.add("left out", "notes.txt", unit="file")
    with DatasetWriter(tmp_path / "set", account=account, fill_nulls={"x": 7}) as writer:
        writer.write({"x": [1, None]})
    plain = write_dataset(tmp_path / "plain", {"x": [1, 7]})
    assert [str(entry) for entry in open_dataset(tmp_path / "set").account] == [
        "notes.txt: 1 file left out",
        "x: 1 value filled: missing, 7 took the place",
    ]
    assert writer.dataset.fingerprint == plain.fingerprint


def test_rows_that_are_refused_are_not_on_the_account(tmp_path):
    with DatasetWriter(tmp_path / "set", fill_nulls={"x": 7}) as writer:
        writer.write({"x": [0], "y": [1]})
        with pytest.raises(BadColumnError, match=r"'y' has 0\.5 in row 1"):
            writer.write({"x": [None], "y": [0.5]})
        writer.write({"x": [None], "y": [2]})
    assert [str(entry) for entry in writer.dataset.account] == ["x: 1 value filled: missing, 7 took the place"]


# Interruptions.


def killed_at(number, path, shuffled=False):
    """Write 50 rows in shards of 10, killed at the `number`-th commit; whether it was."""
    real, commits = journal_module.Journal._append, []

    def append(self, entry):
        if len(commits) == number:
            raise KeyboardInterrupt
        commits.append(entry)
        real(self, entry)

    options = {"shuffle_seed": 1, "shuffle_bytes": 60} if shuffled else {}
    writer = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module.Journal, "_append", append)
        try:
            writer = DatasetWriter(
                path, columns=float32(), rows_per_shard=10, resume=True, fill_nulls={"x": 0.5}, **options
            )
            done = writer.rows_done
            for low in range(done, 50, 7):
                writer.write({"x": [None if row % 5 == 0 else row / 10 for row in range(low, min(50, low + 7))]})
            writer.close()
        except KeyboardInterrupt:
            if writer is not None:
                writer.abort()
            return True
    return False


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_writer_killed_at_every_commit_ends_with_the_same_fingerprint_and_account(tmp_path, shuffled):
    assert not killed_at(-1, tmp_path / "whole", shuffled)
    whole = open_dataset(tmp_path / "whole")
    assert {entry.change for entry in whole.account} == {"rounded", "filled"}
    number = 0
    while killed_at(number, tmp_path / f"set-{number}", shuffled):
        later = number + 2
        while killed_at(later, tmp_path / f"set-{number}", shuffled):  # and again, a little later
            later += 3
        found = open_dataset(tmp_path / f"set-{number}")
        assert (found.fingerprint, set(found.account)) == (whole.fingerprint, set(whole.account))
        number += 1
    assert number >= 7


def test_a_kill_while_the_journal_is_written_anew_loses_no_shard(tmp_path, monkeypatch):
    assert killed_at(5, tmp_path / "set")
    before = (tmp_path / ".set.writing" / "journal.jsonl").read_text()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(journal_module.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        DatasetWriter(tmp_path / "set", columns=float32(), rows_per_shard=10, resume=True, fill_nulls={"x": 0.5})
    monkeypatch.undo()
    assert (tmp_path / ".set.writing" / "journal.jsonl").read_text() == before
    again = DatasetWriter(tmp_path / "set", columns=float32(), rows_per_shard=10, resume=True, fill_nulls={"x": 0.5})
    assert again.rows_done == 30
    assert "journal.jsonl" in os.listdir(tmp_path / ".set.writing")
    again.abort()


def test_a_line_of_the_journal_that_makes_no_sense_ends_what_is_gone_on_with(tmp_path):
    assert killed_at(5, tmp_path / "set")
    path = tmp_path / ".set.writing" / "journal.jsonl"
    lines = path.read_text().splitlines()
    content = json.loads(lines[3])
    content["shard"]["file"] = "../../etc/passwd"
    path.write_text("\n".join([*lines[:3], json.dumps(content), *lines[4:]]) + "\n")
    again = DatasetWriter(tmp_path / "set", columns=float32(), rows_per_shard=10, resume=True, fill_nulls={"x": 0.5})
    assert again.rows_done == 10
    again.abort()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": np.array(5)}, "'x' is a single value"),
        ({"x": np.float32(5)}, "'x' is a single value"),
        ({"\ud800": [1]}, "can be UTF-8"),
    ],
)
def test_what_has_no_rows_or_no_name_is_refused(tmp_path, rows, message):
    with pytest.raises(BadColumnError, match=message):
        write_dataset(tmp_path / "set", rows)
    assert not list(tmp_path.iterdir())
