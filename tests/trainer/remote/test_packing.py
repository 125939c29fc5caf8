"""What of a script's folder goes to a cluster, what is refused before anything is packed, and what comes out there."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import zipfile

import numpy as np
import pytest
from heliostat.cluster.head import archive as archives
from heliostat.data import write_dataset
from heliostat.trainer.errors import ConfigurationError
from heliostat.trainer.remote import packing
from heliostat.trainer.remote.packing import (
    DamagedPackageError,
    DataTooLargeError,
    FolderTooLargeError,
    pack_datasets,
    pack_folder,
    unpack,
)


@pytest.fixture
def folder(tmp_path):
    """A folder of a user's, with one of everything."""
    made = tmp_path / "work"
    for name in (
        "train.py",
        "config.json",
        "layers/__init__.py",
        "layers/deep/words.txt",
        "table.csv",
        "raw/a.parquet",
        "raw/labels.jsonl",
        "raw/train.tfrecord-00000-of-00001",
        "notes.md",
        ".git/config",
        ".env",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "conda/conda-meta/history",
        "runs/first/run.json",
        "kept/run.json",
        "kept/model.keras",
        "sent/submitted.json",
        "layers/__pycache__/a.pyc",
        "node_modules/a/index.js",
        "web/manifest.json",
    ):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(f"in {name}")
    write_dataset(made / "words", {"x": np.arange(100)}, rows_per_shard=40)
    (made / "run.sh").write_text("#!/bin/sh\n")
    (made / "run.sh").chmod(0o750)
    return made


def names(content):
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        return {entry.filename: opened.read(entry).decode() for entry in opened.infolist()}


CODE = {"train.py", "config.json", "layers/__init__.py", "layers/deep/words.txt", "notes.md", "web/manifest.json"}
CODE |= {"run.sh"}
DATA = {"table.csv", "raw/a.parquet", "raw/labels.jsonl", "raw/train.tfrecord-00000-of-00001"}
DATA |= {"words/manifest.json", *(f"words/shard-0000{number}.arrow" for number in range(3))}


def test_code_and_data_travel_and_the_rest_is_named(folder):
    packed = pack_folder(folder)
    code = names(packed.code)
    assert set(code) == CODE
    assert code["train.py"] == "in train.py"
    assert set(names_of(packed.data)) == DATA
    assert set(packed.left_out) == {
        ".git/",
        ".env",
        "env/ (an environment)",
        "conda/ (an environment)",
        "runs/",
        "kept/ (a run)",
        "sent/ (a submitted run)",
        "layers/__pycache__/",
        "node_modules/",
    }
    assert packed.num_files == len(CODE) + len(DATA)
    assert packed.said.startswith("not sent: .env, .git/, ")
    assert packed.said.endswith(" and 4 more")


def names_of(pieces):
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as opened:
        return opened.namelist()


def test_the_same_folder_elsewhere_and_later_gives_the_same_bytes(folder, tmp_path):
    first = pack_folder(folder)
    copy = shutil.copytree(folder, tmp_path / "another place")
    for path in copy.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert pack_folder(copy) == first
    (copy / "train.py").write_text("in train.pY")
    assert pack_folder(copy).code != first.code
    assert pack_folder(copy).data == first.data


def test_links_that_lead_outside_or_back_and_what_is_no_file_are_left_out(folder, tmp_path):
    (tmp_path / "secret").write_text("outside")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "nothing").symlink_to("nowhere")
    (folder / "layers" / "up").symlink_to("..")
    (folder / "same.py").symlink_to("train.py")
    (folder / "copy").symlink_to("layers")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "door"))
        packed = pack_folder(folder)
    found = names(packed.code)
    assert found["same.py"] == "in train.py"
    assert set(found) == CODE | {"same.py", "copy/__init__.py", "copy/deep/words.txt"}
    said = set(packed.left_out)
    assert {f"out (a link to {tmp_path / 'secret'})", f"outside/ (a link to {tmp_path})"} <= said
    assert {"nothing (a link to nothing)", "layers/up/ (a link back)", "copy/up/ (a link back)"} <= said
    assert {"pipe (no file)", "door (no file)"} <= said


def test_a_name_that_is_no_text_is_left_out(folder):
    with open(os.path.join(os.fsencode(folder), b"\xff.txt"), "wb"):
        pass
    assert "\N{REPLACEMENT CHARACTER}.txt (its name is no UTF-8)" in pack_folder(folder).left_out


