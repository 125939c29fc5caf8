"""The command line: what it prints, its exit status, and that mistakes end in a message, never in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from heliostat.data import open_dataset, write_dataset
from heliostat.scripts.cli import main
from heliostat.scripts.commandline import OTHER_NAMES, SECTIONS

from .child import environment


def heliostat(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], prog_name="heliostat")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def failed(*arguments: object, status: int = 1) -> str:
    """What a failing command says."""
    result = heliostat(*arguments)
    assert result.exit_code == status, result.output
    return result.stderr


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "flowers.csv"
    path.write_text("width,length,kind\n1.5,2,0\n2.5,3,1\n3.5,4,1\n")
    return path


def test_the_command_loads_neither_tensorflow_nor_ray_nor_the_trainer_before_it_must():
    code = (
        "import sys, heliostat.scripts.cli\n"
        "print([m for m in ('tensorflow', 'keras', 'ray', 'pyarrow', 'heliostat.trainer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_version_names_heliostat_and_what_it_stands_on():
    output = heliostat("--version").output
    assert [part.split(" ")[0] for part in output.split(", ")] == ["heliostat", "tensorflow", "keras", "ray"]
    assert f"ray {__import__('importlib.metadata').metadata.version('ray')}" in output


def test_help_names_every_command_in_a_section_and_cuts_nothing_off():
    output = heliostat("--help").output
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(main.commands)
    assert all(f"\n  {command} " in output for command in main.commands)
    assert "..." not in output.split("Train:")[1]


def test_no_module_shadows_one_of_the_standard_library():
    scripts = Path(__file__).parents[2] / "scripts"
    assert not {path.stem for path in scripts.rglob("*.py")} & (sys.stdlib_module_names - {"__init__"})


@pytest.mark.parametrize(("said", "meant"), [("train", "run"), ("list", "runs"), ("describe", "inspect")])
def test_a_name_that_others_use_for_a_command_is_answered_with_ours(said, meant):
    assert f"Did you mean '{meant}'?" in failed(said, "x", status=2)


def test_every_other_name_means_a_command_and_is_none():
    assert set(OTHER_NAMES.values()) <= set(main.commands)
    assert not set(OTHER_NAMES) & set(main.commands)


def test_an_option_has_one_meaning():
    """The same spelling has the same kind of value in every command."""
    kinds: dict[str, set[str]] = {}
    for command in main.commands.values():
        for option in (each for each in command.params if isinstance(each, click.Option)):
            for name in option.opts:
                kinds.setdefault(name, set()).add(type(option.type).__name__)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_the_home_folder_may_stand_in_quotes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_dataset(tmp_path / "set", {"x": np.zeros((5, 3), np.float32)})
    assert "5 rows" in heliostat("inspect", "~/set").output
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert heliostat("convert", "~/a.npz", "~/new").exit_code == 0
    assert (tmp_path / "new" / "manifest.json").exists()


def test_tracebacks_are_shown_when_they_are_asked_for(tmp_path):
    assert "Traceback" not in failed("inspect", tmp_path / "nowhere")
    assert "Traceback" in failed("--traceback", "inspect", tmp_path / "nowhere")


def test_json_is_one_object_on_a_line(tmp_path, table):
    converted = json.loads(heliostat("convert", table, tmp_path / "set", "--json").stdout)
    inspected = json.loads(heliostat("inspect", tmp_path / "set", "--json").stdout)
    verified = json.loads(heliostat("verify", tmp_path / "set", "--json").stdout)
    assert converted["num_rows"] == inspected["num_rows"] == verified["num_rows"] == 3
    assert [column["name"] for column in inspected["columns"]] == ["width", "length", "kind"]
    assert verified["damage"] == []


def test_no_credential_is_shown_where_a_folder_is_wanted(tmp_path):
    said = failed("convert", tmp_path / "a.csv", "s3://KEY:SECRET@bucket/there", status=2)
    assert "bucket/there" in said
    assert "SECRET" not in said


def test_upload_wants_a_uri(tmp_path):
    assert "no URI" in failed("upload", tmp_path, tmp_path / "there", status=2)


def test_upload_puts_a_dataset_at_a_uri(tmp_path):
    write_dataset(tmp_path / "set", {"x": np.zeros((5, 3), np.float32)})
    there = (tmp_path / "there").as_uri()
    assert "5 rows" in heliostat("upload", tmp_path / "set", there).output
    assert len(open_dataset(there)) == 5
    assert "already" in failed("upload", tmp_path / "set", there)
    assert heliostat("upload", tmp_path / "set", there, "--overwrite").exit_code == 0


def test_convert_writes_the_arrays_of_an_npz_file(tmp_path):
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "arrays.npz", x=x, y=y)
    result = heliostat("convert", tmp_path / "arrays.npz", tmp_path / "set", "--rows-per-shard", 4)
    assert result.exit_code == 0
    assert "6 rows, 2 shards" in result.output
    (batch,) = open_dataset(tmp_path / "set").batches(6, shuffle=False)
    np.testing.assert_array_equal(batch["x"], x)
    np.testing.assert_array_equal(batch["y"], y)


def test_convert_makes_x_of_the_features_of_a_csv_file_and_y_of_its_target(table, tmp_path):
    heliostat("convert", table, tmp_path / "all", "--target", "kind")
    heliostat("convert", table, tmp_path / "one", "--target", "kind", "--feature", "length")
    heliostat("convert", table, tmp_path / "plain", "--feature", "kind", "--feature", "width")
    everything, one = (next(open_dataset(tmp_path / name).batches(3, shuffle=False)) for name in ("all", "one"))
    assert everything["x"].tolist() == [[1.5, 2], [2.5, 3], [3.5, 4]]
    assert everything["y"].tolist() == one["y"].tolist() == [0, 1, 1]
    assert one["x"].tolist() == [[2], [3], [4]]
    assert list(open_dataset(tmp_path / "plain").schema) == ["kind", "width"]


def test_convert_replaces_a_dataset_only_when_asked(table, tmp_path):
    assert heliostat("convert", table, tmp_path / "set").exit_code == 0
    assert "Error: " in failed("convert", table, tmp_path / "set", "--target", "kind")
    assert "x" not in open_dataset(tmp_path / "set").schema
    assert heliostat("convert", table, tmp_path / "set", "--target", "kind", "--overwrite").exit_code == 0
    assert "x" in open_dataset(tmp_path / "set").schema


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("flowers.parquet", [], ["flowers.parquet", "cannot be read as Parquet"]),
        ("flowers", [], [".npz", ".csv"]),
        ("none.csv", [], ["none.csv", "cannot be read as CSV"]),
        ("none.npz", [], ["none.npz", "cannot be read as .npz"]),
        ("none.npz", ["--target", "kind"], ["--target", "Leave it out"]),
        ("flowers.csv", ["--target", "colour"], ["'colour'", "'kind'"]),
        ("flowers.csv", ["--target", "kind", "--feature", "width", "--feature", "height"], ["'height'"]),
    ],
)
def test_convert_says_what_it_cannot_read_and_leaves_nothing(table, tmp_path, name, options, said):
    message = failed("convert", tmp_path / name, tmp_path / "set", *options)
    assert all(each in message for each in said), message
    assert "Traceback" not in message
    assert not (tmp_path / "set").exists()


def test_convert_into_a_place_that_cannot_be_written_is_a_message(table, tmp_path):
    (tmp_path / "file").write_text("")
    assert "Error: " in failed("convert", table, tmp_path / "file" / "set")


def test_a_count_of_rows_per_shard_below_one_is_a_mistake_in_usage(table, tmp_path):
    assert "--rows-per-shard" in failed("convert", table, tmp_path / "set", "--rows-per-shard", 0, status=2)


def test_inspect_shows_rows_columns_and_classes(tmp_path):
    write_dataset(tmp_path / "set", {"x": np.zeros((5, 3), np.float32), "y": np.array([0, 1, 1, 2, 1])})
    output = heliostat("inspect", tmp_path / "set").output
    assert "5 rows, 1 shard" in output
    assert "x: float32 3" in output
    assert "3 classes of 1 to 3 rows" in output


def test_inspect_shows_rows_and_how_well_shuffles_mix_the_classes(tmp_path):
    labels = np.repeat(np.arange(4), 500)
    write_dataset(tmp_path / "set", {"x": np.arange(2000), "y": labels})
    output = heliostat(
        "inspect", tmp_path / "set", "--samples", 2, "--label", "y", "--shuffle", "window:256", "--batch-size", 100
    ).output
    figure = next(line for line in output.splitlines() if "window:256" in line)
    assert "vary in 'y'" in figure
    assert "full" not in figure
    assert "{" not in failed("inspect", tmp_path / "set", "--label", "nothing")


def test_verify_lists_all_damage_and_fails(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.zeros((50, 3), np.float32)}, rows_per_shard=10)
    whole = heliostat("verify", tmp_path / "set")
    assert whole.exit_code == 0
    assert "no damage" in whole.output
    for shard in dataset.shards[1:3]:
        path = tmp_path / "set" / shard.file
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    damaged = heliostat("verify", tmp_path / "set")
    assert damaged.exit_code == 1
    assert all(shard.file in damaged.output for shard in dataset.shards[1:3])
    assert "20 of 50 rows" in damaged.output


def test_inspect_of_no_dataset_is_a_message(tmp_path):
    message = failed("inspect", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "Traceback" not in message


@pytest.mark.parametrize("options", [["--workers", "-1"], ["--replicas", "0"], ["--epochs", "0"], ["--loop", "both"]])
def test_demo_refuses_what_it_cannot_do_before_it_loads_anything(options):
    assert options[0] in failed("demo", *options, status=2)
