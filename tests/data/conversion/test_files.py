"""Which files of a source become rows, and that no other one vanishes without a word."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.files import find_files, listed
from heliostat.data.conversion.open_source import SourceOptions, guess_kind, open_source
from heliostat.data.errors import SourceError
from heliostat.data.foreign.schemas import partition_keys, split_of
from heliostat.data.format.account import Account


def write(root, *names: str, text: str = "a,y\n1,0\n") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def found(source, kind="csv", **options) -> tuple[list[str], dict[str, int]]:
    account = Account()
    files = find_files(str(source), kind, account, **options)
    return list(files.names), {entry.name: entry.count for entry in account.entries}


def told(source, **options) -> list[str]:
    """What the account of an opened source says."""
    kind = options.pop("kind", None)
    return [str(entry) for entry in open_source(source, kind, SourceOptions(**options)).account.entries]


def test_files_of_sub_folders_are_rows_and_all_others_are_told(tmp_path):
    write(
        tmp_path,
        "b.csv",
        "a/1.csv.bz2",
        "a/deep/0.tsv",
        "README.md",
        "more/1.txt",
        "more/2.txt",
        "_old.csv",
        ".x/1.csv",
    )
    write(tmp_path, "_SUCCESS", "_metadata", ".1.csv.crc", ".set.writing/part.csv", ".DS_Store")
    names, left_out = found(tmp_path)
    assert names == ["a/1.csv.bz2", "a/deep/0.tsv", "b.csv"]
    assert left_out == {"README.md": 1, "*.txt": 2, "*.csv": 2}


def test_what_is_left_out_is_in_the_account_of_the_source(tmp_path):
    write(tmp_path, "b.csv", "notes.txt")
    assert told(tmp_path) == ["notes.txt: 1 file left out: not of kind csv; --kind chooses another"]


@pytest.mark.parametrize("pattern", ["", "**/*.csv", "*", "**", "[ab]*"])
def test_links_that_lead_back_are_told_and_not_followed(tmp_path, pattern):
    write(tmp_path, "a/1.csv", "a/deep/2.csv")
    os.symlink(tmp_path, tmp_path / "a" / "again")
    os.symlink(tmp_path / "a", tmp_path / "a" / "deep" / "back")
    os.symlink(tmp_path / "a", tmp_path / "b")
    os.symlink("itself", tmp_path / "a" / "itself")  # is left out for another reason
    account = Account()
    files = find_files(f"{tmp_path}/{pattern}".rstrip("/"), "csv", account)
    assert list(files.names) == ["a/1.csv", "a/deep/2.csv", "b/1.csv", "b/deep/2.csv"]
    told = [entry.count for entry in account.entries if entry.detail.startswith("a link that leads back")]
    assert told == [4]


def test_what_is_no_file_is_told(tmp_path):
    write(tmp_path, "a.csv")
    os.mkfifo(tmp_path / "b.csv")
    os.symlink(tmp_path / "b.csv", tmp_path / "c.csv")
    os.symlink("nowhere", tmp_path / "d.txt")
    assert found(tmp_path) == (["a.csv"], {"*.csv": 2, "d.txt": 1})
    os.symlink("nowhere", tmp_path / "e.csv")
    os.mkdir(tmp_path / "more")
    os.symlink("itself", tmp_path / "more" / "itself")
    with pytest.raises(SourceError, match=r"e\.csv cannot be read as CSV: No such file"):
        open_source(tmp_path, None, SourceOptions())


@pytest.mark.parametrize(
    "pattern", ["*.csv", "**/*.csv", "*/*.csv", "**/deep/**", "a/**", "[!a].csv", "a/*/", ".h/*", "**/a/**/*.csv"]
)
def test_patterns_fit_what_they_fit_elsewhere(tmp_path, pattern):
    """Python's glob, with what lies below the folders that it finds."""
    write(tmp_path, "a/1.csv", "a/deep/2.csv", "a/deep/a/3.csv", "b.csv", ".h/4.csv", ".i.csv", "c/.j/5.csv")
    expected = set()
    for path in map(Path, glob.glob(f"{tmp_path}/{pattern}", recursive=True)):
        expected |= {str(one) for one in path.rglob("*") if one.is_file()} if path.is_dir() else {str(path)}
    root, names = listed(f"{tmp_path}/{pattern}")
    assert {str(root / name) for name in names} == expected


