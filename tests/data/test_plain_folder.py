"""Parquet and Arrow files of other programs are datasets too; nothing is written beside them unless asked."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import BadColumnError, DatasetNotFoundError, ShardError, open_dataset
from heliostat.data.format.ragged import Ragged
from heliostat.data.verify import verify

NUM_ROWS = 1000


def table() -> pa.Table:
    rows = range(NUM_ROWS)
    return pa.table(
        {
            "y": pa.array(np.arange(NUM_ROWS)),
            "flag": pa.array([row % 3 == 0 for row in rows]),
            "w": pa.array(np.arange(NUM_ROWS, dtype=np.float32) / 7),
            "text": pa.array([f"row {row}" for row in rows]),
            "kind": pa.array([["a", "bc"][row % 2] for row in rows]).dictionary_encode(),
            "tokens": pa.array([list(range(row % 5)) for row in rows], pa.list_(pa.int32())),
            "v": pa.array([[row, -row] for row in rows], pa.list_(pa.int16(), 2)),
        }
    )


def write_ipc(part, path, compression=None) -> None:
    with pa.ipc.new_file(path, part.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(part, max_chunksize=90)


WRITERS = {
    "part.parquet": lambda part, path: pq.write_table(part, path, row_group_size=90),
    "part.arrow": write_ipc,
    "compressed.arrow": lambda part, path: write_ipc(part, path, "zstd"),
    "part.feather": lambda part, path: pyarrow.feather.write_feather(part, path, chunksize=90),
}


def write_folder(folder, name="part.parquet", parts=3):
    folder.mkdir()
    size = -(-NUM_ROWS // parts)
    for number in range(parts):
        WRITERS[name](table()[number * size : (number + 1) * size], folder / f"{number}-{name}")
    return folder


def assert_rows(dataset, ids) -> None:
    with dataset.reader() as reader:
        found = reader.gather(np.asarray(ids))
    expected = table().take(pa.array(ids))
    for name, values in found.items():
        if isinstance(values, Ragged):
            assert values.to_list() == expected.column(name).to_pylist()
        else:
            assert values.tolist() == expected.column(name).to_pylist()
    assert found["flag"].dtype == np.bool_
    assert found["w"].dtype == np.float32
    assert (found["v"].dtype, found["v"].shape) == (np.int16, (len(ids), 2))


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_files_is_a_dataset(tmp_path, name):
    folder = write_folder(tmp_path / "files", name)
    before = sorted(os.listdir(folder))
    dataset = open_dataset(folder)
    assert len(dataset) == NUM_ROWS
    assert [shard.num_rows for shard in dataset.shards] == [334, 334, 332]
    assert dataset.schema["tokens"].kind == "list"
    assert_rows(dataset, np.arange(NUM_ROWS))
    assert_rows(dataset, np.random.default_rng(0).permutation(NUM_ROWS)[:200])
    assert_rows(pickle.loads(pickle.dumps(dataset)), [999, 0])
    dataset.verify()
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("name", WRITERS)
def test_one_file_is_a_dataset(tmp_path, name):
    write_folder(tmp_path / "files", name)
    dataset = open_dataset(tmp_path / "files" / f"1-{name}")
    assert dataset.name.endswith(f"1-{name}")
    assert len(dataset) == 334
    with dataset.reader(["y"]) as reader:
        assert reader.gather(np.array([333, 0]))["y"].tolist() == [667, 334]


def test_files_come_in_the_order_of_their_names_and_others_are_left_alone(tmp_path):
    folder = write_folder(tmp_path / "files")
    os.rename(folder / "0-part.parquet", folder / "9.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.parquet").write_text("")
    (folder / "notes.txt").write_text("")
    pq.write_table(table()[:0], folder / "5-empty.parquet")
    WRITERS["part.feather"](table()[:10], folder / "a.feather")
    dataset = open_dataset(folder)
    assert [shard.file[:1] for shard in dataset.shards] == ["1", "2", "9", "a"]
    with dataset.reader(["y"]) as reader:
        assert reader.gather(np.array([0, 666, 1000, 1009]))["y"].tolist() == [334, 0, 0, 9]


def test_footers_of_parquet_tell_statistics(tmp_path):
    found = open_dataset(write_folder(tmp_path / "files")).statistics
    assert (found["y"].min, found["y"].max) == (0, 999)
    assert found["w"].max == pytest.approx(999 / 7)
    assert "text" not in found
    assert open_dataset(write_folder(tmp_path / "arrow", "part.arrow")).statistics == {}


def test_the_fingerprint_follows_the_content_not_place_or_time(tmp_path):
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b")
    os.utime(second / "0-part.parquet", ns=(1, 1))
    assert open_dataset(first).fingerprint == open_dataset(second).fingerprint
    changed = table().set_column(0, "y", pa.array(np.arange(NUM_ROWS)[::-1]))
    pq.write_table(changed[:334], second / "0-part.parquet", row_group_size=90)
    assert open_dataset(first).fingerprint != open_dataset(second).fingerprint


@pytest.mark.parametrize("name", ["part.parquet", "compressed.arrow"])
def test_a_manifest_is_written_when_asked(tmp_path, name):
    folder = write_folder(tmp_path / "files", name)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    dataset = open_dataset(folder, write_manifest=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"} == files
    again = open_dataset(folder)
    assert again.fingerprint == dataset.fingerprint
    assert (again.statistics["y"].max, again.statistics["text"].lengths.max) == (999, 7)
    assert_rows(again, np.arange(0, NUM_ROWS, 7))
    assert verify(again).is_whole
    data = bytearray(files[f"1-{name}"])
    data[2000] ^= 1
    (folder / f"1-{name}").write_bytes(data)
    assert [item.file for item in verify(open_dataset(folder)).damage] == [f"1-{name}"]
    assert open_dataset(folder, on_corrupt="skip").skipped == {f"1-{name}": 334}
    with pytest.raises(ValueError, match="is a file"):
        open_dataset(folder / f"0-{name}", write_manifest=True)


def drifted(change):
    return change(table()[334:668])


DRIFTS = {
    "type": (
        lambda part: part.set_column(0, "y", part.column("y").cast(pa.int32())),
        r"1-part\.parquet has column 'y' of type int32 .*int64",
    ),
    "missing": (lambda part: part.drop_columns(["w"]), r"1-part\.parquet has no column 'w', which 0-part"),
    "more": (lambda part: part.append_column("z", part.column("y")), r"1-part\.parquet has a column 'z' \(int64\)"),
}


@pytest.mark.parametrize("kind", DRIFTS)
def test_files_with_other_columns_are_named(tmp_path, kind):
    change, message = DRIFTS[kind]
    folder = write_folder(tmp_path / "files")
    pq.write_table(change(table()[334:668]), folder / "1-part.parquet")
    with pytest.raises(ShardError, match=message) as caught:
        open_dataset(folder)
    assert caught.value.column in ("y", "w", "z")


def test_text_in_either_width_is_the_same_column(tmp_path):
    folder = write_folder(tmp_path / "files")
    part = table()[334:668]
    large = part.set_column(3, "text", part.column("text").cast(pa.large_string()))
    pq.write_table(large, folder / "1-part.parquet")
    assert_rows(open_dataset(folder), np.arange(NUM_ROWS))


def test_missing_values_in_parquet_are_told_at_once(tmp_path):
    folder = write_folder(tmp_path / "files")
    part = table()[334:668]
    pq.write_table(part.set_column(0, "y", pa.array([None] + [1] * 333)), folder / "1-part.parquet", row_group_size=90)
    with pytest.raises(BadColumnError, match=r"'y' of .*1-part\.parquet has missing values in row group 0"):
        open_dataset(folder)


def test_missing_values_in_arrow_are_told_when_they_are_read(tmp_path):
    folder = write_folder(tmp_path / "files", "part.arrow")
    part = table()[334:668]
    write_ipc(part.set_column(0, "y", pa.array([1] * 300 + [None] + [1] * 33)), folder / "1-part.arrow")
    with open_dataset(folder).reader() as reader:
        reader.gather(np.array([0, 400]))
        with pytest.raises(ShardError, match=r"record batch 3 \(rows 270 to 333 of the file\).*'y' has 1 missing"):
            reader.gather(np.array([334 + 271]))


def test_columns_that_cannot_be_stored_are_named(tmp_path):
    folder = write_folder(tmp_path / "files")
    pq.write_table(pa.table({"when": pa.array([1, 2], pa.timestamp("s"))}), folder / "0-part.parquet")
    with pytest.raises(BadColumnError, match=r"0-part\.parquet: Column 'when' has Arrow type timestamp"):
        open_dataset(folder)


def test_an_arrow_stream_is_told_apart(tmp_path):
    with pa.ipc.new_stream(tmp_path / "data.arrow", table().schema) as writer:
        writer.write_table(table())
    with pytest.raises(ShardError, match=r"data\.arrow .*is an Arrow stream"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["part.parquet", "part.arrow"])
@pytest.mark.parametrize("num_bytes", [0, 3, 5000])
def test_a_file_that_was_cut_short_is_named(tmp_path, name, num_bytes):
    folder = write_folder(tmp_path / "files", name)
    os.truncate(folder / f"1-{name}", num_bytes)
    with pytest.raises(ShardError, match=rf"1-{name} .*is not a readable"):
        open_dataset(folder)


def test_folders_without_rows_are_no_datasets(tmp_path):
    pq.write_table(table()[:0], tmp_path / "empty.parquet")
    with pytest.raises(DatasetNotFoundError, match="have no rows"):
        open_dataset(tmp_path)
    (tmp_path / "text.csv").write_text("a\n1\n")
    with pytest.raises(DatasetNotFoundError, match="it is a file"):
        open_dataset(tmp_path / "text.csv")


def test_a_changed_file_is_named(tmp_path):
    folder = write_folder(tmp_path / "files")
    dataset = open_dataset(folder)
    pq.write_table(table()[:334], folder / "1-part.parquet")
    with dataset.reader() as reader, pytest.raises(ShardError, match=r"1-part\.parquet"):
        reader.gather(np.array([400]))


def test_row_groups_that_cannot_be_decoded_are_found_and_left_out(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=100, write_page_checksum=True, compression=None)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    place = data.index(np.arange(300, 310).tobytes())
    data[place + 16] ^= 2
    (tmp_path / "a.parquet").write_bytes(data)
    dataset = open_dataset(tmp_path)
    with dataset.reader() as reader, pytest.raises(ShardError, match=r"row group 3 \(rows 300 to 399 of the file\)"):
        reader.gather(np.array([350]))
    assert [(item.file, item.chunks, item.num_rows) for item in verify(dataset).damage] == [("a.parquet", (3,), 100)]
    rest = open_dataset(tmp_path, on_corrupt="skip")
    assert (rest.skipped, len(rest)) == ({"a.parquet": 100}, 900)
    with rest.reader(["y"]) as reader:
        assert reader.gather(np.array([299, 300, 899]))["y"].tolist() == [299, 400, 999]
