"""What earlier versions wrote is read as it was: fingerprints, row orders, views, shard bytes, unfinished folders.

`python tests/data/test_golden.py` writes the files anew; it is run once, on the commit before a change.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from heliostat.data import Dataset, DatasetWriter, Ragged, convert, mix, open_dataset, write_dataset
from heliostat.data.format.columns import DTYPE_NAMES
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids

GOLDEN = Path(__file__).parent / "golden"
FACTS = GOLDEN / "facts.json"
NUM_ROWS = 50


def columns() -> dict[str, Any]:
    """Rows of every kind, dtype and depth."""
    random = np.random.default_rng(7)
    found: dict[str, Any] = {name: random.integers(0, 2, NUM_ROWS).astype(name) for name in DTYPE_NAMES}
    lengths = random.integers(0, 5, NUM_ROWS)
    return {
        **found,
        "image": random.integers(0, 255, (NUM_ROWS, 4, 3)).astype(np.uint8),
        "mask": random.integers(0, 2, (NUM_ROWS, 5)).astype(bool),
        "tokens": [np.arange(length, dtype=np.int32) for length in lengths],
        "boxes": [random.random((length, 4)).astype(np.float32) for length in lengths],
        "text": ["ä" * int(length) + str(row) for row, length in enumerate(lengths)],
        "bytes": [bytes(range(length)) for length in lengths],
    }


def digest(*arrays: Any) -> str:
    """A hash of arrays and ragged rows."""
    hashed = xxhash.xxh3_128()
    for array in arrays:
        for part in (array.values, array.row_splits) if isinstance(array, Ragged) else (array,):
            values = np.ascontiguousarray(part)
            hashed.update(f"{values.dtype.str} {values.shape}".encode())
            hashed.update(values.tobytes())
    return hashed.hexdigest()


def rows(dataset: Dataset) -> str:
    """A hash of all rows in stored order."""
    with dataset.reader() as reader:
        found = reader.gather(np.arange(len(dataset), dtype=np.int64))
    return digest(*(found[name] for name in dataset.schema))


def order_facts() -> dict[str, str]:
    facts = {}
    for num_rows, shuffle in ((1, "full"), (999, "full"), (5000, "full"), (5000, "window:512"), (5000, "window:700:9")):
        for seed, epoch in ((0, 0), (0, 1), ((1 << 64) - 1, 12)):
            order = RowOrder(num_rows=num_rows, seed=seed, epoch=epoch, shuffle=shuffle)
            facts[f"order {num_rows} {shuffle} {seed} {epoch}"] = digest(order.rows(0, num_rows))
    order = RowOrder(num_rows=997, seed=3, epoch=2)
    plan = BatchPlan(num_rows=997, global_batch_size=64, num_microbatches=3)
    facts["plan"] = digest(*(row_ids(order, plan, step, part) for step in range(plan.num_steps) for part in range(3)))
    return facts


def view_facts(dataset: Dataset) -> dict[str, str]:
    first, second = dataset.split(0.3, seed=5)
    views = {
        "split first": first,
        "split second": second,
        "split twice": first.split(0.5)[1],
        "take": dataset.take(17),
        "skip": dataset.skip(17),
        "select": dataset.select([4, 9, 1]),
        "columns": dataset.select_columns(["text", "image"]),
        "rename": dataset.rename({"text": "words"}),
        "concatenate": dataset.concatenate(first),
        "mix": mix([dataset, second], [1, 3], seed=2),
        "mix windows": mix([first, second], shuffle="window:16:4"),
        "pad": dataset.pad("tokens", 4),
    }
    facts = {}
    for name, view in views.items():
        facts[f"view {name}"] = f"{view.fingerprint} {rows(view)}"
        batches = [batch["int64"] for batch in view.batches(8, seed=1)] if "int64" in view.schema else []
        facts[f"batches {name}"] = digest(*batches)
    return facts


def stored_facts() -> dict[str, str]:
    facts = {}
    for name in ("arrow", "version1", "parquet", "foreign_parquet", "foreign_arrow"):
        dataset = open_dataset(GOLDEN / name)
        facts[f"stored {name}"] = f"{len(dataset)} {dataset.fingerprint} {rows(dataset)}"
    return facts


def written_facts(folder: Path) -> dict[str, Any]:
    """The hashes of shards that are written now."""
    options: dict[str, dict[str, Any]] = {
        "by rows": {"rows_per_shard": 20},
        "by bytes": {"shard_bytes": 1500},
        "shuffled": {"shuffle_seed": 4, "rows_per_shard": 20},
    }
    facts = {}
    for name, chosen in options.items():
        dataset = write_dataset(folder / name, columns(), **chosen)
        content = json.loads((dataset.path / "manifest.json").read_text())
        facts[f"written {name}"] = [content["statistics"], content["shards"], content["rows_per_batch"]]
    for name, source in (("csv", "source.csv"), ("json", "source.jsonl"), ("parquet", "foreign_parquet")):
        dataset = convert(GOLDEN / source, folder / name)
        facts[f"converted {name}"] = f"{len(dataset)} {dataset.fingerprint} {rows(dataset)}"
    dataset = convert(GOLDEN / "source.csv", folder / "target", target="label", features=["a", "b"])
    facts["converted target"] = f"{len(dataset)} {dataset.fingerprint} {rows(dataset)}"
    return facts


def writer(path: Path, **options: Any) -> DatasetWriter:
    return DatasetWriter(path, resume=True, rows_per_shard=20, metadata={"from": "golden"}, **options)


UNFINISHED: dict[str, dict[str, Any]] = {"plain": {}, "shuffled": {"shuffle_seed": 4, "shuffle_bytes": 2500}}


def resumed(folder: Path, name: str) -> str:
    """The fingerprint of the dataset that an unfinished folder becomes."""
    shutil.copytree(GOLDEN / f"unfinished-{name}", folder / ".set.writing")
    unfinished = writer(folder / "set", **UNFINISHED[name])
    assert 0 < unfinished.rows_done < NUM_ROWS
    with unfinished:
        unfinished.write({key: values[unfinished.rows_done :] for key, values in columns().items()})
    return unfinished.dataset.fingerprint


# The tests.


def facts_of(start: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(FACTS.read_text()).items() if name.startswith(start)}


def test_row_orders_and_plans_are_what_they_were():
    expected = {**facts_of("order"), **facts_of("plan")}
    assert order_facts() == expected


def test_datasets_of_earlier_versions_and_foreign_folders_are_what_they_were():
    assert stored_facts() == facts_of("stored")


def test_views_have_the_rows_orders_and_fingerprints_that_they_had():
    assert view_facts(open_dataset(GOLDEN / "arrow")) == {**facts_of("view"), **facts_of("batches")}


def test_shards_are_written_and_converted_byte_for_byte_as_they_were(tmp_path):
    assert json.loads(json.dumps(written_facts(tmp_path))) == {**facts_of("written"), **facts_of("converted")}


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_folder_of_an_earlier_version_is_gone_on_with(tmp_path, name):
    assert resumed(tmp_path, name) == facts_of("resumed")[f"resumed {name}"]


# Writing them.


def make() -> None:
    """Write all files anew."""
    names = [f"row {n}" for n in range(30)]
    table = pa.table({"a": pa.array(range(30), pa.int32()), "b": np.arange(30) / 4, "t": names})
    for name in ("foreign_parquet", "foreign_arrow"):
        (GOLDEN / name).mkdir(parents=True)
    for number, part in enumerate((table[:13], table[13:])):
        pq.write_table(part, GOLDEN / f"foreign_parquet/part-{number}.parquet", row_group_size=5)
        with pa.ipc.new_file(GOLDEN / f"foreign_arrow/part-{number}.arrow", part.schema) as file:
            file.write_table(part, max_chunksize=7)
    lines = [f"{n},{n / 8},{'yes' if n % 3 else 'no, not'!r},{n % 4}" for n in range(40)]
    (GOLDEN / "source.csv").write_text("a,b,text,label\n" + "\n".join(line.replace("'", '"') for line in lines) + "\n")
    records = [{"a": n - 3, "b": n / 8, "text": "ä" * n, "tokens": list(range(n % 4))} for n in range(40)]
    (GOLDEN / "source.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    write_dataset(GOLDEN / "arrow", columns(), rows_per_shard=20, metadata={"from": "golden"})
    write_dataset(GOLDEN / "parquet", columns(), rows_per_shard=20, format="parquet")  # type: ignore[call-arg]
    fixed = {name: values for name, values in columns().items() if isinstance(values, np.ndarray)}
    first = write_dataset(GOLDEN / "version1", fixed, rows_per_shard=20).path / "manifest.json"
    content = json.loads(first.read_text())
    del content["shard_format"], content["metadata"]
    first.write_text(json.dumps({**content, "format_version": 1}, indent=1))
    facts: dict[str, Any] = {}
    for name, options in UNFINISHED.items():
        unfinished = writer(GOLDEN / "set", **options)
        unfinished.write(columns())
        unfinished.abort()
        (GOLDEN / ".set.writing").rename(GOLDEN / f"unfinished-{name}")
    for name in UNFINISHED:
        folder = GOLDEN / "temporary"
        facts[f"resumed {name}"] = resumed(folder, name)
        shutil.rmtree(folder)
    facts |= {**order_facts(), **stored_facts(), **view_facts(open_dataset(GOLDEN / "arrow"))}
    facts |= written_facts(GOLDEN / "temporary")
    shutil.rmtree(GOLDEN / "temporary")
    FACTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    sys.exit(make())
