"""Conversions that are interrupted and go on: the result is that of an undisturbed one, whatever the source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from heliostat.data import BadColumnError, DatasetExistsError, open_dataset
from heliostat.data.conversion.convert import convert
from heliostat.data.conversion.from_objects import from_generator, from_pandas, from_ray_dataset

NUM_ROWS = 3000
X = np.arange(NUM_ROWS * 4, dtype=np.float64).reshape(NUM_ROWS, 4)
TEXTS = [f"row {row}" * (row % 3) for row in range(NUM_ROWS)]
# A few hundred rows, so that a source comes in many pieces.
PIECE_BYTES = 16 << 10


def table() -> pa.Table:
    return pa.table({"a": X[:, 0], "b": np.arange(NUM_ROWS) % 7, "text": TEXTS})


def write_csv(path: Path) -> None:
    lines = [f'{row},{row / 2},"{text}"' for row, text in enumerate(TEXTS)]
    path.write_text("\n".join(["a,b,text", *lines]))


def write_json(path: Path) -> None:
    path.write_text("".join(json.dumps({"a": row, "text": text}) + "\n" for row, text in enumerate(TEXTS)))


def write_parts(path: Path) -> None:
    path.mkdir()
    for part in range(3):
        pq.write_table(table().slice(part * 1100, 1100), path / f"{part}.parquet", row_group_size=170)


WRITERS = {
    "a.npz": lambda path: np.savez(path, x=X, y=np.arange(NUM_ROWS), f=np.asfortranarray(X)),
    "packed.npz": lambda path: np.savez_compressed(path, x=X, y=np.arange(NUM_ROWS)),
    "x.npy": lambda path: np.save(path, X),
    "a.csv": write_csv,
    "a.jsonl": write_json,
    "parts": write_parts,
    "a.feather": lambda path: pyarrow.feather.write_feather(table(), path, chunksize=300),
}


def manifest_of(dataset) -> bytes:
    return (dataset.path / "manifest.json").read_bytes()


class Stop(BaseException):
    """As a KeyboardInterrupt, but nobody else's."""


def interrupted(source: Path, target: Path, after: int, **options) -> int:
    """Convert until so many pieces have come; the rows that were taken."""
    seen = []

    def on_progress(now) -> None:
        seen.append(now.num_rows)
        if len(seen) == after:
            raise Stop

    with pytest.raises(Stop):
        convert(source, target, on_progress=on_progress, **options)
    return seen[-1]


def again_from_zero(source: Path, target: Path, options) -> int:
    rows: list[int] = []
    convert(source, target, on_progress=lambda now: rows.append(now.num_rows), **options)
    return len(rows)


@pytest.mark.parametrize("shuffle_seed", [None, 5])
@pytest.mark.parametrize("name", WRITERS)
def test_an_interrupted_conversion_goes_on_to_the_same_result(tmp_path, name, shuffle_seed):
    WRITERS[name](tmp_path / name)
    options = {
        "shard_bytes": 4 << 10,
        "rows_per_shard": 100,
        "shuffle_seed": shuffle_seed,
        "piece_bytes": PIECE_BYTES,
    }
    expected = convert(tmp_path / name, tmp_path / "undisturbed", **options)
    stopped_at = interrupted(tmp_path / name, tmp_path / "set", 4, **options)
    assert not (tmp_path / "set").exists()
    rows = []
    again = convert(
        tmp_path / name, tmp_path / "set", resume=True, on_progress=lambda now: rows.append(now.num_rows), **options
    )
    assert again.fingerprint == expected.fingerprint
    assert manifest_of(again) == manifest_of(expected)
    assert stopped_at < len(expected)
    assert rows[-1] == len(expected)
    # It did not begin anew: fewer pieces came than in all.
    assert len(rows) < again_from_zero(tmp_path / name, tmp_path / "count", options)
    assert not (tmp_path / ".set.writing").exists()


def test_without_resume_what_is_unfinished_is_begun_anew(tmp_path):
    write_csv(tmp_path / "a.csv")
    options = {"shard_bytes": 4 << 10, "piece_bytes": PIECE_BYTES}
    interrupted(tmp_path / "a.csv", tmp_path / "set", 4, **options)
    assert (tmp_path / ".set.writing").exists()
    rows: list[int] = []
    convert(tmp_path / "a.csv", tmp_path / "set", on_progress=lambda now: rows.append(now.num_rows), **options)
    assert rows[0] < 1000
    assert not (tmp_path / ".set.writing").exists()


@pytest.mark.parametrize("changed", ["source", "options"])
def test_another_source_or_other_options_are_not_mixed_in(tmp_path, changed):
    write_csv(tmp_path / "a.csv")
    options = {"shard_bytes": 4 << 10, "piece_bytes": PIECE_BYTES}
    interrupted(tmp_path / "a.csv", tmp_path / "set", 4, **options)
    if changed == "source":
        (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text() + "\n1,2,3\n")
    else:
        options["features"] = ["a"]
    with pytest.raises(DatasetExistsError, match="begun with other options"):
        convert(tmp_path / "a.csv", tmp_path / "set", resume=True, **options)


