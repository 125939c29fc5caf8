"""The cache of remote shards and what decides for it, without a server: order of deletion, limits, locks, retries."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash
from heliostat.data import write_dataset
from heliostat.data.errors import CacheError, RemoteError, ShardError
from heliostat.data.order.order import RowOrder
from heliostat.data.read.upcoming import ShardTable, Upcoming
from heliostat.data.remote.byte_locks import ByteLocks, byte_locked
from heliostat.data.remote.fetch_ahead import ShardPrefetcher
from heliostat.data.remote.filesystem import is_uri, shown_uri
from heliostat.data.remote.remote_dataset import open_remote
from heliostat.data.remote.retry import GaveUpError, RetryPolicy, may_pass, with_retries
from heliostat.data.remote.shard_cache import (
    CachedFile,
    ShardCache,
    WantedFile,
    eviction_order,
    missing_bytes,
    shard_cache,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 1000


def wanted(number: int, *, arrives: bytes | None = None, log: list[int] | None = None) -> WantedFile:
    data = bytes([number]) * SIZE
    digest = xxhash.xxh3_128_hexdigest(data)

    def download(write: Callable) -> None:
        if log is not None:
            log.append(number)
        write(data if arrives is None else arrives)

    return WantedFile(
        name=f"{digest}.arrow", num_bytes=SIZE, xxh3_128=digest, origin=f"s3://bucket/{number}", download=download
    )


def fetch(cache: ShardCache, file: WantedFile, **options) -> bool:
    cache.use(file.name)
    try:
        return cache.fetch(file, **options)
    finally:
        cache.release(file.name)


def names(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.glob("[!.]*")}


def test_a_file_gets_its_name_only_with_the_right_bytes(tmp_path):
    cache, log = shard_cache(tmp_path, None), []
    good = wanted(1, log=log)
    assert fetch(cache, good)
    assert not fetch(cache, good)
    assert log == [1]
    assert (cache.folder / good.name).read_bytes() == b"\1" * SIZE
    for arrives, what in ((b"\2" * (SIZE - 1) + b"\3", "xxh3_128"), (b"\2" * 9, "9 bytes"), (b"\2" * 2000, "2,000 b")):
        with pytest.raises(ShardError, match=rf"s3://bucket/2 arrived 3 times with {what}"):
            fetch(cache, wanted(2, arrives=arrives))
    assert names(cache) == {good.name}


def test_a_file_of_another_size_is_fetched_again(tmp_path):
    cache, file = shard_cache(tmp_path, None), wanted(1)
    (cache.folder / file.name).write_bytes(b"cut")
    assert fetch(cache, file)
    assert (cache.folder / file.name).stat().st_size == SIZE


def test_those_used_longest_ago_go_first_and_foreign_files_never(tmp_path):
    cache = shard_cache(tmp_path, 3 * SIZE)
    foreign = {
        cache.folder / "notes.txt": b"n" * 50_000,
        cache.folder / f"{'a' * 32}.arrow.backup": b"x" * 50_000,
        tmp_path / f"{'b' * 32}.arrow": b"y" * 50_000,
    }
    for path, data in foreign.items():
        path.write_bytes(data)
    (cache.folder / f"{'c' * 32}.arrow").mkdir()
    (cache.folder / f"{'d' * 32}.arrow").symlink_to(tmp_path / f"{'b' * 32}.arrow")
    files = [wanted(number) for number in range(5)]
    for file in files[:3]:
        fetch(cache, file)
    fetch(cache, files[0])  # used again
    fetch(cache, files[3])
    own = {path.name for path in cache.folder.glob("*.arrow") if path.is_file() and not path.is_symlink()}
    assert own == {files[number].name for number in (0, 2, 3)}
    fetch(cache, files[4], coming=[files[3].name, files[4].name, files[0].name, files[2].name])
    own = {path.name for path in cache.folder.glob("*.arrow") if path.is_file() and not path.is_symlink()}
    assert own == {files[number].name for number in (0, 3, 4)}
    assert {path: path.read_bytes() for path in foreign} == foreign
    assert (cache.folder / f"{'c' * 32}.arrow").is_dir()


def test_files_in_use_are_never_deleted(tmp_path):
    cache = shard_cache(tmp_path, 2 * SIZE)
    first, second, third = (wanted(number) for number in range(3))
    fetch(cache, first)
    cache.use(first.name)
    cache.use(first.name)
    fetch(cache, second)
    fetch(cache, third)
    assert names(cache) == {first.name, third.name}
    cache.use(third.name)
    cache.release(first.name)  # one of two uses
    with pytest.raises(
        CacheError, match=r"no room for s3://bucket/1 \(1,000 bytes\): its limit is 2,000 bytes, and 2,000"
    ):
        fetch(cache, second)
    cache.release(first.name)
    fetch(cache, second)
    assert names(cache) == {second.name, third.name}
    cache.release(third.name)


_USER = """
import sys
from pathlib import Path
from heliostat.data.remote.shard_cache import shard_cache
cache = shard_cache(Path(sys.argv[1]), 2000)
cache.use(sys.argv[2])
print("in use", flush=True)
sys.stdin.read()
"""


def test_files_that_another_process_uses_stay_until_it_is_dead(tmp_path):
    cache, files = shard_cache(tmp_path, 2 * SIZE), [wanted(number) for number in range(4)]
    fetch(cache, files[0])
    command = [sys.executable, "-c", _USER, str(tmp_path), files[0].name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in use\n"
        fetch(cache, files[1])
        fetch(cache, files[2])
        assert names(cache) == {files[0].name, files[2].name}
        other.kill()
    fetch(cache, files[3])
    assert names(cache) == {files[2].name, files[3].name}


def test_threads_share_one_fetch(tmp_path):
    cache, log, begun, go = shard_cache(tmp_path, None), [], threading.Event(), threading.Event()
    plain = wanted(7, log=log)

    def download(write: Callable) -> None:
        begun.set()
        assert go.wait(60)
        plain.download(write)

    file = WantedFile(name=plain.name, num_bytes=SIZE, xxh3_128=plain.xxh3_128, origin="s3://b/7", download=download)
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(cache, file))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, True]
    assert log == [7]


def test_a_file_larger_than_the_cache_is_refused_before_anything_is_deleted(tmp_path):
    cache = shard_cache(tmp_path, SIZE)
    fetch(cache, wanted(1))
    large = WantedFile(
        name=f"{'e' * 32}.arrow", num_bytes=SIZE + 1, xxh3_128="e" * 32, origin="s3://b/x", download=print
    )
    with pytest.raises(CacheError, match=r"1,001 bytes\): its limit is 1,000"):
        fetch(cache, large, wait_s=60)
    assert names(cache) == {wanted(1).name}


def test_what_a_dead_fetcher_left_is_removed_when_room_is_needed(tmp_path):
    cache = shard_cache(tmp_path, 2 * SIZE)
    (cache.folder / f"{wanted(1).name}.fetching").write_bytes(b"?" * SIZE)
    fetch(cache, wanted(2))
    fetch(cache, wanted(3))
    assert names(cache) == {wanted(2).name, wanted(3).name}


def test_idle_holders_of_the_process_make_room(tmp_path):
    cache, file = shard_cache(tmp_path, SIZE), wanted(1)
    fetch(cache, file)
    cache.use(file.name)

    class Holder:
        holds = True

        def release_idle(self) -> bool:
            held, self.holds = self.holds, False
            if held:
                cache.release(file.name)
            return held

    holder = Holder()
    cache.add_holder(holder)
    with pytest.raises(CacheError):
        fetch(cache, wanted(2))
    assert fetch(cache, wanted(2), wait_s=60)
    assert not holder.holds


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"The cache of remote shards cannot use .*file"):
        ShardCache(tmp_path / "file", None)


def test_byte_locks_exclude_and_share(tmp_path):
    first, second = ByteLocks(tmp_path / "locks"), ByteLocks(tmp_path / "locks")
    first.share(2**61)
    second.share(2**61)
    assert not second.try_take(2**61)
    first.release(2**61)
    assert second.try_take(2**61)
    assert first.try_take(5)
    second.close()
    with byte_locked(tmp_path / "locks", 2**61):
        assert not first.try_take(2**61)
    assert first.try_take(2**61)
    first.close()


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12, unique=True),
    st.permutations(range(10)),
    st.integers(0, 10),
    st.integers(0, 9),
)
def test_eviction_order(present, order, num_coming, target):
    coming = [str(number) for number in order[:num_coming]]
    files = [CachedFile(name=str(n), num_bytes=1, last_used_ns=n, is_part=is_part) for n, is_part in present]
    result = eviction_order(files, coming, str(target))
    whole = [file.name for file in result if not file.is_part]
    assert [file.is_part for file in result] == sorted((file.is_part for file in result), reverse=True)
    assert str(target) not in whole
    before = coming[: coming.index(str(target))] if str(target) in coming else []
    assert not set(before) & set(whole)
    unknown = [name for name in whole if name not in coming]
    assert unknown == sorted(unknown, key=int)
    assert whole[len(unknown) :] == [name for name in reversed(coming) if name in whole]


def test_room_is_limited_by_cache_and_disk():
    gib = 1 << 30
    assert missing_bytes(10, 90, 100, gib) <= 0
    assert missing_bytes(11, 90, 100, gib) == 1
    assert missing_bytes(11, 90, None, gib) <= 0
    assert missing_bytes(gib, 0, None, gib) > 0


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 9000),
    st.integers(1, 900),
    st.sampled_from([False, "full", "window:700:50"]),
    st.lists(st.integers(0, 8999), min_size=1, max_size=6),
    st.integers(0, 20),
)
def test_lookahead_knows_what_comes(num_rows, rows_per_shard, shuffle, positions, ahead_shards):
    order = RowOrder(num_rows=num_rows, seed=3, shuffle=shuffle)
    first = np.arange(0, num_rows, rows_per_shard)
    table = ShardTable(first, np.arange(first.size))
    lookahead = Upcoming(order, table, [10] * first.size, ahead_shards * 10)
    for position in (position % num_rows for position in positions):
        coming = lookahead.advance(position)
        next_rows = table.of_rows(order.rows(position, min(position + 50, num_rows)))
        assert set(next_rows.tolist()) <= set(coming)
        assert len(coming) == len(set(coming))
        rest = set(table.of_rows(order.rows(position, num_rows)).tolist())
        assert len(coming) > ahead_shards or rest <= set(coming)
        assert lookahead.advance(position) is coming


def test_what_is_needed_is_fetched_although_all_threads_are_busy_ahead():
    busy, go, fetched = threading.Semaphore(0), threading.Event(), []

    def fetch_one(shard: int, patience_s: float | None) -> None:
        if patience_s is None:
            busy.release()
            assert go.wait(60)
        fetched.append(shard)

    prefetcher = ShardPrefetcher(fetch_one, num_threads=2)
    prefetcher.want([1, 2, 3])
    for _ in range(2):
        assert busy.acquire(timeout=60)
    prefetcher.need([9, 8])
    assert sorted(fetched) == [8, 9]
    go.set()
    prefetcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "heliostat-fetch"]


def test_errors_ahead_are_forgotten_and_errors_of_needs_raised():
    failed = threading.Event()

    def fail(shard: int, patience_s: float | None) -> None:
        if patience_s is None:
            failed.set()
        raise RemoteError(f"shard {shard}")

    prefetcher = ShardPrefetcher(fail)
    prefetcher.want([1])
    assert failed.wait(60)
    with pytest.raises(RemoteError, match="shard 4"):
        prefetcher.need([4])
    prefetcher.close()


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_waits_double_up_to_a_limit(num_failures, draw):
    policy = RetryPolicy(first_wait_s=0.5, longest_wait_s=8.0)
    wait_s = policy.wait_s(num_failures, draw)
    full = min(8.0, 0.5 * 2 ** min(num_failures - 1, 10))
    assert full / 2 <= wait_s <= full


def test_only_failures_that_may_pass_are_attempted_again():
    attempts: list[int] = []

    def fail(error: Exception) -> Callable[[], None]:
        def action() -> None:
            attempts.append(1)
            raise error

        return action

    policy = RetryPolicy(attempts=3, first_wait_s=0.0)
    with pytest.raises(GaveUpError, match="3 attempts failed, the last one with OSError: reset"):
        with_retries(fail(OSError("reset")), policy)
    assert len(attempts) == 3
    for error in (FileNotFoundError("x"), OSError("AWS Error ACCESS_DENIED during HeadObject operation")):
        attempts.clear()
        assert not may_pass(error)
        with pytest.raises(type(error)):
            with_retries(fail(error), policy)
        assert len(attempts) == 1
    stop = threading.Event()
    stop.set()
    attempts.clear()
    with pytest.raises(GaveUpError):
        with_retries(fail(OSError("reset")), policy, stop)
    assert len(attempts) == 1


def test_uris():
    assert is_uri("s3://bucket/a")
    assert not is_uri("/data/a")
    assert not is_uri("C:/data")
    assert not is_uri(Path("s3://bucket"))
    assert shown_uri("s3://user:password@bucket/a/b/?endpoint_override=h:1") == "s3://bucket/a/b"
    assert shown_uri("abfss://box:password@account/a?key=1") == "abfss://box@account/a"


def test_other_file_systems_are_read_through_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    local = write_dataset(tmp_path / "set", {"x": np.arange(100)}, rows_per_shard=30)
    fsspec.filesystem("memory").put(str(local.path), "/heliostat-test", recursive=True)
    dataset = open_remote("memory://heliostat-test", cache_dir=tmp_path / "cache")
    dataset.check()
    found = [batch["x"].tolist() for batch in dataset.batches(40, shuffle=False)]
    assert [row for batch in found for row in batch] == list(range(100))
    fsspec.filesystem("memory").rm("/heliostat-test", recursive=True)
