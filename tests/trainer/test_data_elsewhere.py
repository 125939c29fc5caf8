"""Data on the driver's disk, read through its actor by processes of a machine that does not have the files."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.served import Root
from heliostat.data import open_dataset, write_dataset
from heliostat.data.order.parts import Parts
from heliostat.data.views.arriving import ArrivingDataset, part_path, write_description

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:A full shuffle of:UserWarning")]
NUM_ROWS = 3000


@pytest.fixture
def disk(ray_here):
    started = start_disk()
    yield started
    stop_disk(started)


@pytest.fixture
def datasets(tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (NUM_ROWS, 1000), dtype=np.uint8)
    stored = write_dataset(tmp_path / "stored", {"x": x, "y": np.arange(NUM_ROWS)}, rows_per_shard=700)
    pq.write_table(pa.table({"y": np.arange(NUM_ROWS)}), tmp_path / "one.parquet", row_group_size=500)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.parquet").symlink_to("../one.parquet")
    train, valid = stored.split(0.8, seed=3)
    one, linked = open_dataset(tmp_path / "one.parquet"), open_dataset(tmp_path / "linked")
    return {"train": train, "valid": valid.select_columns(["y"]), "one": one, "linked": linked}


@pytest.mark.slow
def test_parts_that_arrive_are_read_on_another_machine_as_they_come(disk, tmp_path):
    x = np.arange(4000.0).reshape(1000, 4)
    parts = Parts(num_batches=100)
    first = write_dataset(part_path(str(tmp_path), 0, 1), {"x": x[:10]})
    arriving = ArrivingDataset(str(tmp_path), identity="a", columns=first.schema, parts=parts, batch_rows=10)
    write_description(arriving)

    @ray.remote(num_cpus=1, runtime_env={"env_vars": {"XDG_CACHE_HOME": str(tmp_path / "cache")}})
    def read(disk, dataset):
        import heliostat.data.views.arriving
        from heliostat.cluster.disk.driver_files import filesystem
        from heliostat.cluster.disk.reach import Reach
        from heliostat.data.remote.filesystem import open_with

        heliostat.data.views.arriving._identity_at = lambda _: None  # as where the paths are not there
        open_with("driver", lambda: filesystem(disk))
        there = dataset.reached(Reach(disk).uri)
        there.check()
        with there.reader() as reader:
            found = [reader.gather(np.arange(low, low + 10))["x"].copy() for low in range(0, 1000, 10)]
        return np.concatenate(found), there.folder.startswith("driver://")

    served = disk.serving(Root(path=str(tmp_path)))
    reading = read.remote(served, arriving)
    for part in range(1, len(parts)):
        low, high = arriving.rows_of(part)
        write_dataset(arriving.part_path(part), {"x": x[low:high]})
    rows, is_elsewhere = ray.get(reading)
    assert is_elsewhere
    assert np.array_equal(rows, x)


def digest(dataset) -> str:
    found = hashlib.sha256()
    for batch in dataset.batches(128, seed=5):
        for name in batch:
            found.update(batch[name].tobytes())
    return found.hexdigest()


def test_processes_of_another_machine_read_the_same_rows(disk, datasets, tmp_path):
    cache = str(tmp_path / "cache")

    @ray.remote(num_cpus=1, runtime_env={"env_vars": {"XDG_CACHE_HOME": cache}})
    def read(disk, datasets):
        import heliostat.data.stored
        from heliostat.cluster.disk.driver_files import filesystem
        from heliostat.cluster.disk.reach import Reach
        from heliostat.data.remote.filesystem import open_with

        heliostat.data.stored.has_same_files = lambda *_: False  # as where the paths are not there
        open_with("driver", lambda: filesystem(disk))
        found = {}
        for name, dataset in datasets.items():
            there = dataset.reached(Reach(disk).uri)
            there.check()
            found[name] = (digest(there), there.fingerprint, there.folders() == frozenset())
        return found

    roots = sorted(frozenset().union(*(dataset.folders() for dataset in datasets.values())))
    served = disk.serving(*(Root(path=path) for path in roots))
    expected = {name: (digest(dataset), dataset.fingerprint, True) for name, dataset in datasets.items()}
    assert ray.get([read.remote(served, datasets) for _ in range(2)]) == [expected] * 2
    kept = {path.name for path in (tmp_path / "cache" / "heliostat" / "heliostat-shards").glob("[!.]*")}
    assert len([name for name in kept if name.endswith(".arrow")]) == 5
    assert len([name for name in kept if name.endswith(".parquet")]) == 1  # what is the same lies there once