def test_pieces_of_another_size_go_on_too(tmp_path):
    write_csv(tmp_path / "a.csv")
    expected = convert(tmp_path / "a.csv", tmp_path / "undisturbed", rows_per_shard=100)
    interrupted(tmp_path / "a.csv", tmp_path / "set", 4, rows_per_shard=100, piece_bytes=PIECE_BYTES)
    found = convert(tmp_path / "a.csv", tmp_path / "set", rows_per_shard=100, resume=True)
    assert manifest_of(found) == manifest_of(expected)


@pytest.mark.parametrize("piece_bytes", [0, -1])
def test_pieces_of_nothing_are_refused(tmp_path, piece_bytes):
    write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=f"piece_bytes is {piece_bytes}"):
        convert(tmp_path / "a.csv", tmp_path / "set", piece_bytes=piece_bytes)
    with pytest.raises(ValueError, match=f"piece_bytes is {piece_bytes}"):
        from_generator([{"x": 1}], tmp_path / "set", piece_bytes=piece_bytes)
    assert os.listdir(tmp_path) == ["a.csv"]


def test_an_error_leaves_nothing_unless_it_can_be_resumed(tmp_path):
    def rows(bad):
        for row in range(NUM_ROWS):
            yield {"x": X[row], "n": "text" if bad and row == 2500 else row}

    for resume in (False, True):
        with pytest.raises((BadColumnError, TypeError)):
            from_generator(rows(True), tmp_path / "set", resume=resume, shard_bytes=4 << 10, piece_bytes=PIECE_BYTES)
        assert os.listdir(tmp_path) == ([".set.writing"] if resume else [])
    asked: list[int] = []
    found = from_generator(
        rows(False),
        tmp_path / "set",
        resume=True,
        shard_bytes=4 << 10,
        piece_bytes=PIECE_BYTES,
        on_progress=lambda now: asked.append(now.num_rows),
    )
    assert len(found) == NUM_ROWS
    assert next(found.batches(NUM_ROWS, shuffle=False))["n"].tolist() == list(range(NUM_ROWS))
    assert asked[0] > 400


def test_frames_and_arrow_batches_go_on(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": X[:, 0], "text": TEXTS})
    options = {"rows_per_shard": 100, "piece_bytes": PIECE_BYTES}

    class Batches:
        def iter_batches(self, *, batch_size: int, batch_format: str):
            for low in range(0, NUM_ROWS, 170):
                yield table().slice(low, 170)

    for name, write in (
        ("frame", lambda path, **options: from_pandas(frame, path, **options)),
        ("batches", lambda path, **options: from_ray_dataset(Batches(), path, **options)),
    ):

        def stop(now):
            if now.num_rows > 1000:
                raise Stop

        expected = write(tmp_path / f"{name} undisturbed", **options)
        with pytest.raises(Stop):
            write(tmp_path / name, on_progress=stop, **options)
        assert manifest_of(write(tmp_path / name, resume=True, **options)) == manifest_of(expected)


KILLED = """
import os, signal, sys
from heliostat.data.conversion.convert import convert
def on_progress(now):
    if now.num_rows > 1000:
        os.kill(os.getpid(), signal.SIGKILL)
convert(sys.argv[1], sys.argv[2], rows_per_shard=100, on_progress=on_progress if sys.argv[3] == "kill" else None)
"""


def test_a_killed_conversion_goes_on(tmp_path):
    write_parts(tmp_path / "parts")
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "parts"), str(tmp_path / "set"), "kill"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "set").exists()
    first: list[int] = []
    found = convert(
        tmp_path / "parts",
        tmp_path / "set",
        resume=True,
        rows_per_shard=100,
        piece_bytes=PIECE_BYTES,
        on_progress=lambda now: first.append(now.num_rows),
    )
    assert first[0] > 1000
    assert found.fingerprint == convert(tmp_path / "parts", tmp_path / "again", rows_per_shard=100).fingerprint
    assert open_dataset(tmp_path / "set").fingerprint == found.fingerprint
    found.verify()


def test_the_manifest_says_where_rows_came_from(tmp_path):
    write_csv(tmp_path / "a.csv")
    known = convert(tmp_path / "a.csv", tmp_path / "set", features=["a", "b"], columns={"a": "float32"}).metadata
    source = known["source"]
    assert (source["kind"], source["name"]) == ("csv", "a.csv")
    assert source["num_bytes"] == (tmp_path / "a.csv").stat().st_size
    assert source["options"] == {"features": ["a", "b"], "columns": {"a": "float32"}}
