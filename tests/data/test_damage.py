"""Each kind of damage is found, by opening or by verify, and named with its file."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from heliostat.data import (
    DatasetNotFoundError,
    ManifestError,
    ShardError,
    open_dataset,
    write_dataset,
)
from heliostat.data.format.manifest import Manifest, Shard, read_manifest, write_manifest
from heliostat.data.format.shards import hash_file


@pytest.fixture
def path(tmp_path):
    values = np.random.default_rng(0).integers(0, 100, (9000, 4), dtype=np.int32)
    write_dataset(tmp_path / "set", {"x": values, "y": values[:, 0]}, rows_per_shard=5000)
    return tmp_path / "set"


def rewrite(path, change) -> None:
    content = json.loads((path / "manifest.json").read_text())
    change(content)
    (path / "manifest.json").write_text(json.dumps(content))


def forge(path, **changed_in_second_shard) -> None:
    """A manifest that is consistent in itself but describes another second shard."""
    manifest = read_manifest(path)
    first, second = manifest.shards
    fields = {name: getattr(second, name) for name in ("file", "num_rows", "num_bytes", "xxh3_128")}
    second = Shard(**{**fields, **changed_in_second_shard})
    write_manifest(
        path,
        Manifest(
            columns=manifest.columns,
            shards=(first, second),
            rows_per_batch=manifest.rows_per_batch,
            statistics=manifest.statistics,
        ),
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_a_folder_or_file_that_is_no_dataset_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetNotFoundError, match=r"has no manifest\.json"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="it is a file"):
        open_dataset(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", '{"format": ', "\x00\xff", "[" * 100_000])
def test_a_manifest_that_is_not_json_is_refused(path, text):
    (path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError, match="is not valid JSON"):
        open_dataset(path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "other"}'])
def test_json_of_another_kind_is_refused(path, text):
    (path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match="is not a Heliostat manifest"):
        open_dataset(path)


def test_a_newer_format_asks_for_an_upgrade(path):
    rewrite(path, lambda content: content.update(format_version=3))
    with pytest.raises(ManifestError, match=r"format version 3; this Heliostat reads up to 2.*upgrade"):
        open_dataset(path)


@pytest.mark.parametrize("version", [0, None, "1", True, 1.0])
def test_a_senseless_format_version_is_refused(path, version):
    rewrite(path, lambda content: content.update(format_version=version))
    with pytest.raises(ManifestError, match="makes no sense"):
        open_dataset(path)


@pytest.mark.parametrize("key", ["num_rows", "rows_per_batch", "fingerprint", "columns", "statistics", "shards"])
def test_a_missing_key_is_named(path, key):
    rewrite(path, lambda content: content.pop(key))
    with pytest.raises(ManifestError, match=f"lacks the key '{key}'"):
        open_dataset(path)


@pytest.mark.parametrize("key", ["file", "num_rows", "num_bytes", "xxh3_128"])
def test_a_missing_key_of_a_shard_is_named(path, key):
    rewrite(path, lambda content: content["shards"][1].pop(key))
    with pytest.raises(ManifestError, match=f"lacks the key '{key}'"):
        open_dataset(path)


SENSELESS = {
    "row count": lambda content: content["shards"][0].update(num_rows=-5),
    "row count as text": lambda content: content["shards"][0].update(num_rows="5000"),
    "file elsewhere": lambda content: content["shards"][0].update(file="../../etc/passwd"),
    "no shards": lambda content: content.update(shards=[]),
    "no columns": lambda content: content.update(columns=[]),
    "shards of another kind": lambda content: content.update(shards=7),
    "unknown dtype": lambda content: content["columns"][0].update(dtype="float99"),
    "dtype of objects": lambda content: content["columns"][0].update(dtype="object"),
    "repeated column": lambda content: content["columns"].append(content["columns"][0]),
}


@pytest.mark.parametrize("kind", SENSELESS)
def test_senseless_values_are_refused(path, kind):
    rewrite(path, SENSELESS[kind])
    with pytest.raises(ManifestError, match="makes no sense"):
        open_dataset(path)


EDITS = {
    "total": lambda content: content.update(num_rows=9001),
    "rows": lambda content: content["shards"][0].update(num_rows=4999),
    "hash": lambda content: content["shards"][0].update(xxh3_128="0" * 32),
    "dtype": lambda content: content["columns"][0].update(dtype="float32"),
    "shape": lambda content: content["columns"][0].update(shape=[2, 2]),
    "order": lambda content: content["shards"].reverse(),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_manifest_is_refused(path, kind):
    rewrite(path, EDITS[kind])
    with pytest.raises(ManifestError, match="edited after it was written"):
        open_dataset(path)


def test_a_missing_shard_is_named(path):
    os.remove(path / "shard-00001.arrow")
    with pytest.raises(ShardError, match=r"shard-00001\.arrow of dataset .* cannot be found") as caught:
        open_dataset(path)
    assert caught.value.path == str(path / "shard-00001.arrow")


@pytest.mark.parametrize("num_bytes", [0, 1, 50_000])
def test_a_shard_that_was_cut_short_is_named(path, num_bytes):
    os.truncate(path / "shard-00001.arrow", num_bytes)
    with pytest.raises(ShardError, match=rf"shard-00001\.arrow of dataset .* has {num_bytes} bytes; its manifest says"):
        open_dataset(path)


def test_a_shard_that_was_cut_short_is_named_even_if_the_manifest_agrees(path):
    os.truncate(path / "shard-00001.arrow", 50_000)
    forge(path, num_bytes=50_000)
    with pytest.raises(ShardError, match=r"shard-00001\.arrow .* is not a readable Arrow file"):
        open_dataset(path)


def test_a_flipped_bit_is_found_by_verify(path):
    dataset = open_dataset(path)
    dataset.verify()
    with open(path / "shard-00001.arrow", "r+b") as file:
        file.seek(20_000)
        byte = file.read(1)[0]
        file.seek(20_000)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(ShardError, match=r"shard-00001\.arrow .* has xxh3_128 [0-9a-f]{32}; its manifest says"):
        open_dataset(path).verify()


@pytest.mark.parametrize(
    ("num_rows", "message"), [(3999, "4000 rows up to"), (4001, "4000 rows|1 record"), (9000, "record batches")]
)
def test_a_shard_with_another_number_of_rows_is_named(path, num_rows, message):
    forge(path, num_rows=num_rows)
    with pytest.raises(ShardError, match=rf"shard-00001\.arrow .*({message})"):
        open_dataset(path)


def test_a_shard_with_other_columns_is_named(path, tmp_path):
    other = write_dataset(tmp_path / "other", {"x": np.zeros((4000, 4), np.int64), "y": np.zeros(4000, np.int32)})
    shutil.copy(other.path / "shard-00000.arrow", path / "shard-00001.arrow")
    forge(
        path,
        num_bytes=(path / "shard-00001.arrow").stat().st_size,
        xxh3_128=hash_file(path / "shard-00001.arrow"),
    )
    with pytest.raises(ShardError, match=r"shard-00001\.arrow .* has the columns x: .*int64.*manifest says x: .*int32"):
        open_dataset(path)


def test_a_shard_that_disappears_after_opening_is_named_when_its_rows_are_read(path):
    dataset = open_dataset(path)
    os.remove(path / "shard-00001.arrow")
    with dataset.reader() as reader:
        reader.gather(np.array([4999]))
        with pytest.raises(ShardError, match=r"shard-00001\.arrow"):
            reader.gather(np.array([5000]))
