"""The driver's disk through a real actor: files as pyarrow has them, tokens, and what a machine sees by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import ray
from heliostat.cluster.disk import disk as disk_module
from heliostat.cluster.disk import reach as reach_module
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.driver_files import DriverWriter, filesystem
from heliostat.cluster.disk.reach import Reach
from heliostat.cluster.disk.served import PIECE_BYTES, TOKEN, Root
from heliostat.cluster.errors import DiskError
from pyarrow import fs

from ...slow import SLOW

pytestmark = pytest.mark.ray


@pytest.fixture
def disk(ray_here, tmp_path):
    (tmp_path / "run").mkdir()
    started = start_disk()
    yield started.serving(Root(path=f"{tmp_path}/run", is_writable=True))
    stop_disk(started)


def elsewhere(disk, path):
    """As a machine has it that has no such folder: the token there is another's."""
    (path / TOKEN).write_text("of another disk")
    return disk


@pytest.mark.parametrize("num_bytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 17])
def test_what_is_written_is_read_again(disk, tmp_path, num_bytes):
    content = np.random.default_rng(num_bytes).integers(0, 256, num_bytes, np.uint8).tobytes()
    files, path = filesystem(disk), f"{tmp_path}/run/file"
    with files.open_output_stream(path, compression=None) as out:
        for start in range(0, num_bytes, 1_000_003):
            out.write(content[start : start + 1_000_003])
    assert (tmp_path / "run/file").read_bytes() == content
    with files.open_input_file(path) as file:
        assert file.read() == content
        assert file.size() == num_bytes
        assert file.read_at(7, num_bytes // 2) == content[num_bytes // 2 :][:7]
    assert files.get_file_info(path).size == num_bytes


def test_large_memory_is_handed_over_as_it_is(disk, tmp_path):
    content = np.random.default_rng(1).integers(0, 256, 2 * PIECE_BYTES + 5, np.uint8)
    writer = DriverWriter(disk, f"{tmp_path}/run/state")
    for part in (content[:3], content[3:], np.empty(0, np.uint8)):
        assert writer.write(memoryview(part)) == len(part)
    assert writer.tell() == len(content)
    writer.close()
    assert np.array_equal(np.fromfile(tmp_path / "run/state", np.uint8), content)


@pytest.mark.slow
def test_shared_memory_holds_little_of_what_travels(disk, tmp_path):
    for number in range(20):
        with (tmp_path / "run" / str(number)).open("wb") as file:
            file.truncate(100_000_000)

    @ray.remote(num_cpus=1)
    def read(disk, numbers):
        def one(number):
            with filesystem(disk).open_input_file(f"{tmp_path}/run/{number}") as file:
                return sum(len(block) for block in iter(lambda: file.read(16 << 20), b""))

        with ThreadPoolExecutor(4) as threads:  # as the cache fetches
            return sum(threads.map(one, numbers))

    before, most, reading = shared_memory_bytes(), 0, [read.remote(disk, range(each, 20, 2)) for each in range(2)]
    while len(ray.wait(reading, num_returns=2, timeout=0.05)[0]) < 2:
        most = max(most, shared_memory_bytes())
    assert ray.get(reading) == [1_000_000_000] * 2
    assert 20 * PIECE_BYTES < most - before < 300_000_000


def shared_memory_bytes():
    """What Ray's object store has taken, of which nothing is given back."""
    found = [0]
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(sum(each.rss for each in process.memory_maps() if "/dev/shm/plasma" in each.path))
    return max(found)


def test_bytes_are_appended_to_a_file_that_is_there(disk, tmp_path):
    files, path = filesystem(disk), tmp_path / "run" / "log.csv"
    path.write_bytes(b"")
    for row in (b"one\n", b"two\n", b"x" * (PIECE_BYTES + 1)):
        before = path.read_bytes()
        with files.open_append_stream(str(path), compression=None) as out:
            out.write(row)
        assert path.read_bytes() == before + row


def test_folders_and_errors_are_those_of_a_file_system(disk, tmp_path):
    files, run = filesystem(disk), f"{tmp_path}/run"
    files.create_dir(f"{run}/a/b", recursive=True)
    with files.open_output_stream(f"{run}/a/b/file") as out:
        out.write(b"x")
    files.copy_file(f"{run}/a/b/file", f"{run}/a/copy")
    files.move(f"{run}/a/copy", f"{run}/a/moved")
    listed = files.get_file_info(fs.FileSelector(f"{run}/a", recursive=True))
    assert sorted(info.path for info in listed) == [f"{run}/a/b", f"{run}/a/b/file", f"{run}/a/moved"]
    files.delete_file(f"{run}/a/moved")
    files.delete_dir(f"{run}/a")
    assert files.get_file_info(f"{run}/a").type == fs.FileType.NotFound
    assert files.get_file_info(fs.FileSelector(f"{run}/none", allow_not_found=True)) == []
    with pytest.raises(FileNotFoundError):
        files.open_input_file(f"{run}/none")
    with pytest.raises(PermissionError) as refused:
        files.open_output_stream("/etc/of-a-worker")
    assert refused.value.errno == errno.EACCES


def test_a_full_disk_far_away_is_a_full_disk(disk, tmp_path):
    (tmp_path / "run/full").symlink_to("/dev/full")
    with pytest.raises(PermissionError):  # a link that leads out is no way to a device either
        filesystem(disk).open_output_stream(f"{tmp_path}/run/full")


def test_the_disk_travels_and_a_token_tells_which_machine_sees_it(disk, tmp_path, monkeypatch):
    run = f"{tmp_path}/run"

    @ray.remote(num_cpus=0)
    def looked(disk, path):
        reach = Reach(disk)
        return reach.sees(path), reach.uri(path), reach.sees("/not/served"), Reach(None).sees(path)

    assert pickle.loads(pickle.dumps(disk.roots)) == disk.roots
    assert ray.get(looked.remote(disk, f"{run}/x")) == (True, f"{run}/x", True, True)
    monkeypatch.setattr(reach_module, "_TOKEN_WITHIN_S", 0.0)
    there = Reach(elsewhere(disk, tmp_path / "run"))
    assert not there.sees(f"{run}/x")
    assert there.uri(f"{run}/x") == f"driver://{run}/x"
    assert there.scratch(f"{run}/x").parts[-len((tmp_path / "run/x").parts) + 1 :] == (tmp_path / "run/x").parts[1:]


def test_a_folder_without_a_token_is_not_seen_and_tokens_go(disk, tmp_path):
    (tmp_path / "data").mkdir()
    more = disk.serving(Root(path=f"{tmp_path}/data"))
    assert not Reach(more).sees(f"{tmp_path}/data/shard")
    assert (tmp_path / "run" / TOKEN).read_text() == disk.id
    more.unmark()
    assert not (tmp_path / "run" / TOKEN).exists()
    assert not (tmp_path / "data" / TOKEN).exists()


def test_a_folder_that_ray_does_not_see_is_refused(disk, tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    only_here = f"/proc/self/fd/{os.dup2(here, 900)}"  # means nothing in another process
    try:
        with pytest.raises(DiskError, match="No such file"):
            disk.serving(Root(path=only_here), Root(path=f"{tmp_path}/run-2", is_writable=True))
        assert not (tmp_path / "run-2" / TOKEN).exists()
        assert disk.call("info", [f"{tmp_path}/run"])[0].kind == "folder"
    finally:
        os.close(900)
        os.close(here)


def test_what_is_written_is_made_and_what_is_gone_is_left_out(disk, tmp_path):
    (tmp_path / "a").mkdir()
    more = disk.serving(
        Root(path=f"{tmp_path}/gone"), Root(path=f"{tmp_path}/a/b", is_writable=True), Root(path=f"{tmp_path}/a")
    )
    assert {root.path for root in more.roots} == {f"{tmp_path}/{name}" for name in ("a/b", "a")}
    assert Reach(more).sees(f"{tmp_path}/a/b/file")
    assert not Reach(more).sees(f"{tmp_path}/a/file")


def test_folders_that_were_made_for_a_token_go_with_it_unless_something_came_into_them(disk, tmp_path):
    (tmp_path / "users").mkdir()
    paths = [tmp_path / name for name in ("users/made/run-1", "users", "used/run-2")]
    more = disk.serving(*(Root(path=str(path), is_writable=True) for path in paths))
    assert all((path / TOKEN).exists() for path in paths)
    (tmp_path / "used/run-2/checkpoint").touch()
    other = more.serving(Root(path=f"{tmp_path}/other", is_writable=True))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.name != "run"] == [
        "other", f"other/{TOKEN}", "used", "used/run-2", "used/run-2/checkpoint", "users",
    ]  # fmt: skip
    other.unmark()
    assert not (tmp_path / "other").exists()


def test_a_task_is_served_what_it_needs_and_the_last_run_folder_stays(disk, tmp_path):
    run, rows = tmp_path / "run", [tmp_path / name for name in ("one", "two")]
    for folder in rows:
        folder.mkdir()
        disk = disk.serving(Root(path=str(folder)))
    assert [root.path for root in disk.roots] == [str(run), str(rows[1])]
    with pytest.raises(PermissionError):
        disk.call("info", [str(rows[0])])
    (run / TOKEN).unlink()  # with a folder that a failed start took away
    assert disk.serving(disk.roots[0]).roots == disk.roots[:1]
    assert (run / TOKEN).read_text() == disk.id
    other = disk.serving(Root(path=f"{tmp_path}/run-2", is_writable=True))
    assert [root.path for root in other.roots] == [f"{tmp_path}/run-2"]
    assert not (run / TOKEN).exists()


def test_a_folder_to_be_read_in_one_that_is_seen_is_seen(disk, tmp_path):
    (tmp_path / "run/checkpoints").mkdir()
    more = disk.serving(Root(path=f"{tmp_path}/run/checkpoints"))
    assert Reach(more).sees(f"{tmp_path}/run/checkpoints/1")


def test_a_disk_that_does_not_answer_is_waited_for_up_to_a_limit(disk, tmp_path, monkeypatch):
    stands_still = f"{tmp_path}/run/pipe"  # nobody is at its other end, so whoever opens it waits
    os.mkfifo(stands_still)
    monkeypatch.setattr(disk_module, "LIMIT_S", 0.2)
    with pytest.raises(TimeoutError, match=r"has not answered for 0\.2 s"):
        disk.call("read", stands_still, 0, 1)
    with open(stands_still, "wb"):  # lets it go
        pass
    monkeypatch.setattr(disk_module, "SERVE_WITHIN_S", 0.0)
    with pytest.raises(DiskError, match="has not answered for 0 s"):
        disk.serving(Root(path=f"{tmp_path}/run-2", is_writable=True))
    assert not (tmp_path / "run-2" / TOKEN).exists()


def test_a_process_that_dies_alone_is_replaced_and_nothing_is_lost(disk, tmp_path):
    content = np.random.default_rng(1).integers(0, 256, 5 * PIECE_BYTES + 3, np.uint8).tobytes()
    writer, before = DriverWriter(disk, f"{tmp_path}/run/file"), kill_the_serving_process()
    for start in range(0, len(content), PIECE_BYTES):
        writer.write(content[start : start + PIECE_BYTES])
        if start == 2 * PIECE_BYTES:
            assert kill_the_serving_process() != before
    writer.close()
    assert (tmp_path / "run/file").read_bytes() == content
    kill_the_serving_process()
    with filesystem(disk).open_input_file(f"{tmp_path}/run/file") as file:
        assert file.read() == content
    with pytest.raises(PermissionError):
        disk.call("info", [str(tmp_path)])
    other = disk.serving(Root(path=f"{tmp_path}/x", is_writable=True))  # of a shorter name
    kill_the_serving_process()
    assert other.call("info", [f"{tmp_path}/x"])[0].kind == "folder"
    with pytest.raises(PermissionError):
        other.call("info", [f"{tmp_path}/run"])
    stop_disk(other)
    stop_disk(other)
    assert disk.id not in disk_module._MEMOS


def kill_the_serving_process():
    """kill -9, once it is there; returns its number."""
    until_s = time.monotonic() + 60 * SLOW
    while time.monotonic() < until_s:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::ServedDisk"):
                    process.kill()
                    psutil.wait_procs([process], timeout=60 * SLOW)
                    return process.pid
        time.sleep(0.05)
    raise AssertionError("nobody serves")


def test_what_is_written_is_waited_for_without_a_limit(disk, tmp_path, monkeypatch):
    stands_still = f"{tmp_path}/run/pipe"
    os.mkfifo(stands_still)
    monkeypatch.setattr(disk_module, "LIMIT_S", 0.0)

    def write():
        with pytest.raises(ConnectionError):
            DriverWriter(disk, stands_still, at=1).write(bytes(3 * PIECE_BYTES))

    waiting = threading.Thread(target=write)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    stop_disk(disk)  # which lets it go
    waiting.join()


def test_without_its_driver_the_disk_is_a_lost_connection(ray_here, tmp_path):
    gone = start_disk().serving(Root(path=f"{tmp_path}"))
    stop_disk(gone)
    with pytest.raises(ConnectionError, match="does not answer any more"):
        gone.call("info", [f"{tmp_path}"])
