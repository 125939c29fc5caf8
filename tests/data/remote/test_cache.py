"""The cache of remote shards and what decides for it, without a server: order of deletion, limits, locks, retries."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import tenacity
import xxhash
from heliostat.data import write_dataset
from heliostat.data.errors import CacheError, ShardError
from heliostat.data.opening import open_remote
from heliostat.data.remote.cache import FOLDER_NAME, CacheFile, CacheSettings, ShardCache
from heliostat.data.remote.filesystem import connect, hide, is_uri, local_path, shown_uri
from heliostat.data.remote.retry import RetryPolicy, may_pass, retrying
from heliostat.data.remote.room import PresentFile, eviction_order, missing_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 1000


class Source:
    """A file of one byte many times, and its fetcher."""

    def __init__(self, number: int, *, arrives: bytes | None = None, log: list[int] | None = None) -> None:
        data = bytes([number]) * SIZE
        self._number, self._log, self._arrives = number, log, data if arrives is None else arrives
        digest = xxhash.xxh3_128_hexdigest(data)
        self.file = CacheFile(name=f"{digest}.arrow", num_bytes=SIZE, xxh3_128=digest, origin=f"s3://bucket/{number}")

    @property
    def name(self) -> str:
        return self.file.name

    def fetch(self, file: CacheFile, write: Callable, stop: threading.Event) -> None:
        if self._log is not None:
            self._log.append(self._number)
        write(self._arrives)


wanted = Source


def shard_cache(folder: Path, max_bytes: int | None) -> ShardCache:
    return ShardCache(folder / "shards", max_bytes)


def fetch(cache: ShardCache, source: Source, **options) -> bool:
    return cache.fetch(source.file, source, **options)


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


def test_what_is_made_here_may_be_larger_or_smaller_than_was_thought(tmp_path):
    cache = shard_cache(tmp_path, 3 * SIZE)
    fetch(cache, wanted(1))
    for number, num_bytes in enumerate((10, 2500)):
        made = CacheFile(name=f"{number:032x}.decoded", num_bytes=SIZE, xxh3_128=None, origin="a.parquet")

        class Maker:
            def fetch(self, file, write, stop, num_bytes=num_bytes):
                for _ in range(num_bytes // 10):
                    write(b"0123456789")

        assert cache.fetch(made, Maker())
        assert cache.size(made) == num_bytes
    assert sum(path.stat().st_size for path in cache.folder.glob("[!.]*")) <= 3 * SIZE
    made = CacheFile(name=f"{7:032x}.decoded", num_bytes=SIZE, xxh3_128=None, origin="a.parquet")
    num_bytes = 4 * SIZE
    Maker.fetch.__defaults__ = (num_bytes,)
    with pytest.raises(CacheError, match=r"no room for a\.parquet"):
        cache.fetch(made, Maker())
    assert not [name for name in names(cache) if name.startswith(f"{7:032x}")]


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


def test_rows_of_a_deleted_file_stay_readable(tmp_path):
    cache, first = shard_cache(tmp_path, SIZE), wanted(1)
    fetch(cache, first)
    mapped = np.memmap(cache.folder / first.name, mode="r")
    fetch(cache, wanted(2))
    assert names(cache) == {wanted(2).name}
    assert (mapped == 1).all()


def test_threads_share_one_fetch(tmp_path):
    cache, log, begun, go = shard_cache(tmp_path, None), [], threading.Event(), threading.Event()

    class Slow(Source):
        def fetch(self, file: CacheFile, write: Callable, stop: threading.Event) -> None:
            begun.set()
            assert go.wait(60)
            super().fetch(file, write, stop)

    file = Slow(7, log=log)
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


def test_four_threads_at_most_have_a_turn_at_once(tmp_path):
    at_it, most, stop = [], [], threading.Event()
    four = threading.Barrier(4)

    def work(number: int) -> None:
        with ShardCache(tmp_path, None).turn(stop):  # each its own, as processes have
            at_it.append(number)
            most.append(len(at_it))
            four.wait(60)
            at_it.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 12
    assert max(most) == 4
    stop.set()
    with ShardCache(tmp_path, None).turn(stop):
        pass  # nothing is waited for


def test_a_file_larger_than_the_cache_is_refused_before_anything_is_deleted(tmp_path):
    cache = shard_cache(tmp_path, SIZE)
    fetch(cache, wanted(1))
    large = wanted(2, arrives=b"")
    large.file = CacheFile(name=f"{'e' * 32}.arrow", num_bytes=SIZE + 1, xxh3_128="e" * 32, origin="s3://b/x")
    with pytest.raises(CacheError, match=r"1,001 bytes\): its limit is 1,000"):
        fetch(cache, large)
    assert names(cache) == {wanted(1).name}


def test_what_a_dead_fetcher_left_is_removed_when_room_is_needed(tmp_path):
    cache = shard_cache(tmp_path, 2 * SIZE)
    (cache.folder / f"{wanted(1).name}.fetching").write_bytes(b"?" * SIZE)
    fetch(cache, wanted(2))
    fetch(cache, wanted(3))
    assert names(cache) == {wanted(2).name, wanted(3).name}


def test_the_cache_lies_at_home_and_among_temporary_files_of_who_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/not/yet/there")
    assert CacheSettings().folder() == tmp_path / "not/yet/there/heliostat" / FOLDER_NAME
    for none in ("", "/dev/null", "/dev/null/cache", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert CacheSettings().folder() == tmp_path / "home/.cache/heliostat" / FOLDER_NAME
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}/temporary")
    assert CacheSettings().folder() == tmp_path / f"temporary/heliostat-{os.getuid()}" / FOLDER_NAME
    ShardCache(CacheSettings().folder(), None)
    assert CacheSettings(cache_dir="/given").folder() == Path("/given", FOLDER_NAME)


@pytest.mark.parametrize("made_by", ["another user", "a link", "a file", "mode"])
def test_a_temporary_folder_that_others_have_made_is_not_used(tmp_path, monkeypatch, made_by):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if made_by == "another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    path = tmp_path / f"heliostat-{os.geteuid()}"
    if made_by == "a link":
        (tmp_path / "theirs").mkdir()
        path.symlink_to(tmp_path / "theirs")
    elif made_by == "a file":
        path.touch()
    else:
        path.mkdir()
        path.chmod(0o777 if made_by == "mode" else 0o700)
    with pytest.raises(CacheError, match="set XDG_CACHE_HOME to a folder of yours"):
        CacheSettings().folder()
    assert CacheSettings(cache_dir="/given").folder() == Path("/given", FOLDER_NAME)


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"The cache of shards cannot use .*file"):
        ShardCache(tmp_path / "file", None)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12, unique=True),
    st.permutations(range(10)),
    st.integers(0, 10),
    st.integers(0, 9),
)
def test_eviction_order(present, order, num_coming, target):
    coming = [str(number) for number in order[:num_coming]]
    files = [PresentFile(name=str(n), num_bytes=1, last_used_ns=n, is_part=is_part) for n, is_part in present]
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
    with pytest.raises(tenacity.RetryError, match="OSError") as caught:
        retrying(policy)(fail(OSError("reset")))
    assert caught.value.last_attempt.attempt_number == 3
    assert len(attempts) == 3
    for error in (FileNotFoundError("x"), OSError("AWS Error ACCESS_DENIED during HeadObject operation")):
        attempts.clear()
        assert not may_pass(error)
        with pytest.raises(type(error)):
            retrying(policy)(fail(error))
        assert len(attempts) == 1
    stop = threading.Event()
    stop.set()
    attempts.clear()
    with pytest.raises(tenacity.RetryError):
        retrying(policy, stop)(fail(OSError("reset")))
    assert len(attempts) == 1


def test_uris():
    assert is_uri("s3://bucket/a")
    assert not is_uri("/data/a")
    assert not is_uri("C:/data")
    assert not is_uri(Path("s3://bucket"))
    assert shown_uri("s3://user:password@bucket/a/b/?endpoint_override=h:1") == "s3://bucket/a/b"
    assert shown_uri("s3://KEY:se/cr/et@bucket/a@b") == "s3://bucket/a@b"
    assert shown_uri("http://host:8080/a@b/c") == "http://host:8080/a@b/c"
    assert "cr" not in hide("cannot parse s3://KEY:se/cr@bucket", "s3://KEY:se/cr@bucket")
    assert shown_uri("abfss://box:password@account/a?key=1") == "abfss://box@account/a"


@pytest.mark.parametrize("name", ["run#1", "what?", "a?b=c d", "50%", "50%2", "ö #?"])
def test_signs_in_names_do_not_cut_a_uri(tmp_path, name):
    local = write_dataset(tmp_path / name, {"x": np.arange(5)})
    write_dataset(tmp_path / "run", {"x": np.arange(6)})
    uri = f"file://{tmp_path}/{name}"
    assert local_path(uri) == local.path
    assert len(open_remote(uri, cache_dir=tmp_path / "cache")) == 5


def test_options_of_a_uri_are_not_its_path():
    uri = "s3://key:secret@bucket/run#1?/set?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:1"
    assert connect(uri)[1] == "bucket/run#1?/set"
    assert shown_uri(uri) == "s3://bucket/run#1?/set"


def test_credentials_are_hidden_as_they_stand_and_unescaped():
    uri = "s3://KEYKEY:se%2Fcr%23et@bucket/a?session_token=tok%3Den&region=us-east-1"
    for text in (f"cannot open {uri}", "refused se/cr#et for KEYKEY", "bad tok=en, tok%3Den, se%2Fcr%23et"):
        hidden = hide(text, uri)
        for secret in ("KEYKEY", "se/cr#et", "se%2Fcr%23et", "tok=en", "tok%3Den"):
            assert secret not in hidden
    assert hide("nothing about us-east-1", uri) == "nothing about us-east-1"


@pytest.mark.parametrize("secret", ["se/cret", "a/b+c=", "/xyz", "p@ss", "q?r/s#t", "12/34x", "se%2Fcret"])
def test_a_password_with_a_slash_is_shown_nowhere_and_understood(secret):
    uri = f"s3://KEYKEY:{secret}@bucket/some/set?region=us-east-1"
    assert shown_uri(uri) == "s3://bucket/some/set"
    assert connect(uri)[1] == "bucket/some/set"
    hidden = hide(f"{uri}: refused {secret} and {unquote(secret)} for KEYKEY", uri)
    assert not any(text in hidden for text in (secret, unquote(secret), "KEYKEY"))


def test_an_at_sign_in_a_name_is_no_password():
    for uri in ("s3://bucket/a@b", "hdfs://host:9000/a:b@c", "s3://bucket/a:b@c", "abfss://box@account/a@b"):
        assert shown_uri(uri) == uri
    assert shown_uri("S3://key:secret@bucket/a") == "s3://bucket/a"


def test_other_file_systems_are_read_through_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    local = write_dataset(tmp_path / "set", {"x": np.arange(100)}, rows_per_shard=30)
    fsspec.filesystem("memory").put(str(local.path), "/heliostat-test", recursive=True)
    dataset = open_remote("memory://heliostat-test", cache_dir=tmp_path / "cache")
    dataset.check()
    found = [batch["x"].tolist() for batch in dataset.batches(40, shuffle=False)]
    assert [row for batch in found for row in batch] == list(range(100))
    fsspec.filesystem("memory").rm("/heliostat-test", recursive=True)


def test_the_cache_of_an_earlier_version_is_used_on(tmp_path):
    (tmp_path / ".locks").touch()
    assert ShardCache(tmp_path, None).max_bytes is None
