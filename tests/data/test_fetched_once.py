"""What lies on another machine's disk is read from there once per machine, however many processes need it."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data import Dataset, open_dataset, write_dataset
from heliostat.data.format import ipc_shards
from heliostat.data.remote.cache import FOLDER_NAME
from heliostat.data.remote.files import RemoteFiles

from ..slow import SLOW
from .counted_disk import bytes_read, mounted

pytestmark = pytest.mark.filterwarnings("ignore:A full shuffle of:UserWarning")
NUM_ROWS, NUM_FILES = 6000, 6

READER = """
import hashlib, pickle, sys
from pathlib import Path
from heliostat.data.remote import filesystem
from tests.data.counted_disk import mounted
filesystem._BLOCK_BYTES = 1 << 14
pickled, root, log, shuffle = sys.argv[1:]
uri_of = mounted(Path(root), Path(log))
dataset = pickle.loads(Path(pickled).read_bytes()).reached(uri_of)
dataset.check()
digest = hashlib.sha256()
for epoch in range(2):
    for batch in dataset.batches(100, seed=1, epoch=epoch, shuffle=shuffle):
        digest.update(batch["x"].tobytes() + batch["id"].tobytes())
print(digest.hexdigest())
"""


class Machines:
    """The driver's disk, and processes of one machine that does not have it."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path, self.log, self.home = tmp_path, tmp_path / "log", tmp_path / "home"
        self.root = tmp_path / "disk"
        self.uri_of = mounted(self.root, self.log)

    def hide(self) -> None:
        """Let nobody find the files under their own path."""
        place = self.root / self.home.relative_to("/")
        place.parent.mkdir(parents=True)
        self.home.rename(place)

    def hidden(self, write: Callable[[Path], None], shuffle: str, **options: Any) -> tuple[Dataset, str]:
        """A dataset whose files nobody finds under their own path, and the digest of its rows."""
        write(self.home)
        dataset = open_dataset(self.home / "set", **options)
        expected = digest_of(dataset, shuffle)
        self.hide()
        return dataset, expected

    def start(self, dataset: Dataset, shuffle: str = "full") -> subprocess.Popen[str]:
        pickled = self.tmp_path / "dataset.pickle"
        pickled.write_bytes(pickle.dumps(dataset))
        arguments = [sys.executable, "-c", READER, str(pickled), str(self.root), str(self.log), shuffle]
        root = Path(__file__).parents[2]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ})

    def sizes(self) -> dict[str, int]:
        """Of the files that hold rows, by their paths."""
        found = {f"/{path.relative_to(self.root)}": path.stat().st_size for path in self.root.rglob("*.*")}
        return {path: size for path, size in found.items() if not path.endswith(".json")}


