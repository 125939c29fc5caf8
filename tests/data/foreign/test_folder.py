"""Parquet and Arrow files of other programs are datasets too; nothing is written beside them unless asked."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import BadColumnError, DatasetNotFoundError, SelectionError, ShardError, open_dataset, write_dataset
from heliostat.data.errors import CacheError
from heliostat.data.format.ragged import Ragged
from heliostat.data.remote.cache import FOLDER_NAME
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


DRIFTS = {
    "type": (
        lambda part: part.set_column(0, "y", part.column("y").cast(pa.uint64())),
        r"1-part\.parquet has column 'y' of type uint64; .*int64.*no type holds both.*--column y=TYPE",
    ),
    "missing": (lambda part: part.drop_columns(["w"]), r"1-part\.parquet has no column 'w', which 0-part"),
    "more": (
        lambda part: part.append_column("z", part.column("y")),
        r"0-part\.parquet has no column 'z', which 1-part",
    ),
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


WIDENED = {
    "int32 and int64": (pa.array([1, 2], pa.int32()), pa.array([3, 1 << 40]), np.int64),
    "int64 and int32": (pa.array([3, 1 << 40]), pa.array([1, 2], pa.int32()), np.int64),
    "uint32 and int8": (pa.array([2**32 - 1], pa.uint32()), pa.array([-1], pa.int8()), np.int64),
    "int32 and float32": (pa.array([2**31 - 1], pa.int32()), pa.array([0.5], pa.float32()), np.float64),
    "lists": (pa.array([[1], [2]]), pa.array([[3]], pa.large_list(pa.int64())), np.int64),
    "dictionary": (pa.array(["x", "y"]).dictionary_encode(), pa.array(["z"]), np.uint8),
}


@pytest.mark.parametrize("kind", WIDENED)
@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_types_that_drift_are_widened_where_that_is_exact(tmp_path, kind, format):
    first, second, dtype = WIDENED[kind]
    for number, values in enumerate((first, second)):
        part, path = pa.table({"a": values}), tmp_path / f"{number}.{format}"
        pq.write_table(part, path) if format == "parquet" else write_ipc(part, path)
    dataset = open_dataset(tmp_path)
    assert dataset.schema["a"].dtype == dtype
    with dataset.reader() as reader:
        found = reader.gather(np.arange(len(dataset)))["a"]
    values = found.to_list() if isinstance(found, Ragged) else found.tolist()
    assert values == first.to_pylist() + second.to_pylist()


def test_keys_of_partitions_are_columns(tmp_path):
    for year, city in ((2024, "Ulm"), (2023, "Bad%20Ems")):
        place = tmp_path / "set" / f"year={year}" / f"city={city}"
        place.mkdir(parents=True)
        pq.write_table(pa.table({"a": [year % 10, 7]}), place / "0.parquet")
    dataset = open_dataset(tmp_path / "set")
    (rows,) = dataset.batches(10, shuffle=False)
    assert rows["year"].tolist() == [2023, 2023, 2024, 2024]
    assert rows["city"].to_list() == ["Bad Ems", "Bad Ems", "Ulm", "Ulm"]
    assert rows["a"].tolist() == [3, 7, 4, 7]
    with pytest.raises(ValueError, match="files in folders below it"):
        open_dataset(tmp_path / "set", write_manifest=True)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "set" / "z.parquet")
    with pytest.raises(ShardError, match=r"z\.parquet does not lie in a folder year=VALUE"):
        open_dataset(tmp_path / "set")


def test_files_in_folders_below_are_part_of_it_and_links_that_lead_back_are_not_followed(tmp_path):
    folder = write_folder(tmp_path / "files")
    (folder / "more").mkdir()
    os.rename(folder / "2-part.parquet", folder / "more" / "2-part.parquet")
    (folder / "more" / "again").symlink_to(folder)
    (folder / ".hidden").mkdir()
    pq.write_table(table(), folder / ".hidden" / "0.parquet")
    assert_rows(open_dataset(folder), np.arange(NUM_ROWS))


def test_train_and_test_are_not_joined_unless_that_is_asked_for(tmp_path):
    for name, y in (("train-0.parquet", 0), ("train-1.parquet", 1), ("test/a.parquet", 2)):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"y": [y]}), path)
    with pytest.raises(
        SelectionError, match=r"the splits 'test' \(test/a\.parquet\), 'train' \(train-0\.parquet\); none"
    ):
        open_dataset(tmp_path / "set")
    for split, expected in (("train", [0, 1]), ("test", [2]), ("all", [2, 0, 1])):
        (rows,) = open_dataset(tmp_path / "set", split=split).batches(9, shuffle=False)
        assert rows["y"].tolist() == expected
    with pytest.raises(SelectionError, match="'valid' is none of them"):
        open_dataset(tmp_path / "set", split="valid")
    with pytest.raises(SelectionError, match="one dataset, written by Heliostat"):
        open_dataset(write_dataset(tmp_path / "own", {"y": [1]}).path, split="train")


def test_missing_values_inside_of_lists_are_named_with_column_and_row(tmp_path):
    pq.write_table(pa.table({"a": pa.array([[1], [2, None], [3]])}), tmp_path / "lists.parquet")
    dataset = open_dataset(tmp_path / "lists.parquet")
    with dataset.reader() as reader, pytest.raises(BadColumnError, match=r"lists\.parquet .*'a' .*row 1\b") as caught:
        reader.gather(np.array([0]))
    assert "damaged" not in str(caught.value)


def test_encrypted_files_are_not_called_damaged(tmp_path):
    pytest.importorskip("pyarrow.parquet.encryption")
    from pyarrow.parquet import encryption

    class Keys(encryption.KmsClient):
        def wrap_key(self, key_bytes, master_key_identifier):
            return key_bytes.hex()

        def unwrap_key(self, wrapped_key, master_key_identifier):
            return bytes.fromhex(wrapped_key)

    for name, is_plain_footer in (("footer", False), ("columns", True)):
        settings = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["y"]}, plaintext_footer=is_plain_footer, double_wrapping=False
        )
        factory = encryption.CryptoFactory(lambda _: Keys())
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", table().schema, encryption_properties=properties) as writer:
            writer.write_table(table())
        with pytest.raises(ShardError, match=rf"{name}\.parquet.* is encrypted") as caught:
            list(open_dataset(tmp_path / f"{name}.parquet").batches(10))
        assert "damaged" not in str(caught.value)


def test_more_text_than_32_bits_can_say_in_a_row_group_is_decoded_bit_by_bit(tmp_path):
    """What is decoded at once is bounded by rows, whatever a row group has."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.arange(3000, dtype=np.int32) % 2), pa.array(["x" * 5000, "y"]))
    pq.write_table(pa.table({"t": texts}), tmp_path / "a.parquet", row_group_size=3000, store_schema=False)
    dataset = open_dataset(tmp_path / "a.parquet", cache_dir=tmp_path / "cache")
    with dataset.reader() as reader:
        found = reader.gather(np.array([0, 2999, 2000]))["t"].to_list()
    assert [len(one) for one in found] == [5000, 1, 5000]
    (decoded,) = {
        path for path in dataset._files.settings.folder().glob("*.decoded") if path.stat().st_size > 7_000_000
    }
    with pa.memory_map(str(decoded)) as file:
        assert pa.ipc.open_file(file).num_record_batches == 3


