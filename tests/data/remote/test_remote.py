"""Datasets on a real S3 server, behind a relay that cuts, delays and damages what passes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from heliostat.data import (
    BadColumnError,
    DatasetExistsError,
    DatasetNotFoundError,
    ManifestError,
    ShardError,
    open_dataset,
    write_dataset,
)
from heliostat.data.errors import CacheError, RemoteError
from heliostat.data.opening import open_remote
from heliostat.data.order.order import RowOrder
from heliostat.data.remote.cache import FOLDER_NAME
from heliostat.data.remote.files import RemoteFiles, local_name
from heliostat.data.remote.filesystem import RemoteFolder, shown_uri
from heliostat.data.remote.retry import RetryPolicy
from heliostat.data.stored import StoredDataset
from heliostat.data.upload import upload_dataset
from heliostat.data.verify import verify
from heliostat.data.writer import DatasetWriter

from ..object_store import SECRET, ObjectStore
from ..old_parquet import write_parquet
from ..slow_relay import Fault, SlowRelay

pytestmark = [
    pytest.mark.filterwarnings("ignore:A full shuffle of:UserWarning"),
]

NUM_ROWS, ROWS_PER_SHARD = 4000, 500
QUICK = RetryPolicy(attempts=4, first_wait_s=0.01, longest_wait_s=0.02)
ORDERS = ["full", "window:1000:500", False]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.close()


@pytest.fixture
def relay(store: ObjectStore) -> Iterator[SlowRelay]:
    between = SlowRelay(("127.0.0.1", store.port))
    yield between
    between.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    numbers = np.random.default_rng(3)
    rows = {
        "x": numbers.integers(0, 256, (NUM_ROWS, 7, 5), dtype=np.uint8),
        "y": np.arange(NUM_ROWS),
        "text": [f"row {row}" * (row % 5) for row in range(NUM_ROWS)],
    }
    with DatasetWriter(tmp_path_factory.mktemp("remote") / "set", rows_per_shard=ROWS_PER_SHARD) as writer:
        writer.write(rows)
    return writer.dataset


@pytest.fixture(scope="module")
def place(store: ObjectStore, local: StoredDataset) -> str:
    """bucket/folder of the uploaded dataset, which no test changes."""
    where = f"{store.new_bucket()}/some/set"
    upload_dataset(local, store.uri(where))
    return where


@pytest.fixture
def opened(store: ObjectStore, relay: SlowRelay, place: str, tmp_path: Path) -> Callable[..., StoredDataset]:
    def open_it(where: str = place, **settings) -> StoredDataset:
        settings = {"cache_dir": tmp_path / "cache", "retry": QUICK, "timeout_s": 5.0, **settings}
        return open_remote(store.uri(where, relay.port), **settings)

    return open_it


def cached(dataset: StoredDataset) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in dataset.path.glob("[!.]*")}


def all_rows(dataset, **options) -> list[dict]:
    return list(dataset.batches(256, seed=5, epoch=2, **options))


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name in ("x", "y"):
            np.testing.assert_array_equal(one[name], other[name])
        assert one["text"].to_list() == other["text"].to_list()


def test_length_schema_and_fingerprint_are_known_without_fetching_a_shard(opened, relay, local):
    dataset = opened()
    assert (len(dataset), dict(dataset.schema), dataset.fingerprint) == (NUM_ROWS, local.schema, local.fingerprint)
    assert repr(dataset.statistics) == repr(local.statistics)  # with NaN, which equals nothing
    dataset.check()
    assert relay.count("GET", ".arrow") == relay.count("HEAD", ".arrow") == 0
    assert relay.count("GET", "/manifest.json") == 2
    assert cached(dataset) == {}


@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize("num_shards_in_cache", [None, 4])
def test_rows_are_those_of_the_local_dataset(opened, relay, local, shuffle, num_shards_in_cache):
    shard_bytes = max(shard.num_bytes for shard in local.shards)
    limit = None if num_shards_in_cache is None else num_shards_in_cache * shard_bytes
    dataset = opened(cache_bytes=limit)
    if shuffle == "full" and limit is not None:
        with pytest.raises(CacheError, match=r"A full shuffle of s3://.* needs all its shards at once"):
            all_rows(dataset, shuffle=shuffle)
        return
    assert_equal(all_rows(dataset, shuffle=shuffle), all_rows(local, shuffle=shuffle))
    if limit is None:
        # Every shard once, whoever asked for it first.
        assert relay.count("GET", ".arrow") == len(local.shards)
        assert len(cached(dataset)) == len(local.shards)
    else:
        assert sum(cached(dataset).values()) <= limit


def test_a_second_pass_fetches_nothing(opened, relay, local):
    dataset = opened()
    all_rows(dataset)
    before = relay.count("GET", ".arrow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is absent any more
        assert_equal(all_rows(opened()), all_rows(local))
    assert relay.count("GET", ".arrow") == before == len(local.shards)


def test_a_small_cache_gives_the_same_rows(opened, local):
    limit = 5 * max(shard.num_bytes for shard in local.shards)
    dataset = opened(cache_bytes=limit)
    found = all_rows(dataset, shuffle="window:1000:500")
    assert_equal(found, all_rows(local, shuffle="window:1000:500"))
    assert sum(cached(dataset).values()) <= limit


def test_coming_shards_are_fetched_while_rows_are_read(opened, relay, local):
    dataset, seen = opened(), threading.Event()
    last = f"/{dataset.shards[-1].file}"
    relay.fault = lambda method, path, number: seen.set() if method == "GET" and path.endswith(last) else None
    batches = dataset.batches(100, shuffle=False)
    next(batches)
    # Nobody has asked for rows of the last shard.
    assert seen.wait(60)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heliostat-fetch")]


def test_views_hand_down_which_rows_come(opened, relay, local):
    dataset, seen = opened(), threading.Event()
    last = f"/{dataset.shards[-1].file}"
    relay.fault = lambda method, path, number: seen.set() if method == "GET" and path.endswith(last) else None
    view = dataset.split(0.9, seed=1)[0].rename({"x": "pixels"})
    order = RowOrder(num_rows=len(view), shuffle=False)
    with view.reader() as reader:
        reader.prefetch(order, 0)
        first = reader.gather(order.rows(0, 100))
        assert seen.wait(60)
    expected = local.split(0.9, seed=1)[0].reader().gather(order.rows(0, 100))
    np.testing.assert_array_equal(first["y"], expected["y"])


def test_batches_of_views_fetch_ahead_too(opened, relay, local):
    dataset, seen = opened(), threading.Event()
    last = f"/{dataset.shards[-1].file}"
    relay.fault = lambda method, path, number: seen.set() if method == "GET" and path.endswith(last) else None
    view = dataset.split(0.9, seed=1)[0].map(lambda rows: {"z": rows["y"] + 1}, columns=["y"])
    batches = view.batches(50, shuffle=False)
    first = next(batches)
    assert seen.wait(60)
    batches.close()
    assert first["z"].tolist() == [y + 1 for y in next(local.split(0.9, seed=1)[0].batches(50, shuffle=False))["y"]]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heliostat-fetch")]


@pytest.mark.engine
def test_tf_data_fetches_ahead(opened, relay, local):
    dataset, seen = opened(), threading.Event()
    last = f"/{dataset.shards[-1].file}"
    relay.fault = lambda method, path, number: seen.set() if method == "GET" and path.endswith(last) else None
    iterator = iter(dataset.tf(50, shuffle=False))
    found = [next(iterator)]
    # Nobody has asked for rows of the last shard.
    assert seen.wait(60)
    found += list(iterator)
    for batch, rows in zip(found, local.batches(50, shuffle=False), strict=True):
        np.testing.assert_array_equal(batch["x"].numpy(), rows["x"])
        assert [text.decode() for text in batch["text"].numpy()] == rows["text"].to_list()
    del iterator


def test_a_full_shuffle_says_what_it_fetches(opened):
    with pytest.warns(UserWarning, match=r"A full shuffle of s3://bucket-\d+/some/set needs all its shards at once"):
        next(opened().batches(10))


def test_a_small_ahead_distance_fetches_few_shards(opened, relay, local):
    """Half of the cache is looked ahead, so a cache of four shards is not filled with all eight of them."""
    dataset = opened(cache_bytes=4 * max(shard.num_bytes for shard in local.shards))
    order = RowOrder(num_rows=len(dataset), shuffle=False)
    with dataset.reader() as reader:
        reader.prefetch(order, 0)
        reader.gather(order.rows(0, 100))
    assert relay.count("GET", ".arrow") < len(local.shards)


def first_body(fault: Fault, times: int = 1) -> Callable:
    """The fault for the first bodies of every shard."""
    return lambda method, path, number: (
        fault if method == "GET" and path.endswith(".arrow") and number < times else None
    )


@pytest.mark.parametrize(
    "fault",
    [
        Fault(flip_at=700),
        Fault(cut_after=500),
        Fault(cut_after=9000),
        Fault(cut_after=500, politely=True),
        Fault(delay_s=0.02),
    ],
    ids=["flipped bit", "cut early", "cut in the middle", "ended early", "slow"],
)
def test_a_passing_fault_changes_nothing(opened, relay, local, fault):
    relay.fault = first_body(fault)
    dataset = opened()
    assert_equal(all_rows(dataset, shuffle=False), all_rows(local, shuffle=False))
    for shard in dataset.shards:
        assert xxhash.xxh3_128_hexdigest((dataset.path / local_name(shard)).read_bytes()) == shard.xxh3_128
    if not fault.delay_s:
        assert relay.faults_done == len(local.shards)
        assert relay.count("GET", ".arrow") == 2 * len(local.shards)


def test_connections_that_are_always_cut_end_in_an_error_that_says_so(opened, relay):
    relay.fault = first_body(Fault(cut_after=100), times=10**9)
    with (
        opened().reader() as reader,
        pytest.raises(RemoteError, match=r"could not be read: 4 attempts failed") as caught,
    ):
        reader.gather(np.array([0]))
    text = str(caught.value)
    assert text.startswith("s3://bucket-")
    assert ".arrow" in text
    assert SECRET not in text
    assert relay.count("GET", ".arrow") == 4
    assert caught.value.__cause__ is not None


def test_a_server_that_is_gone_is_named(opened, relay, store, place):
    dataset = opened()
    relay.close()
    with dataset.reader() as reader, pytest.raises(RemoteError, match="4 attempts failed"):
        reader.gather(np.array([0]))
    with pytest.raises(RemoteError, match=r"some/set/manifest\.json could not be read: 4 attempts failed"):
        dataset.check()


def test_bytes_that_are_always_wrong_are_refused(opened, relay):
    relay.fault = first_body(Fault(flip_at=700), times=10**9)
    dataset = opened()
    with (
        dataset.reader() as reader,
        pytest.raises(ShardError, match=r"\.arrow arrived 3 times with xxh3_128 [0-9a-f]{32}"),
    ):
        reader.gather(np.array([0]))
    assert cached(dataset) == {}
    assert relay.count("GET", ".arrow") == 3


def test_an_error_of_a_shard_that_is_fetched_ahead_comes_where_its_rows_come(opened, relay, local):
    dataset = opened()
    last = f"/{dataset.shards[-1].file}"
    relay.fault = lambda method, path, number: Fault(cut_after=10) if method == "GET" and path.endswith(last) else None
    batches = dataset.batches(ROWS_PER_SHARD, shuffle=False)
    for number in range(len(local.shards) - 1):
        assert next(batches)["y"][0] == number * ROWS_PER_SHARD
    with pytest.raises(RemoteError, match="attempts failed"):
        next(batches)


_READ = """
import pickle, sys
import numpy as np
dataset = pickle.loads(sys.stdin.buffer.read())
print("ready", flush=True)
print(sum(int(batch["y"].sum()) for batch in dataset.batches(256, shuffle=False)))
"""


def test_processes_share_one_fetch(opened, relay, local):
    both_run = threading.Event()
    relay.fault = lambda method, path, number: None if both_run.wait(60) else Fault(cut_after=0)
    both_run.set()
    state = pickle.dumps(opened())
    both_run.clear()
    running = [
        subprocess.Popen([sys.executable, "-c", _READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for each in running:
        each.stdin.write(state)
        each.stdin.close()
    for each in running:
        assert each.stdout.readline() == b"ready\n"
    both_run.set()
    for each in running:
        assert int(each.stdout.read()) == sum(range(NUM_ROWS))
        each.stdout.close()
        assert each.wait(60) == 0
    assert relay.count("GET", ".arrow") == len(local.shards)


def test_a_fetcher_that_is_killed_leaves_its_shard_to_others(opened, relay, local, store, place):
    stuck = threading.Event()

    def fault(method, path, number):
        if method == "GET" and path.endswith(".arrow") and not stuck.is_set():
            stuck.set()
            return Fault(delay_s=3600)
        return None

    relay.fault = fault
    dataset = opened(timeout_s=3600)
    process = subprocess.Popen([sys.executable, "-c", _READ], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(pickle.dumps(dataset))
    process.stdin.close()
    assert stuck.wait(60)
    process.kill()
    process.wait()
    assert any(name.endswith(".fetching") for name in cached(dataset))
    assert_equal(all_rows(dataset, shuffle=False), all_rows(local, shuffle=False))
    assert not any(name.endswith(".fetching") for name in cached(dataset))


def test_a_pickled_dataset_is_uri_manifest_and_settings(opened, local):
    dataset = opened(cache_bytes=10**7)
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.fingerprint, again.name, again._files.settings) == (
        dataset.fingerprint,
        dataset.name,
        dataset._files.settings,
    )
    assert_equal(all_rows(again), all_rows(local))


def test_views_of_a_remote_dataset_give_the_rows_of_views_of_the_local_one(opened, local):
    for side in (0, 1):
        found, expected = (each.split(0.7, seed=1)[side].select_columns(["y"]) for each in (opened(), local))
        for one, other in zip(found.batches(100), expected.batches(100), strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])


def test_credentials_are_in_no_message(opened, store, place, relay):
    dataset = opened()
    for text in (repr(dataset), dataset.name, repr(RemoteFolder(store.uri(place))), shown_uri(store.uri(place))):
        assert SECRET not in text
        assert "test-key" not in text
    for uri in (
        f"s3://key:{SECRET}@buc ket/a",
        f"s3://key:{SECRET}@bucket/a?nonsense=1",
        f"nosuch://key:{SECRET}@host/a",
    ):
        with pytest.raises(RemoteError) as caught:
            open_dataset(uri)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_is_not_there_is_named(opened, store):
    with pytest.raises(
        DatasetNotFoundError, match=r"There is no dataset at s3://bucket-\d+/some/other: it has neither manif"
    ):
        opened(f"{store.new_bucket()}/some/other")


def test_a_missing_or_short_shard_is_found_by_check_and_when_it_is_read(opened, store, local):
    where = f"{store.new_bucket()}/set"
    upload_dataset(local, store.uri(where))
    dataset, there = opened(where), RemoteFolder(store.uri(where))
    first, second = (shard.file for shard in dataset.shards[:2])
    there.upload(second, lambda: [b"short"])
    with pytest.raises(ShardError, match=rf"{second} of dataset s3://.* has 5 bytes; its manifest says"):
        dataset.check()
    there.delete(first)
    with pytest.raises(ShardError, match=rf"{first} of dataset s3://.* cannot be found"):
        dataset.check()
    with dataset.reader() as reader:
        with pytest.raises(ShardError, match=rf"{first} of dataset s3://.* cannot be found"):
            reader.gather(np.array([0]))
        with pytest.raises(ShardError, match=r"arrived 3 times with 5 bytes"):
            reader.gather(np.array([ROWS_PER_SHARD]))
    report = verify(dataset)
    assert [damage.file for damage in report.damage] == [first, second]
    kept = dataset.without_corrupt()
    assert kept.skipped == {first: ROWS_PER_SHARD, second: ROWS_PER_SHARD}
    assert next(pickle.loads(pickle.dumps(kept)).batches(10, shuffle=False))["y"][0] == 2 * ROWS_PER_SHARD


def test_a_manifest_that_was_damaged_is_refused(opened, store, local):
    where = f"{store.new_bucket()}/set"
    upload_dataset(local, store.uri(where))
    RemoteFolder(store.uri(where)).upload("manifest.json", lambda: [b"{"])
    with pytest.raises(ManifestError, match=r"s3://.*manifest\.json is not valid JSON"):
        opened(where)


def test_verify_finds_a_damaged_copy_in_the_cache(opened):
    dataset = opened()
    all_rows(dataset, shuffle=False)
    assert verify(dataset).is_whole
    path = dataset.path / local_name(dataset.shards[2])
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    assert [damage.file for damage in verify(dataset).damage] == [dataset.shards[2].file]


def test_parquet_shards_are_read_too(opened, store, tmp_path):
    values = np.arange(1000)
    local = write_parquet(tmp_path / "set", {"x": values}, rows_per_shard=300)
    where = f"{store.new_bucket()}/set"
    upload_dataset(local, store.uri(where))
    dataset = opened(where, cache_bytes=11_000)
    found = np.concatenate([batch["x"] for batch in dataset.batches(64, shuffle=False)])
    np.testing.assert_array_equal(found, values)


def test_uploading_changes_nothing_of_the_source(store, local):
    before = {path.name: path.read_bytes() for path in local.path.iterdir()}
    upload_dataset(local, store.uri(f"{store.new_bucket()}/set"))
    assert {path.name: path.read_bytes() for path in local.path.iterdir()} == before


def test_an_upload_says_how_far_it_is_and_counts_no_byte_twice(tmp_path):
    here = write_dataset(tmp_path / "set", {"x": np.arange(1000)}, rows_per_shard=100)
    num_bytes, told = sum(shard.num_bytes for shard in here.shards), []
    upload_dataset(here, f"file://{tmp_path}/there", on_progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {num_bytes}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (num_bytes, num_bytes)
    upload_dataset(here, f"file://{tmp_path}/there", overwrite=True, on_progress=lambda *_: None)


def test_an_upload_that_fails_leaves_no_dataset_and_is_continued(opened, store, relay, local):
    where = f"{store.new_bucket()}/set"
    victim = f"/{local.shards[5].xxh3_128}.arrow"

    def fault(method, path, number):
        return Fault(cut_after=0) if method == "PUT" and path.endswith(victim) else None

    relay.fault = fault
    with pytest.raises(RemoteError, match="could not be written: 2 attempts failed"):
        upload_dataset(
            local, store.uri(where, relay.port), num_threads=1, retry=RetryPolicy(attempts=2, first_wait_s=0.01)
        )
    with pytest.raises(DatasetNotFoundError):
        opened(where)
    assert relay.count("PUT", "/manifest.json") == 0
    relay.fault = lambda *_: None
    sent = relay.count("PUT", ".arrow")
    upload_dataset(local, store.uri(where, relay.port))
    assert relay.count("PUT", ".arrow") - sent <= 3
    assert_equal(all_rows(opened(where)), all_rows(local))


def test_a_dataset_is_replaced_only_when_asked(store, tmp_path, opened):
    uri = store.uri(where := f"{store.new_bucket()}/set")
    old, new = (
        write_dataset(tmp_path / name, {"x": np.arange(10) * factor}) for name, factor in (("old", 1), ("new", 2))
    )
    before = upload_dataset(old, uri)
    with pytest.raises(DatasetExistsError, match=r"There is a dataset at s3://.* already"):
        upload_dataset(new, uri)
    upload_dataset(new, uri, overwrite=True)
    assert opened(where).fingerprint == new.fingerprint
    assert RemoteFolder(uri).sizes(shard.file for shard in before.shards) == {}
    with pytest.raises(ManifestError, match="was replaced"):
        before.check()


def test_a_shard_that_the_storage_damaged_is_sent_again_when_the_dataset_is_replaced(store, local, opened, relay):
    uri = store.uri(where := f"{store.new_bucket()}/set", relay.port)
    stored = upload_dataset(local, uri)
    victim = stored.shards[3]
    RemoteFolder(uri).upload(victim.file, lambda: [bytes(victim.num_bytes)])
    assert [damage.file for damage in verify(opened(where)).damage] == [victim.file]
    upload_dataset(local, uri, overwrite=True)
    assert verify(opened(where)).is_whole


def test_a_damaged_source_is_not_uploaded(store, tmp_path, opened):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(1000)})
    path = dataset.path / dataset.shards[0].file
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    where = f"{store.new_bucket()}/set"
    with pytest.raises(ShardError, match="so the dataset was not uploaded"):
        upload_dataset(dataset, store.uri(where))
    with pytest.raises(DatasetNotFoundError):
        opened(where)


def test_a_writer_to_a_uri_uploads_in_the_end_or_not_at_all(store, opened, tmp_path):
    where = f"{store.new_bucket()}/set"
    with pytest.raises(BadColumnError), DatasetWriter(store.uri(where), work_dir=tmp_path) as writer:
        writer.write({"x": np.arange(5), "y": np.arange(6)})
    with pytest.raises(DatasetNotFoundError):
        opened(where)
    with DatasetWriter(store.uri(where), work_dir=tmp_path, rows_per_shard=4) as writer:
        writer.write({"x": np.arange(5)})
        with pytest.raises(DatasetNotFoundError):
            opened(where)
    assert isinstance(writer.dataset._files, RemoteFiles)
    assert [batch["x"].tolist() for batch in opened(where).batches(3, shuffle=False)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(DatasetExistsError):
        DatasetWriter(store.uri(where), work_dir=tmp_path)
    with pytest.raises(BadColumnError), DatasetWriter(store.uri(where), work_dir=tmp_path, overwrite=True) as writer:
        writer.write({"x": np.arange(3), "y": np.arange(6)})
    assert len(opened(where)) == 5
    with DatasetWriter(store.uri(where), work_dir=tmp_path, overwrite=True) as writer:
        writer.write({"x": np.arange(7)})
    assert len(opened(where)) == 7
    with pytest.raises(ValueError, match="resume is for folders of this host"):
        DatasetWriter(store.uri(where), resume=True)
    assert list(tmp_path.glob("heliostat-*")) == []


def test_a_finished_dataset_is_kept_when_it_cannot_be_uploaded(store, relay, tmp_path):
    where = f"{store.new_bucket()}/set"
    with DatasetWriter(store.uri(where), rows_per_shard=4) as writer:
        writer.write({"x": np.arange(5)})
    writer = DatasetWriter(store.uri(where, relay.port), work_dir=tmp_path, overwrite=True)
    writer.write({"x": np.arange(9)})
    relay.close()
    with pytest.raises(RemoteError, match=r"The finished dataset is kept in .*upload_dataset") as caught:
        writer.close()
    assert SECRET not in str(caught.value)
    assert len(open_remote(store.uri(where))) == 5
    (kept,) = tmp_path.glob("heliostat-*/dataset")
    assert [batch["x"].tolist() for batch in open_dataset(kept).batches(9, shuffle=False)] == [list(range(9))]


_WRITER = """
import sys
import numpy as np
from heliostat.data import DatasetWriter
from heliostat.data.remote.filesystem import RemoteFolder
upload, moment = RemoteFolder.upload, sys.argv[2]