@pytest.fixture
def machines(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Machines(tmp_path)


def rows() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(2)
    return {"id": np.arange(NUM_ROWS), "x": numbers.integers(0, 256, (NUM_ROWS, 100), dtype=np.uint8)}


def stored(home: Path) -> None:
    write_dataset(home / "set", rows(), rows_per_shard=NUM_ROWS // NUM_FILES)


def parquet(home: Path) -> None:
    (home / "set").mkdir(parents=True)
    for number in range(NUM_FILES):
        some = slice(number * NUM_ROWS // NUM_FILES, (number + 1) * NUM_ROWS // NUM_FILES)
        x = pa.FixedSizeListArray.from_arrays(pa.array(rows()["x"][some].ravel()), 100)
        part = pa.table({"id": rows()["id"][some], "x": x})
        pq.write_table(part, home / "set" / f"{number}.parquet", row_group_size=300)


def digest_of(dataset: Dataset, shuffle: str) -> str:
    digest = hashlib.sha256()
    for epoch in range(2):
        for batch in dataset.batches(100, seed=1, epoch=epoch, shuffle=shuffle):
            digest.update(batch["x"].tobytes() + batch["id"].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("write", "shuffle"), [(stored, "full"), (parquet, "window")])
def test_processes_of_a_machine_fetch_a_file_once(machines, write, shuffle):
    dataset, expected = machines.hidden(write, shuffle)
    readers = [machines.start(dataset, shuffle) for _ in range(3)]
    assert [reader.communicate(timeout=120)[0].strip() for reader in readers] == [expected] * 3
    assert bytes_read(machines.log) == machines.sizes()  # neither a footer nor a manifest besides


@pytest.mark.faults
def test_a_process_that_is_killed_while_it_fetches_leaves_the_others_going(machines):
    dataset, expected = machines.hidden(stored, "full")
    machines.log.with_name("hold").touch()
    killed = machines.start(dataset)
    give_up = time.monotonic() + 60 * SLOW
    while not bytes_read(machines.log) and time.monotonic() < give_up:
        time.sleep(0.02)
    other = machines.start(dataset)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert sum(bytes_read(machines.log).values()) < sum(machines.sizes().values())
    machines.log.with_name("hold").unlink()
    assert other.communicate(timeout=120)[0].strip() == expected
    again = sum(bytes_read(machines.log).values()) - sum(machines.sizes().values())
    assert 0 < again <= 4 * (1 << 14)  # what its threads had begun to read
    cache = Path(os.environ["XDG_CACHE_HOME"], "heliostat", FOLDER_NAME)
    assert not list(cache.glob("*.fetching"))


def test_a_file_that_goes_between_the_look_at_it_and_its_mapping_is_fetched_again(machines, tmp_path, monkeypatch):
    dataset, expected = machines.hidden(stored, "window", cache_dir=tmp_path / "small")
    looked, gone = ipc_shards.check_shard_size, []

    def another_process_makes_room(folder, shard):
        looked(folder, shard)
        if not gone:
            gone.append(folder / shard.file)
            gone[0].unlink()

    monkeypatch.setattr(ipc_shards, "check_shard_size", another_process_makes_room)
    assert digest_of(dataset.reached(machines.uri_of), "window") == expected
    assert gone


def test_a_file_that_goes_before_it_is_opened_to_be_decoded_is_fetched_again(machines, tmp_path, monkeypatch):
    dataset, expected = machines.hidden(parquet, "window", cache_dir=tmp_path / "small")
    path_of, gone = RemoteFiles.path_of, []

    def another_process_makes_room(files, number):
        path = path_of(files, number)
        asked = (number, threading.get_ident())  # threads that read ahead fail in silence, the caller does not
        if gone.count(asked) < 2:
            gone.append(asked)
            path.unlink()
        return path

    monkeypatch.setattr(RemoteFiles, "path_of", another_process_makes_room)
    shutil.rmtree(tmp_path / "small")
    assert digest_of(dataset.reached(machines.uri_of), "window") == expected
    assert gone


def passes(dataset: Dataset, log: Path, shuffle: str | bool) -> list[int]:
    """The bytes that each of three passes reads from the other machine."""
    found, before = [], sum(bytes_read(log).values())
    for epoch in range(3):
        list(dataset.batches(100, seed=1, epoch=epoch, shuffle=shuffle))
        now = sum(bytes_read(log).values())
        found.append(now - before)
        before = now
    return found


@pytest.mark.parametrize(("write", "room"), [(stored, 1.1), (parquet, 1.8)])  # four files are decoded at once
def test_a_cache_with_little_more_room_than_the_rows_take_is_enough(machines, tmp_path, write, room):
    write(machines.home)
    num_bytes = sum(path.stat().st_size for path in (machines.home / "set").glob("[0-9s]*"))
    dataset = open_dataset(machines.home / "set", cache_dir=tmp_path / "small", cache_bytes=int(room * num_bytes))
    machines.hide()
    assert passes(dataset.reached(machines.uri_of), machines.log, shuffle=False) == [num_bytes, 0, 0]


@pytest.mark.parametrize(("write", "times"), [(stored, 1.0), (parquet, 3.0)])  # of Parquet both lie there
def test_a_cache_that_is_smaller_than_the_data_holds_its_limit(machines, tmp_path, write, times):
    write(machines.home)
    num_bytes = sum(path.stat().st_size for path in (machines.home / "set").glob("[0-9s]*"))
    limit = int(0.5 * num_bytes)
    dataset = open_dataset(machines.home / "set", cache_dir=tmp_path / "small", cache_bytes=limit)
    expected = [batch["id"].tolist() for batch in dataset.batches(100, shuffle=False)]
    machines.hide()
    there = dataset.reached(machines.uri_of)
    assert [batch["id"].tolist() for batch in there.batches(100, shuffle=False)] == expected
    assert max(passes(there, machines.log, shuffle=False)) <= times * num_bytes
    assert sum(path.stat().st_size for path in (tmp_path / "small" / FOLDER_NAME).glob("[!.]*")) <= limit
