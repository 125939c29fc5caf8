"""``heliostat convert``: options, what it shows, and going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from heliostat.data import open_dataset
from heliostat.data.converters.open_source import KINDS
from heliostat.scripts import convert as command
from heliostat.scripts.cli import _SOURCE_KINDS, main


def heliostat(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def columns_of(path: Path) -> dict:
    dataset = open_dataset(path)
    return next(dataset.batches(len(dataset), shuffle=False))


@pytest.fixture
def people(tmp_path) -> Path:
    rows = [{"zip": "01", "age": 30, "ids": [1, 2]}, {"zip": "02", "ids": []}, {"zip": "03", "age": 41, "ids": [3]}]
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_knows_every_kind():
    assert tuple(_SOURCE_KINDS) == KINDS


def test_options_say_what_columns_become(people, tmp_path):
    result = heliostat(
        *("convert", people, tmp_path / "set", "--column", "ids=list:int32", "--column", "age=uint8"),
        *("--fill-null", "age=7", "--format", "parquet"),
    )
    assert result.exit_code == 0, result.output
    found = columns_of(tmp_path / "set")
    assert found["age"].tolist() == [30, 7, 41]
    assert found["age"].dtype == np.uint8
    assert found["ids"].values.dtype == np.int32
    assert found["zip"].to_list() == ["01", "02", "03"]
    assert open_dataset(tmp_path / "set").manifest.shard_format == "parquet"
    assert "json, 3 rows: zip string, age uint8, ids list:int32" in result.stderr
    assert "3 rows, 1 shard" in result.stdout


def test_features_target_and_kind(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [3.0, 4.0], "c": ["x", "y"], "y": [0, 1]}), tmp_path / "data.bin")
    arguments = ("convert", tmp_path / "data.bin", tmp_path / "set", "--target", "y", "--features", "b,a")
    assert "--kind" in heliostat(*arguments).stderr
    assert heliostat(*arguments, "--kind", "parquet").exit_code == 0
    assert columns_of(tmp_path / "set")["x"].tolist() == [[3, 1], [4, 2]]


def test_rows_are_shuffled_by_a_seed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(500))
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert heliostat("convert", tmp_path / "a.npz", tmp_path / name, "--shuffle", seed).exit_code == 0
    one, again, two = (columns_of(tmp_path / name)["x"].tolist() for name in ("one", "again", "two"))
    assert one == again
    assert one != two
    assert sorted(one) == sorted(two) == list(range(500))


def test_an_interrupted_conversion_goes_on_with_resume(tmp_path, monkeypatch):
    path = tmp_path / "parts"
    path.mkdir()
    for part in range(4):
        pq.write_table(pa.table({"x": np.arange(1000) + 1000 * part}), path / f"{part}.parquet")
    arguments = ("convert", path, tmp_path / "set", "--rows-per-shard", 100)

    def ctrl_c(source, destination, *, on_progress, **options):
        def stop(now):
            on_progress(now)
            if now.num_rows == 3000:
                raise KeyboardInterrupt

        return write(source, destination, on_progress=stop, **options)

    write = command.write
    monkeypatch.setattr(command, "write", ctrl_c)
    result = heliostat(*arguments)
    assert result.exit_code == 1
    assert "--resume" in result.stderr
    assert not (tmp_path / "set").exists()
    rows: list[int] = []
    monkeypatch.setattr(
        command,
        "write",
        lambda *paths, on_progress, **options: write(
            *paths, on_progress=lambda now: rows.append(now.num_rows), **options
        ),
    )
    assert heliostat(*arguments, "--resume").exit_code == 0
    assert rows == [4000]
    assert columns_of(tmp_path / "set")["x"].tolist() == list(range(4000))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--column", "age"], "--column 'age' should be NAME=KIND"),
        (["--fill-null", "=1"], "--fill-null '=1' should be NAME=VALUE"),
        (["--column", "age=int7"], "wanted as 'int7'"),
        (["--fill-null", "height=1"], "no column 'height'"),
        ([], "fill_nulls={'age': value}"),
        (["--split", "train"], "--split"),
        (["--target", "zip", "--features", "ids"], "not numeric"),
    ],
)
def test_mistakes_end_in_a_message(people, tmp_path, options, said):
    result = heliostat("convert", people, tmp_path / "set", *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["people.jsonl"]


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("-1.5", -1.5), ("true", True), ("False", False), ("x y", "x y"), ("", "")]
)
def test_values_on_the_command_line(text, value):
    found = command.value_of(text)
    assert found == value
    assert type(found) is type(value)