def stop(self, file, *arguments, **options):
    if moment == "manifest" and file != "manifest.json":
        return upload(self, file, *arguments, **options)
    print("now", flush=True)
    sys.stdin.readline()

RemoteFolder.upload = stop
with DatasetWriter(sys.argv[1], overwrite=True) as writer:
    writer.write({"x": np.arange(9)})
"""


@pytest.mark.parametrize("moment", ["first shard", "manifest"])
@pytest.mark.parametrize("had_one", [False, True])
def test_a_writer_that_is_killed_while_it_uploads_leaves_the_old_dataset_or_none(
    store, opened, tmp_path, moment, had_one
):
    where = f"{store.new_bucket()}/set"
    if had_one:
        with DatasetWriter(store.uri(where), work_dir=tmp_path) as writer:
            writer.write({"x": np.arange(5)})
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, store.uri(where), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        process.kill()
        process.communicate()
    if had_one:
        assert opened(where).verify() is None
        assert [batch["x"].tolist() for batch in opened(where).batches(5, shuffle=False)] == [list(range(5))]
    else:
        with pytest.raises(DatasetNotFoundError):
            opened(where)
    with DatasetWriter(store.uri(where), work_dir=tmp_path, overwrite=True) as writer:
        writer.write({"x": np.arange(9)})
    assert len(opened(where)) == 9


def test_a_view_is_uploaded_as_its_rows(store, opened, local):
    where = f"{store.new_bucket()}/set"
    upload_dataset(local.take(700), store.uri(where))
    assert_equal(all_rows(opened(where)), all_rows(local.take(700)))


def test_open_dataset_takes_uris(store, place, local, tmp_path):
    dataset = open_dataset(store.uri(place), cache_dir=tmp_path, cache_bytes=10**7)
    assert isinstance(dataset._files, RemoteFiles)
    assert dataset.path == tmp_path / FOLDER_NAME
    assert dataset.fingerprint == local.fingerprint
    with pytest.raises(ValueError, match="write_manifest is for folders"):
        open_dataset(store.uri(place), write_manifest=True)
    here = open_dataset(local.path.as_uri())
    assert type(here) is StoredDataset
    assert here.path == local.path
    assert_equal(all_rows(open_dataset(local.path.as_uri(), cache_dir=tmp_path)), all_rows(local))
