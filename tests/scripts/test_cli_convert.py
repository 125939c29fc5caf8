"""``heliostat convert``: options, what it shows, and going on after an interruption."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from heliostat.data import convert, open_dataset
from heliostat.data.conversion.open_source import KINDS
from heliostat.scripts.cli import _SOURCE_KINDS, main

from ..terminal import terminal
from .child import COMMAND, environment, interruptible


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
        *("--fill-null", "age=7"),
    )
    assert result.exit_code == 0, result.output
    found = columns_of(tmp_path / "set")
    assert found["age"].tolist() == [30, 7, 41]
    assert found["age"].dtype == np.uint8
    assert found["ids"].values.dtype == np.int32
    assert found["zip"].to_list() == ["01", "02", "03"]
    assert "json, 3 rows: zip string, age uint8, ids list:int32" in result.stderr
    assert "3 rows, 1 shard" in result.stdout


def test_features_target_and_kind(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [3.0, 4.0], "c": ["x", "y"], "y": [0, 1]}), tmp_path / "data.bin")
    options = ("--target", "y", "--feature", "b", "--feature", "a")
    arguments = ("convert", tmp_path / "data.bin", tmp_path / "set", *options)
    assert "--kind" in heliostat(*arguments).stderr
    assert heliostat(*arguments, "--kind", "parquet").exit_code == 0
    assert columns_of(tmp_path / "set")["x"].tolist() == [[3, 1], [4, 2]]


def test_rows_are_shuffled_by_a_seed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(500))
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        assert heliostat("convert", tmp_path / "a.npz", tmp_path / name, "--shuffle-seed", seed).exit_code == 0
    one, again, two = (columns_of(tmp_path / name)["x"].tolist() for name in ("one", "again", "two"))
    assert one == again
    assert one != two
    assert sorted(one) == sorted(two) == list(range(500))


@pytest.mark.slow
def test_an_interrupted_conversion_goes_on_with_resume(tmp_path):
    """Ctrl-C as a terminal sends it, once some shards are complete."""
    path, unfinished = tmp_path / "parts", tmp_path / ".set.writing"
    path.mkdir()
    for part in range(200):
        pq.write_table(pa.table({"x": np.arange(1000) + 1000 * part}), path / f"{part:03}.parquet")
    # So many that it is not done before it is noticed.
    arguments = ("convert", path, tmp_path / "set", "--rows-per-shard", 100)
    pipes = {"env": environment(), "stderr": subprocess.PIPE, "text": True}
    child = subprocess.Popen([*COMMAND, *map(str, arguments)], preexec_fn=interruptible, **pipes)
    try:
        until_s = time.monotonic() + 60
        while len(list(unfinished.glob("*.arrow"))) < 5 and time.monotonic() < until_s and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=60)[1]
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 1, said
    assert "--resume" in said
    assert not (tmp_path / "set").exists()
    complete = {file.name: file.stat().st_mtime_ns for file in unfinished.glob("*.arrow")}
    assert heliostat(*arguments, "--resume").exit_code == 0
    assert columns_of(tmp_path / "set")["x"].tolist() == list(range(200_000))
    # What was complete was not written again; the last one may have been in the making.
    kept = sorted(complete)[:-1]
    assert len(kept) >= 4
    assert [(tmp_path / "set" / name).stat().st_mtime_ns for name in kept] == [complete[name] for name in kept]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--column", "age"], "--column 'age' should be NAME=KIND"),
        (["--fill-null", "=1"], "--fill-null '=1' should be NAME=VALUE"),
        (["--column", "age=int7"], "requested as 'int7'"),
        (["--fill-null", "height=1"], "no column 'height'"),
        ([], "fill_nulls={'age': value}"),
        (["--split", "train"], "--split"),
        (["--target", "zip", "--feature", "ids"], "not numeric"),
    ],
)
def test_mistakes_end_in_a_message(people, tmp_path, options, said):
    result = heliostat("convert", people, tmp_path / "set", *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["people.jsonl"]


def test_what_is_left_out_or_changed_is_printed_and_in_the_manifest(tmp_path):
    source = tmp_path / "in"
    (source / "year=2023").mkdir(parents=True)
    (source / "year=2023" / "a.csv").write_text("a,y\n0.1,0\n0.5,1\n")
    (source / "readme.txt").write_text("not a table")
    result = heliostat("convert", source, tmp_path / "set", "--target", "y")
    assert result.exit_code == 0
    for line in ("readme.txt: 1 file left out", "a: 1 value rounded: fractions, to float32"):
        assert line in result.stdout
    account = json.loads((tmp_path / "set" / "manifest.json").read_text())["account"]
    assert [(entry["name"], entry["change"]) for entry in account] == [("readme.txt", "left out"), ("a", "rounded")]


def test_no_credential_of_a_source_is_shown(tmp_path):
    uri = "s3://KEY:SECRET-0123@bucket/a.csv?endpoint_override=127.0.0.1:1&scheme=http"
    for options in (["--kind", "csv"], ["--target", "y"]):
        result = heliostat("convert", uri, tmp_path / "set", *options)
        assert result.exit_code == 1
        assert "s3://bucket/a.csv: a conversion reads files of this host" in result.stderr
        assert "SECRET" not in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "verify", "upload"])
def test_long_work_has_a_bar_in_a_terminal_that_is_gone_in_the_end(command, tmp_path):
    numbers = np.random.default_rng(0).integers(0, 1000, (400_000, 4))
    np.savetxt(tmp_path / "rows.csv", numbers, "%d", ",", header="a,b,c,d", comments="")
    if command != "convert":
        convert(tmp_path / "rows.csv", tmp_path / "set", rows_per_shard=1000)
    arguments = {
        "convert": ("convert", tmp_path / "rows.csv", tmp_path / "set"),
        "verify": ("verify", tmp_path / "set"),
        "upload": ("upload", tmp_path / "set", f"file://{tmp_path}/there"),
    }[command]
    with terminal(["-P", "-m", "heliostat.scripts.cli", *map(str, arguments)]) as seen:
        shown = seen.end()
    what = {"convert": "converting", "verify": "reading", "upload": "sending"}[command]
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.written.decode())
    assert re.search(rf"{what}  ━+.*  [0-9.]+ of [0-9.]+ MB", drawn)
    assert not any("━" in line or line.startswith(f"{what}  ") for line in shown)
    assert len(open_dataset(tmp_path / ("there" if command == "upload" else "set"))) == 400_000