def test_a_full_shuffle_is_refused_where_the_rows_do_not_fit(tmp_path):
    folder = write_folder(tmp_path / "files")
    dataset = open_dataset(folder, cache_dir=tmp_path / "cache", cache_bytes=60_000)
    with pytest.raises(CacheError, match=r"full shuffle of .*files needs all .* bytes; .* is limited to 60,000"):
        next(dataset.batches(10))
    with pytest.raises(CacheError, match=r"shuffle window of .* larger blocks"):
        next(dataset.batches(10, shuffle="window:400:2"))
    for view in (dataset.split(0.9)[0], dataset.take(900), dataset.skip(10)):
        with pytest.raises(CacheError, match="full shuffle"):
            next(view.batches(10))
    rows = [row for batch in dataset.batches(10, shuffle="window:180:90") for row in batch["y"].tolist()]
    assert sorted(rows) == list(range(NUM_ROWS))
    assert sum(path.stat().st_size for path in (tmp_path / "cache" / FOLDER_NAME).glob("*.decoded")) <= 60_000


def test_rows_are_decoded_once(tmp_path):
    dataset = open_dataset(write_folder(tmp_path / "files"), cache_dir=tmp_path / "cache")
    times = []
    for epoch in range(2):
        list(dataset.batches(100, epoch=epoch))
        decoded = (tmp_path / "cache" / FOLDER_NAME).glob("*.decoded")
        times.append({path: path.stat().st_mtime_ns for path in decoded})
    assert times[0] == times[1]
    assert len(times[0]) == 12


@pytest.mark.slow
def test_what_decoding_takes_is_told(tmp_path):
    rows = np.zeros((300, 1 << 20), np.uint8)
    type = pa.list_(pa.uint8(), 1 << 20)
    pq.write_table(
        pa.table({"x": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), type=type)}), tmp_path / "a.parquet"
    )
    with pytest.warns(UserWarning, match=r"decoded into .*heliostat.*, about 314,\d+,\d+ bytes in all"):
        open_dataset(tmp_path)


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
        message = r"1-part\.arrow .*record batch 3 \(rows 270 to 333 of the file\).*'y' has 1 missing value, .*row 300"
        with pytest.raises(BadColumnError, match=message):
            reader.gather(np.array([334 + 271]))


def test_columns_that_cannot_be_stored_are_named(tmp_path):
    folder = write_folder(tmp_path / "files")
    pq.write_table(pa.table({"when": pa.array([1, 2], pa.timestamp("s"))}), folder / "0-part.parquet")
    with pytest.raises(BadColumnError, match=r"0-part\.parquet: Column 'when' has Arrow type timestamp"):
        open_dataset(folder)


def test_an_arrow_stream_is_told_apart(tmp_path):
    with pa.ipc.new_stream(tmp_path / "data.arrow", table().schema) as writer:
        writer.write_table(table())
    with pytest.raises(ShardError, match=r"data\.arrow is an Arrow stream, .* \(heliostat convert\)\.$"):
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


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(ShardError, match=r"b\.parquet is a pipe, socket or device, no file"):
        open_dataset(tmp_path)