def test_a_folder_with_too_much_in_it_is_refused_before_it_is_packed(folder, monkeypatch):
    monkeypatch.setattr(packing, "archive", None)  # it is not called
    for name, size in (("a.bin", 50_000_000), ("layers/b.bin", 40_000_000), ("c.bin", 1)):
        with open(folder / name, "wb") as file:
            file.truncate(size)
    with pytest.raises(FolderTooLargeError) as caught:
        pack_folder(folder)
    assert isinstance(caught.value, ConfigurationError)
    assert (
        "90.0 MB besides data; up to 80.0 MB are sent. The largest: a.bin (50.0 MB), layers/b.bin (40.0 MB), "
        in str(caught.value)
    )


def test_too_many_data_are_refused_with_their_sizes(folder, monkeypatch):
    monkeypatch.setattr(packing, "archive", None)
    with open(folder / "words" / "shard-00000.arrow", "wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(DataTooLargeError, match=r"Data of 300 MB .*The largest: words/shard-00000\.arrow \(300 MB\), "):
        pack_folder(folder)
    with pytest.raises(DataTooLargeError, match=r"The largest: \.data/mine \(300 MB\), one \(0\.0 MB\)\."):
        pack_datasets({"one": folder / "table.csv", ".data/mine": folder / "words"})


def test_data_come_out_as_they_went_in_by_pieces(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PACKAGE_BYTES", 1000)
    packed = pack_folder(folder)
    assert len(packed.data) > 2
    assert {len(piece) for piece in packed.data[:-1]} == {1000}
    assert 0 < len(packed.data[-1]) <= 1000
    there = tmp_path / "there"
    there.mkdir()
    (there / "table.csv").write_text("something old")
    unpack(iter(packed.data), there)
    assert digests(there) == {name: digests(folder)[name] for name in DATA}


def digests(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_datasets_travel_under_the_names_that_they_get(folder, tmp_path):
    (folder / "raw" / "linked.parquet").symlink_to(folder / "raw" / "a.parquet")
    (folder / "raw" / "up").symlink_to("..")
    pieces = pack_datasets({".data/0": folder / "words", "one.csv": folder / "table.csv", ".data/1": folder / "raw"})
    there = tmp_path / "there"
    unpack(pieces, there)
    assert (there / "one.csv").read_text() == "in table.csv"
    assert digests(there / ".data" / "0") == digests(folder / "words")
    assert (there / ".data" / "1" / "linked.parquet").read_text() == "in raw/a.parquet"
    assert not (there / ".data" / "1" / "up").exists()
    assert pack_datasets({}) == ()


def test_whether_a_file_can_be_run_is_kept(folder, tmp_path):
    unpack(pack_datasets({"a": folder / "run.sh", "b": folder / "table.csv"}), tmp_path / "there")
    assert (tmp_path / "there" / "a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "there" / "b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["../out", "/tmp/helh-out", "a/../../out", "in/out"])
def test_an_archive_that_writes_elsewhere_is_refused_whole(tmp_path, name):
    there = tmp_path / "there"
    there.mkdir()
    (there / "in").symlink_to(tmp_path)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr("good", "good")
        opened.writestr(name, "bad")
    with pytest.raises(DamagedPackageError, match="is no file in the folder"):
        unpack([made.getvalue()], there)
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(there) == ["in"]


def test_a_link_in_an_archive_is_refused(tmp_path):
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr(entry, "/etc/passwd")
    with pytest.raises(DamagedPackageError):
        unpack([made.getvalue()], tmp_path)


def test_what_was_cut_short_or_altered_is_told(folder, tmp_path):
    (whole,) = pack_datasets({"words": folder / "words"})
    altered = bytearray(whole)
    altered[200] ^= 1
    for wrong in (whole[:-100], b"", bytes(altered)):
        with pytest.raises(DamagedPackageError, match="submit the script again"):
            unpack([wrong], tmp_path / "there")


def test_what_cannot_be_read_is_told_by_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere cannot be read, .*No such file"):
        pack_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"nowhere cannot be read, .*No such file"):
        pack_datasets({"x": tmp_path / "nowhere"})


def test_a_file_that_grows_while_it_is_packed_makes_no_broken_archive(tmp_path, monkeypatch):
    path = tmp_path / "growing.csv"
    path.write_bytes(b"a" * 1000)
    entry = archives._entry

    def grown(name, file):
        made = entry(name, file)
        with path.open("ab") as more:
            more.write(b"b" * 5000)
        return made

    monkeypatch.setattr(archives, "_entry", grown)
    pieces = pack_datasets({"x.csv": path})
    monkeypatch.undo()
    unpack(pieces, tmp_path / "there")
    assert (tmp_path / "there" / "x.csv").read_bytes() == b"a" * 1000 + b"b" * 5000