def test_datasets_of_ours_below_a_folder_are_told_and_not_read(tmp_path):
    convert(_csv(tmp_path / "a.csv"), tmp_path / "set")
    assert guess_kind(str(tmp_path)) == "csv"
    assert found(tmp_path) == (["a.csv"], {"set/manifest.json": 1})


def _csv(path):
    path.write_text("a,y\n1,0\n")
    return path


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("x_train-00000-of-00002.parquet", "train"),
        ("data/test/0.csv", "test"),
        ("val2017/1.csv", "val"),
        ("Validation.csv", "validation"),
        ("t10k-images-idx3-ubyte", "test"),
        ("latest.csv", None),
        ("trainer.csv", None),
        ("contest.csv", None),
    ],
)
def test_splits_are_seen_in_names(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "names", [("train.csv", "test.csv"), ("train/0.csv", "test/0.csv"), ("a-dev.csv", "a-val.csv")]
)
def test_splits_are_joined_only_if_that_is_asked_for(tmp_path, names):
    write(tmp_path, *names)
    first, second = map(split_of, names)
    for source in (tmp_path, tmp_path / "*" if "/" not in names[0] else tmp_path / "*" / "*.csv"):
        with pytest.raises(SourceError, match="none was chosen") as caught:
            found(source)
        assert repr(first) in str(caught.value)
        assert "--split" in str(caught.value)
        assert found(source, split=first) == ([names[0]], {names[1]: 1})
        assert sorted(found(source, split="all")[0]) == sorted(names)
        with pytest.raises(SourceError, match="no files of split 'other'"):
            found(source, split="other")
    assert len(convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-set", split=second)) == 1


def test_shards_that_are_missing_are_told(tmp_path):
    write(tmp_path, "a-00000-of-00004.csv", "a-00003-of-00004.csv", "b-00001-of-00002.csv", "b-00002-of-00002.csv")
    assert found(tmp_path)[1] == {"a-00001-of-00004.csv": 2}
    assert found(tmp_path / "a-00003-of-00004.csv")[1] == {"a-00000-of-00004.csv": 3}


def test_a_pattern_takes_what_fits_it(tmp_path):
    write(tmp_path, "a.csv", "b.csv", "c.txt", "d/e.csv")
    assert found(tmp_path / "*.csv") == (["a.csv", "b.csv"], {})
    assert found(tmp_path / "*") == (["a.csv", "b.csv", "d/e.csv"], {"c.txt": 1})
    assert found(tmp_path / "*.txt") == (["c.txt"], {})
    assert guess_kind(str(tmp_path / "*")) == "csv"
    with pytest.raises(SourceError, match="No file fits"):
        found(tmp_path / "*.parquet")
    write(tmp_path, "odd[1].csv")
    assert found(tmp_path / "odd[1].csv") == (["odd[1].csv"], {})


def test_pictures_beside_a_table_need_a_kind(tmp_path):
    write(tmp_path, "labels.csv", "cat/1.png", "dog/1.png")
    with pytest.raises(SourceError, match=r"several kinds \(csv, images\), such as labels.csv"):
        guess_kind(str(tmp_path))


def test_splits_of_pictures_are_folders(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / split / label / "0.png")
    assert guess_kind(str(tmp_path)) == "images"
    with pytest.raises(SourceError, match="splits 'test', 'train', a folder each"):
        open_source(tmp_path, None, SourceOptions())
    opened = open_source(tmp_path, None, SourceOptions(split="train"))
    assert opened.num_rows == 2
    assert opened.metadata["class_names"] == {"y": ["cat", "dog"]}
    (tmp_path / "labels.csv").write_text("file,y\n")
    assert told(tmp_path, split="train", kind="images") == [
        "labels.csv: 1 file left out: no image",
        "test: 1 folder left out: of another split; --split chooses it",
    ]


def test_uris_and_home_folders_are_places(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _csv(tmp_path / "a.csv")
    assert len(convert("~/a.csv", "~/set")) == 1
    assert len(convert(f"file://{tmp_path}/a.csv", tmp_path / "other")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "other", "set"]
    uri = "s3://KEY:SECRET-0123@bucket/a.csv?endpoint_override=127.0.0.1:1&scheme=http"
    with pytest.raises(SourceError, match=r"s3://bucket/a\.csv: a conversion reads files of this host") as caught:
        convert(uri, tmp_path / "third", kind="csv")
    assert "SECRET" not in str(caught.value)


def test_keys_of_partitions_are_what_their_folders_say():
    names = ["year=2023/kind=a%20b/0.parquet", "year=7/kind=__HIVE_DEFAULT_PARTITION__/0.parquet", "0.parquet"]
    keys = partition_keys(names)
    assert keys["year"].equals(pa.array([2023, 7, None], pa.int64()))
    assert keys["kind"].equals(pa.array(["a b", None, None]))
    assert partition_keys(["m=07/x", "m=11/x"])["m"].to_pylist() == ["07", "11"]
    assert partition_keys(["a/b.csv"]) == {}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_partitions_become_columns(tmp_path, ending):
    for year in (2023, 2024):
        place = tmp_path / "in" / f"year={year}" / f"0.{ending}"
        place.parent.mkdir(parents=True)
        if ending == "parquet":
            pq.write_table(pa.table({"a": [year % 10, 7], "y": [0, 1]}), place)
        else:
            place.write_text(f"a,y\n{year % 10},0\n7,1\n")
    for number, source in enumerate((tmp_path / "in", tmp_path / "in" / "*" / f"*.{ending}")):
        rows = convert(source, tmp_path / f"set{number}").to_arrow().to_pydict()
        assert rows == {"a": [3, 7, 4, 7], "y": [0, 1, 0, 1], "year": [2023, 2023, 2024, 2024]}
    chosen = convert(tmp_path / "in", tmp_path / "chosen", features=["year"])
    assert chosen.to_arrow()["year"].to_pylist() == [2023, 2023, 2024, 2024]
    stacked = convert(tmp_path / "in", tmp_path / "stacked", target="year", features=["a"])
    assert stacked.to_arrow()["y"].to_pylist() == [2023, 2023, 2024, 2024]


def test_a_key_that_the_files_have_too_is_told(tmp_path):
    (tmp_path / "a=1").mkdir()
    pq.write_table(pa.table({"a": [5]}), tmp_path / "a=1" / "0.parquet")
    assert told(tmp_path) == ["a=: 1 folder left out: the files have a column 'a' themselves"]


def test_what_is_no_regular_file_is_told_and_links_to_nothing_are_refused(tmp_path):
    write(tmp_path / "in", "a.csv")
    os.mkfifo(tmp_path / "in" / "b.csv")
    assert found(tmp_path / "in") == (["a.csv"], {"b.csv": 1})
    with pytest.raises(SourceError, match="no regular file"):
        found(tmp_path / "in" / "b.csv")
    os.symlink(tmp_path / "nowhere", tmp_path / "in" / "c.csv")
    with pytest.raises(SourceError, match=r"c\.csv cannot be read as CSV: No such file"):
        convert(tmp_path / "in", tmp_path / "set")


def test_what_a_dataset_does_not_have_is_told_of_its_copy(tmp_path):
    write(tmp_path / "in", "a.csv", "notes.txt")
    first = convert(tmp_path / "in", tmp_path / "set")
    assert [entry.name for entry in first.account] == ["notes.txt"]
    assert convert(tmp_path / "set", tmp_path / "copy").account == first.account


def test_a_folder_of_hugging_face_without_rows_is_refused(tmp_path):
    datasets.Dataset.from_dict({"a": []}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(SourceError, match=r"set cannot be read by Hugging Face's datasets: .* It has no rows"):
        open_source(tmp_path / "set", None, SourceOptions())


def test_parquet_with_the_notes_of_hugging_face_is_parquet(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "train-00000-of-00001.parquet")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert guess_kind(str(tmp_path)) == "parquet"
    assert told(tmp_path) == []


@pytest.mark.parametrize("name", [b"x\xff.csv", b"sub\xff/x.csv"])
def test_a_name_that_is_no_utf_8_is_refused_by_name(tmp_path, name):
    write(tmp_path, "a.csv", os.fsdecode(name))
    for source in (tmp_path, f"{tmp_path}/*", tmp_path / os.fsdecode(name)):
        with pytest.raises(SourceError, match=r"\\xff.* is no UTF-8 text: rename it") as caught:
            convert(source, tmp_path / "set")
        assert str(caught.value).isascii()
