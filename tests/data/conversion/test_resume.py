"""Conversions that are killed whenever the journal is written end with the rows and the account of undisturbed ones."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heliostat.data.conversion.convert import convert
from heliostat.data.write.journal import Journal

NUM_ROWS = 700
OPTIONS = {
    "columns": {"half": "float16"},
    "fill_nulls": {"gap": -1},
    "rows_per_shard": 90,
    "piece_bytes": 1500,
}


def written(folder, ending):
    """Two files with missing values, fractions that float16 rounds, and a file that is left out."""
    numbers = np.random.default_rng(3)
    table = pa.table(
        {
            "id": np.arange(NUM_ROWS),
            "half": numbers.random(NUM_ROWS).round(3),
            "gap": pa.array(np.arange(NUM_ROWS), mask=numbers.random(NUM_ROWS) < 0.2),
        }
    )
    folder.mkdir()
    (folder / "notes.txt").write_text("left out")
    for number, part in enumerate((table.slice(0, 333), table.slice(333))):
        if ending == "parquet":
            pq.write_table(part, folder / f"{number}.parquet", row_group_size=150)
        elif ending == "csv":
            part.to_pandas().astype({"gap": "Int64"}).to_csv(folder / f"{number}.csv", index=False)
        else:
            part.to_pandas().astype({"gap": "Int64"}).to_json(folder / f"{number}.jsonl", orient="records", lines=True)
    return folder


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("shuffle_seed", [None, 5])
def test_a_conversion_killed_at_every_commit_ends_alike(tmp_path, monkeypatch, ending, shuffle_seed):
    source, options = written(tmp_path / "in", ending), {**OPTIONS, "shuffle_seed": shuffle_seed}
    if shuffle_seed is not None:
        options["shard_bytes"], options["rows_per_shard"] = 800, None
    states = []
    append = Journal._append

    def snapshot(journal, entry):
        for when in ("before", "after"):
            if when == "after":
                append(journal, entry)
            states.append(tmp_path / f"state{len(states)}")
            shutil.copytree(tmp_path / ".set.writing", states[-1])

    monkeypatch.setattr(Journal, "_append", snapshot)
    undisturbed = convert(source, tmp_path / "set", **options)
    monkeypatch.undo()
    assert {entry.name for entry in undisturbed.account} == {"notes.txt", "half", "gap"}
    assert len(states) > 12
    for state in states:
        shutil.rmtree(tmp_path / "set")
        shutil.move(state, tmp_path / ".set.writing")
        resumed = convert(source, tmp_path / "set", **options, resume=True)
        assert resumed.fingerprint == undisturbed.fingerprint
        assert sorted(map(str, resumed.account)) == sorted(map(str, undisturbed.account))
