"""Files of others may say anything: what they announce is bounded by what they hold, and damage names the file."""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import struct
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from heliostat.data import DatasetError, ManifestError, SourceError, open_dataset, write_dataset
from heliostat.data.conversion.from_numpy import npy_source
from heliostat.data.conversion.idx import read_idx
from heliostat.data.format.manifest import Manifest, read_manifest, write_manifest
from heliostat.data.format.shards import hash_file


@pytest.fixture
def small(tmp_path):
    """A dataset of one small shard."""
    write_dataset(tmp_path / "set", {"x": np.arange(24.0).reshape(12, 2), "y": np.arange(12)})
    return tmp_path / "set"


def rows_of(path):
    return [{name: values.tolist() for name, values in rows.items()} for rows in open_dataset(path).batches(5)]


def outcomes(path, file):
    """What is read, or what is said, for every byte of a file's footer with a bit turned; anything else is raised."""
    good = file.read_bytes()
    (num_bytes,) = struct.unpack("<i", good[-10:-6])
    for place in range(len(good) - 10 - num_bytes, len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (0, 3, 7)[place % 3]
        file.write_bytes(damaged)
        try:
            yield rows_of(path)
        except DatasetError as error:
            yield str(error)


def test_a_flip_in_every_byte_of_a_footer_gives_the_right_rows_or_an_error_with_the_file(small):
    (file,) = small.glob("*.arrow")
    expected = rows_of(small)
    found = list(outcomes(small, file))
    assert len(found) > 400
    refused = [said for said in found if said != expected]
    assert len(refused) > 100
    assert all(file.name in said for said in refused), refused


def test_a_flip_in_every_byte_of_another_programs_footer_is_no_bare_error(tmp_path):
    """Its rows carry no hash, so only the footer's own contradictions can show."""
    file = tmp_path / "set" / "a.arrow"
    file.parent.mkdir()
    table = pa.table({"größe": np.arange(12), "y": np.arange(12.0)})
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table)
    refused = [said for said in outcomes(file.parent, file) if isinstance(said, str)]
    assert len(refused) > 50
    assert all(str(file.parent) in said for said in refused), refused


def forged(path, change):
    """Change the manifest of a dataset so that it is consistent in itself."""
    content = json.loads((path / "manifest.json").read_text())
    change(content)
    (path / "manifest.json").write_text(json.dumps(content))


def nest(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda content: content.update(metadata={"a": nest(120)}), "nested more than 100 deep"),
        (
            lambda content: content.update(rows_per_batch=2**63),
            r"Expected `int` <= 9223372036854775807 - at `\$\.rows_per_batch`\. Write",
        ),
        (lambda content: content["columns"][0].update(shape=[2**40, 2**40]), "a row of float64 and shape"),
        (lambda content: content["columns"][0].update(dtype="O"), "a row of O and shape"),
        (lambda content: content["shards"][0].update(file="a\0b"), "is not the bare name of a file"),
        (lambda content: content["statistics"]["x"].update(min=10**400), "too large"),
    ],
)
def test_a_manifest_with_impossible_values_is_refused(small, change, what):
    forged(small, change)
    with pytest.raises(ManifestError, match=rf"manifest\.json .*({what})"):
        open_dataset(small)


@pytest.mark.parametrize("num_bytes", [1000, 2**50])
def test_more_record_batches_than_a_file_can_hold_are_refused(small, num_bytes):
    """Ten thousand million rows, one in each batch: a list of them would fill the memory."""
    before = read_manifest(small)
    (shard,) = before.shards
    shard = type(shard)(file=shard.file, num_rows=10**10, num_bytes=num_bytes, xxh3_128=shard.xxh3_128)
    manifest = Manifest(columns=before.columns, shards=(shard,), rows_per_batch=1, statistics=before.statistics)
    write_manifest(small, manifest)
    with pytest.raises(ManifestError, match=rf"manifest\.json .*10000000000 record batches and {num_bytes} bytes"):
        open_dataset(small)


def peak_bytes(act):
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\0" * 64, "is not an IDX file"),
        (struct.pack(">4B3I", 0, 0, 0x0E, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "does not hold what its header"),
        (struct.pack(">4B", 0, 0, 0x08, 255), "is not an IDX file"),
        (struct.pack(">4B1I", 0, 0, 0x08, 1, 10), "does not hold what its header"),
    ],
    ids=["no header", "too large", "255 dimensions", "longer than it says"],
)
def test_a_gzip_bomb_for_idx_is_not_unpacked(tmp_path, start, what):
    path, size = tmp_path / "a.idx.gz", 1 << 25
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start + bytes(size))

    def read():
        with pytest.raises(SourceError, match=rf"a\.idx\.gz {what}"):
            read_idx(path)

    assert path.stat().st_size * 100 < size
    assert peak_bytes(read) < 1 << 22


def test_an_npy_file_of_impossible_shape_is_named(tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**64, 0)})
    with pytest.raises(SourceError, match=r"x\.npy cannot be read as \.npy"):
        npy_source([tmp_path / "x.npy"], name="x")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_flush_folders_will_do(tmp_path, monkeypatch, number):
    fsync, num_refused = os.fsync, 0

    def refuses_folders(descriptor):
        nonlocal num_refused
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            num_refused += 1
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuses_folders)
    write_dataset(tmp_path / "set", {"x": np.arange(5)})
    assert num_refused > 0
    (file,) = (tmp_path / "set").glob("*.arrow")
    assert hash_file(file) == read_manifest(tmp_path / "set").shards[0].xxh3_128


def test_a_folder_that_cannot_be_flushed_for_another_reason_is_told(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write_dataset(tmp_path / "set", {"x": np.arange(5)})
