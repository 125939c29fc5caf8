"""A folder of Parquet files without a manifest on a real S3 server."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import BadColumnError, DatasetNotFoundError, ShardError, open_dataset
from heliostat.data.remote.cache import FOLDER_NAME
from heliostat.data.remote.filesystem import RemoteFolder
from heliostat.data.upload import upload_dataset
from heliostat.data.verify import verify

from ..object_store import ObjectStore

pytestmark = [
    pytest.mark.filterwarnings("ignore:A full shuffle of:UserWarning"),
]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.close()


def table(start: int, stop: int) -> pa.Table:
    rows = range(start, stop)
    columns = {
        "id": pa.array(rows, pa.int64()),
        "text": pa.array([f"row {one}" * (one % 4) for one in rows], pa.string()),
        "v": pa.array([one / 2 for one in rows], pa.float64()),
    }
    return pa.table(columns)


@pytest.fixture
def here(tmp_path):
    """The folder on this host, with files that are no part of it."""
    folder = tmp_path / "here"
    folder.mkdir()
    for number, (start, stop) in enumerate([(0, 500), (500, 500), (500, 1200)]):
        pq.write_table(table(start, stop), folder / f"part-{number}.parquet", row_group_size=128)
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "notes.txt").write_text("nothing")
    return folder


def put(store: ObjectStore, folder: Any) -> str:
    uri = store.uri(f"{store.new_bucket()}/part")
    for path in folder.iterdir():
        RemoteFolder(uri).upload(path.name, lambda path=path: [path.read_bytes()])
    return uri


def test_it_is_the_dataset_that_it_would_be_here(store, here, tmp_path):
    local = open_dataset(here)
    uri = put(store, here)
    remote = open_dataset(uri, cache_dir=tmp_path / "cache")
    assert len(remote) == len(local) == 1200
    assert remote.schema == local.schema
    assert remote.fingerprint == local.fingerprint
    assert remote.statistics == local.statistics
    # Nothing but footers was fetched.
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    pickled = pickle.loads(pickle.dumps(remote))
    for dataset, same in ((remote, local), (pickled, local), (remote.split(0.5)[0], local.split(0.5)[0])):
        for found, rows in zip(dataset.batches(100, seed=4), same.batches(100, seed=4), strict=True):
            assert found["id"].tolist() == rows["id"].tolist()
            assert found["v"].tolist() == rows["v"].tolist()
            assert found["text"].to_list() == rows["text"].to_list()
    # Whole files, each once, and their row groups.
    assert len(list((tmp_path / "cache" / FOLDER_NAME).glob("*.parquet"))) == 2
    assert len(list((tmp_path / "cache" / FOLDER_NAME).glob("*.decoded"))) == 4 + 6
    assert verify(remote).num_damaged_rows == 0
    remote.check()


def test_a_file_that_changed_is_refused(store, here, tmp_path):
    uri = put(store, here)
    remote = open_dataset(uri, cache_dir=tmp_path / "cache")
    pq.write_table(table(1, 501), here / "part-0.parquet", row_group_size=128)
    RemoteFolder(uri).upload("part-0.parquet", lambda: [(here / "part-0.parquet").read_bytes()])
    with pytest.raises(ShardError, match=r"part-0\.parquet arrived 3 times with"):
        list(remote.batches(100, shuffle=False))
    with pytest.raises(ShardError, match=r"part-0\.parquet.* has \d+ bytes; its manifest says"):
        remote.check()


def test_what_makes_no_dataset_is_named(store, here):
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), here / "part-3.parquet")
    with pytest.raises(ShardError, match=r"s3://.*/part/part-3\.parquet has no column 'v', which part-0\.parquet has"):
        open_dataset(put(store, here))
    pq.write_table(table(0, 3).set_column(2, "v", pa.array([1.0, None, 2.0])), here / "part-3.parquet")
    with pytest.raises(BadColumnError, match=r"part-3\.parquet has missing values in row group 0"):
        open_dataset(put(store, here))
    (here / "part-3.parquet").write_bytes(b"no Parquet at all")
    with pytest.raises(ShardError, match=r"part-3\.parquet .*is not a readable Parquet file"):
        open_dataset(put(store, here))
    (here / "part-3.parquet").unlink()
    pyarrow.feather.write_feather(table(0, 3), here / "part-3.arrow")
    with pytest.raises(DatasetNotFoundError, match=r"part-3\.arrow is an Arrow file.*upload_dataset"):
        open_dataset(put(store, here))
    with pytest.raises(DatasetNotFoundError, match=r"neither manifest\.json nor Parquet files"):
        open_dataset(store.uri(f"{store.new_bucket()}/part"))


def test_it_can_be_uploaded_as_a_dataset(store, here, tmp_path):
    remote = open_dataset(put(store, here), cache_dir=tmp_path / "cache")
    again = upload_dataset(remote, store.uri(f"{store.new_bucket()}/set"))
    assert all(len(shard.xxh3_128) == 32 for shard in again.shards)
    assert sum(len(batch["id"]) for batch in again.batches(300)) == 1200
    assert again.statistics["text"].lengths.max == len("row 1000") * 3
    local = upload_dataset(open_dataset(here), store.uri(f"{store.new_bucket()}/set"))
    assert local.fingerprint == again.fingerprint
    assert repr(local.statistics) == repr(again.statistics)  # text has NaN for smallest and largest
