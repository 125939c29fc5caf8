"""All damage is found and told, and what is damaged can be left out, the same for all who read."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
from heliostat.data import DatasetNotFoundError, ShardError, open_dataset, write_dataset
from heliostat.data.verify import verify

from .old_parquet import write_parquet

NUM_ROWS = 500


def columns():
    numbers = np.random.default_rng(0)
    return {
        "x": numbers.integers(0, 100, (NUM_ROWS, 20)),
        "t": [b"\1\2\3" * int(length) for length in numbers.integers(0, 50, NUM_ROWS)],
        "y": np.arange(NUM_ROWS),
    }


@pytest.fixture(scope="module", params=["arrow", "parquet"])
def original(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "set"
    write = write_parquet if request.param == "parquet" else write_dataset
    return write(path, columns(), rows_per_shard=100).path


@pytest.fixture
def path(original, tmp_path):
    return shutil.copytree(original, tmp_path / "set")


def shard(path, number):
    return next(path.glob(f"shard-{number:05d}.*"))


def flip(file, place) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 16
    file.write_bytes(data)


def test_a_whole_dataset_has_no_damage(path):
    report = verify(open_dataset(path))
    assert report.is_whole
    assert (report.num_rows, report.num_shards, report.num_damaged_rows) == (500, 5, 0)
    assert str(report).endswith("no damage.")
    again = open_dataset(path, on_corrupt="skip")
    assert (again.skipped, len(again), again.fingerprint) == ({}, 500, open_dataset(path).fingerprint)


def test_all_damage_is_found_not_only_the_first(path):
    dataset = open_dataset(path)
    os.remove(shard(path, 1))
    os.truncate(shard(path, 2), 700)
    flip(shard(path, 4), 3000)
    report = verify(dataset)
    assert str(verify(path)) == str(report)
    assert [item.file[:11] for item in report.damage] == ["shard-00001", "shard-00002", "shard-00004"]
    assert report.num_damaged_rows == 300
    assert not report.is_whole
    text = str(report)
    for message in ("300 of 500 rows", "cannot be found", "has 700 bytes", "shard-00004"):
        assert message in text


def test_what_is_damaged_is_left_out_everywhere_alike(path):
    whole = open_dataset(path)
    os.remove(shard(path, 1))
    flip(shard(path, 3), shard(path, 3).stat().st_size // 2)
    for broken in (lambda: open_dataset(path), whole.verify):
        with pytest.raises(ShardError):
            broken()
    first, second = open_dataset(path, on_corrupt="skip"), whole.without_corrupt()
    assert first.fingerprint == second.fingerprint != whole.fingerprint
    assert {file[:11]: rows for file, rows in first.skipped.items()} == {"shard-00001": 100, "shard-00003": 100}
    assert len(first) == 300
    kept = [row for row in range(500) if row // 100 not in (1, 3)]
    for dataset in (first, second, pickle.loads(pickle.dumps(first))):
        dataset.check()
        batches = list(dataset.batches(64, shuffle=False))
        assert np.concatenate([batch["y"] for batch in batches]).tolist() == kept
        found = sorted(row for batch in dataset.batches(64, seed=1) for row in batch["y"].tolist())
        assert found == kept
        with dataset.reader() as reader:
            reader.start_pass(seed=0, epoch=0)
            assert np.array_equal(reader.gather(np.array([299, 150]))["x"], columns()["x"][[499, 250]])


@pytest.mark.parametrize("place", [*range(0, 1000, 97), -1, -5, -30, -200, -900])
def test_any_flipped_bit_of_a_file_is_found(path, place):
    file = shard(path, 2)
    flip(file, place)
    report = verify(path)
    assert [item.file for item in report.damage] == [file.name]


def test_nothing_of_a_damaged_dataset_is_touched(path):
    flip(shard(path, 2), 3000)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    open_dataset(path, on_corrupt="skip")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_dataset_that_is_all_damaged_is_an_error(path):
    for number in range(5):
        os.truncate(shard(path, number), 10)
    with pytest.raises(ShardError, match="Every shard"):
        open_dataset(path, on_corrupt="skip")


def test_skip_is_no_way_around_a_missing_manifest(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        open_dataset(tmp_path / "nowhere", on_corrupt="skip")
    with pytest.raises(ValueError, match="on_corrupt is 'ignore'"):
        open_dataset(tmp_path, on_corrupt="ignore")


CHANGES = {
    "written to": lambda file: flip(file, 3000),
    "replaced": lambda file: (shutil.copy(file, f"{file}.new"), os.replace(f"{file}.new", file)),
    "touched": lambda file: os.utime(file, ns=(1, 1)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_changes_after_opening_is_named_when_it_is_first_read(path, kind):
    dataset = open_dataset(path)
    CHANGES[kind](shard(path, 1))
    with dataset.reader() as reader:
        assert reader.gather(np.array([7]))["y"].tolist() == [7]
        with pytest.raises(ShardError, match=r"shard-00001.* changed after the dataset was opened"):
            reader.gather(np.array([150]))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_named_at_the_next_pass(path, kind):
    with open_dataset(path).reader() as reader:
        reader.gather(np.array([150]))
        reader.start_pass(seed=0, epoch=1)
        CHANGES[kind](shard(path, 1))
        with pytest.raises(ShardError, match=r"shard-00001.* changed after the dataset was opened"):
            reader.start_pass(seed=0, epoch=2)


def test_a_copy_with_other_times_is_the_same_dataset(path, tmp_path):
    dataset = pickle.dumps(open_dataset(path))
    for file in path.iterdir():
        os.utime(file, ns=(1, 1))
    with pickle.loads(dataset).reader() as reader:
        assert reader.gather(np.array([150]))["y"].tolist() == [150]


def test_row_splits_that_lead_out_of_the_file_are_an_error(tmp_path):
    rows = [[1, 2, 3]] * 10 + [[]]
    path = write_dataset(tmp_path / "set", {"x": rows}).path
    file = path / "shard-00000.arrow"
    data = file.read_bytes()
    splits = np.arange(0, 31, 3).tobytes()
    place = data.index(splits) + 8 * 4
    for damaged in (2**40, -5, 2**62, 31):
        file.write_bytes(data[:place] + int(damaged).to_bytes(8, "little", signed=True) + data[place + 8 :])
        with open_dataset(path).reader() as reader:
            assert reader.gather(np.array([0]))["x"].to_list() == [[1, 2, 3]]
            with pytest.raises(ShardError, match=r"row [34] of record batch 0 .* column 'x' lie outside"):
                reader.gather(np.array([0, 3, 4]))


def test_who_reads_all_says_how_far_it_is(original):
    told = []
    report = verify(original, on_progress=lambda done, total: told.append((done, total)))
    assert [total for _, total in told] == [report.num_bytes] * 5
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][0] == report.num_bytes
