"""Writing piece by piece: the same files however the rows come, shuffling, going on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from heliostat.data import BadColumnError, DatasetError, DatasetExistsError, open_dataset, write_dataset
from heliostat.data.format.columns import Column
from heliostat.data.format.ragged import Ragged
from heliostat.data.writer import DatasetWriter
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_ROWS = 1000
COLUMNS = {
    "x": np.random.default_rng(0).integers(0, 256, (NUM_ROWS, 3), dtype=np.uint8),
    "tokens": [list(range(number % 9)) for number in range(NUM_ROWS)],
    "text": [f"row {number}" for number in range(NUM_ROWS)],
    "y": np.arange(NUM_ROWS),
}


def part(low, high):
    return {name: values[low:high] for name, values in COLUMNS.items()}


def gathered(dataset):
    with dataset.reader() as reader:
        return reader.gather(np.arange(len(dataset)))


def assert_all_rows(dataset, order=None) -> None:
    found, ids = gathered(dataset), range(NUM_ROWS) if order is None else order
    assert np.array_equal(found["x"], COLUMNS["x"][list(ids)])
    assert found["y"].tolist() == list(ids)
    assert found["tokens"].to_list() == [COLUMNS["tokens"][row] for row in ids]
    assert found["text"].to_list() == [COLUMNS["text"][row] for row in ids]


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    st.lists(st.integers(0, NUM_ROWS), max_size=8),
    st.sampled_from([{"rows_per_shard": 130}, {"shard_bytes": 9000}, {}, {"shuffle_seed": 1, "shuffle_bytes": 9000}]),
)
def test_the_files_do_not_depend_on_how_the_rows_came(tmp_path_factory, cuts, options):
    folder = tmp_path_factory.mktemp("cuts")
    whole = write_dataset(folder / "whole", COLUMNS) if not options else None
    with DatasetWriter(folder / "once", **options) as once:
        once.write(COLUMNS)
    with DatasetWriter(folder / "pieces", **options) as pieces:
        for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), NUM_ROWS], strict=True):
            pieces.write(part(low, high))
    assert pieces.rows_written == NUM_ROWS
    assert pieces.dataset.fingerprint == once.dataset.fingerprint
    assert repr(pieces.dataset.statistics) == repr(once.dataset.statistics)
    if whole is not None:
        assert whole.fingerprint == once.dataset.fingerprint
    if "shuffle_seed" not in options:
        assert_all_rows(pieces.dataset)


def test_memory_of_the_caller_may_be_used_again(tmp_path):
    buffer = np.empty((10, 3), np.uint8)
    with DatasetWriter(tmp_path / "set") as writer:
        for low in range(0, NUM_ROWS, 10):
            buffer[:] = COLUMNS["x"][low : low + 10]
            writer.write({"x": buffer})
    assert np.array_equal(gathered(writer.dataset)["x"], COLUMNS["x"])


def test_shards_of_rows_of_variable_length_have_the_bytes_asked_for(tmp_path):
    rows = [b"x" * (50 * number) for number in range(200)]
    dataset = write_dataset(tmp_path / "set", {"x": rows}, shard_bytes=100_000)
    sizes = [shard.num_bytes for shard in dataset.shards]
    assert len(sizes) == 11
    assert all(size < 110_000 for size in sizes)
    assert gathered(dataset)["x"].to_list() == rows


def test_record_batches_are_bounded_in_bytes(tmp_path):
    rows = [bytes(3 << 20) for _ in range(7)]
    dataset = write_dataset(tmp_path / "set", {"x": rows})
    assert [shard.chunk_rows for shard in dataset.shards] == [(2, 2, 2, 1)]
    assert gathered(open_dataset(dataset.path))["x"].to_list() == rows


def test_arrow_data_are_rows_too(tmp_path):
    table = pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(COLUMNS["x"].reshape(-1)), 3),
            "tokens": pa.array(COLUMNS["tokens"], pa.list_(pa.int64())),
            "text": COLUMNS["text"],
            "y": COLUMNS["y"],
        }
    )
    chunked = pa.concat_tables([table[:300], table[300:301], table[301:]])
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write(chunked)
    assert_all_rows(writer.dataset)
    with DatasetWriter(tmp_path / "batches") as writer:
        for batch in table.to_batches(max_chunksize=70):
            writer.write(batch)
    assert writer.dataset.fingerprint == open_dataset(tmp_path / "set").fingerprint


ARROW = {
    "bools": (pa.array([True, False, True]), np.array([True, False, True])),
    "half floats": (pa.array(np.array([1.5, -2, 3], np.float16)), np.array([1.5, -2, 3], np.float16)),
    "dictionary": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "short text": (pa.array(["ä", "", "b"]), ["ä", "", "b"]),
    "views": (pa.array(["ä", "", "longer than twelve bytes"], pa.string_view()), ["ä", "", "longer than twelve bytes"]),
    "binary": (pa.array([b"a", b"", b"\0"]), [b"a", b"", b"\0"]),
    "fixed binary": (pa.array([b"ab", b"cd", b"ef"], pa.binary(2)), [b"ab", b"cd", b"ef"]),
    "large lists": (pa.array([[1], [], [2, 3]], pa.large_list(pa.int8())), [[1], [], [2, 3]]),
    "lists of bools": (pa.array([[True], [], [False]]), [[True], [], [False]]),
    "lists of vectors": (
        pa.array([[[1, 2]], [], [[3, 4], [5, 6]]], pa.list_(pa.list_(pa.int32(), 2))),
        [[[1, 2]], [], [[3, 4], [5, 6]]],
    ),
    "matrices": (
        pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 0], [1, 2]]], pa.list_(pa.list_(pa.int16(), 2), 2)),
        np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 0], [1, 2]]], np.int16),
    ),
    "tensors": (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2)),
        np.arange(12.0).reshape(3, 2, 2),
    ),
}


@pytest.mark.parametrize("kind", ARROW)
@pytest.mark.parametrize("sliced", [False, True])
def test_every_arrow_type_comes_back(tmp_path, kind, sliced):
    values, expected = ARROW[kind]
    if sliced:
        values = pa.concat_arrays([values, values])[2:5]
        expected = [*expected, *expected][2:5]
    found = gathered(write_dataset(tmp_path / "set", {"x": values}))["x"]
    if isinstance(found, Ragged):
        assert found.to_list() == list(expected)
    else:
        assert np.array_equal(found, np.asarray(expected))
        assert found.dtype == np.asarray(ARROW[kind][1]).dtype


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.decimal128(5, 2), pa.struct([("a", pa.int8())]), pa.null()], ids=str
)
def test_other_arrow_types_are_named(tmp_path, kind):
    with pytest.raises(BadColumnError, match=r"'x' has Arrow type") as caught:
        write_dataset(tmp_path / "set", {"x": pa.nulls(3, kind)})
    assert caught.value.column == "x"


MISSING = {
    "numbers": (pa.array([1, None, 3]), 0, [1, 0, 3]),
    "python numbers": ([1, None, 3], -1, [1, -1, 3]),
    "bools": (pa.array([True, None]), False, [True, False]),
    "text": (["a", None, ""], "?", ["a", "?", ""]),
    "bytes": ([b"a", None], b"", [b"a", b""]),
    "lists": (pa.array([[1, None], None, [2]]), 9, [[1, 9], [], [2]]),
    "rows of vectors": (pa.array([[1, None], None, [2, 3]], pa.list_(pa.int8(), 2)), 9, [[1, 9], [9, 9], [2, 3]]),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), "z", ["a", "z"]),
    "masked": (np.ma.masked_equal([1, 2, 3], 2), 7, [1, 7, 3]),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_values_are_filled_or_refused(tmp_path, kind):
    values, fill, expected = MISSING[kind]
    found = gathered(write_dataset(tmp_path / "filled", {"x": values}, fill_nulls={"x": fill}))["x"]
    assert (found.to_list() if isinstance(found, Ragged) else found.tolist()) == expected
    with pytest.raises(BadColumnError, match="missing value"):
        write_dataset(tmp_path / "set", {"x": values})


def test_the_row_of_the_first_missing_value_is_told(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": np.arange(5), "t": [[1]] * 4 + [[]]})
        with pytest.raises(BadColumnError, match="'x' has 1 missing value, the first in row 7"):
            writer.write({"x": pa.array([1, 2, None]), "t": [[1]] * 3})
        with pytest.raises(BadColumnError, match="'t' has 1 missing value, the first in row 6"):
            writer.write({"x": [1, 2], "t": pa.array([[1, 2], [3, None]])})


def test_a_fill_of_another_kind_is_refused(tmp_path):
    with pytest.raises(BadColumnError, match="cannot be filled with 'none'"):
        write_dataset(tmp_path / "set", {"x": pa.array([1, None])}, fill_nulls={"x": "none"})


def test_declared_columns_decide(tmp_path):
    columns = [
        Column(name="x", dtype=np.dtype(np.int8), kind="list"),
        Column(name="y", dtype=np.dtype(np.float32)),
    ]
    with DatasetWriter(tmp_path / "set", columns=columns) as writer:
        writer.write({"y": [1, 2], "x": [[1, 2], [3, 4]]})
        with pytest.raises(BadColumnError, match="'x' has 300 in row 2, which is beyond int8"):
            writer.write({"y": [1.0], "x": [[300]]})
    assert list(writer.dataset.schema.values()) == columns
    assert gathered(writer.dataset)["x"].to_list() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("rows", [{"x": [1]}, {"x": [1], "y": [2], "z": [3]}, {"x": [1], "z": [3]}])
def test_other_columns_than_at_first_are_refused(tmp_path, rows):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [1], "y": [2]})
        with pytest.raises(BadColumnError, match=r"column '[yz]' is (missing|unknown)"):
            writer.write(rows)


def test_metadata_come_back(tmp_path):
    metadata = {"source": "news.csv", "classes": ["a", "b"], "scale": 0.5}
    write_dataset(tmp_path / "set", {"x": [1]}, metadata=metadata)
    assert open_dataset(tmp_path / "set").metadata == metadata
    for bad in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(ValueError, match="metadata must be"):
            write_dataset(tmp_path / "other", {"x": [1]}, metadata=bad)


@pytest.mark.parametrize("options", [{"shard_bytes": 0}, {"shuffle_bytes": -1}, {"shard_bytes": None}])
def test_senseless_options_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        DatasetWriter(tmp_path / "set", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("columns", [[], [Column(name="x", dtype=np.dtype(np.int8))] * 2], ids=["none", "twice"])
def test_senseless_columns_are_refused(tmp_path, columns):
    with pytest.raises(BadColumnError, match="at least one, with different names"):
        DatasetWriter(tmp_path / "set", columns=columns)
    assert os.listdir(tmp_path) == []


def test_rows_of_other_lengths_than_at_first_say_what_to_do(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [[1, 2]]})
        with pytest.raises(BadColumnError, match=r"rows of shape \(2,\).*declare it in columns= as a list column"):
            writer.write({"x": [[1, 2, 3]]})


def test_a_writer_without_rows_makes_no_dataset(tmp_path):
    with pytest.raises(BadColumnError, match="at least one row"), DatasetWriter(tmp_path / "set"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_closed_writer_takes_no_rows(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [1]})
        with pytest.raises(ValueError, match="is not finished"):
            writer.dataset  # noqa: B018
    assert writer.close() is writer.dataset
    with pytest.raises(ValueError, match="is closed"):
        writer.write({"x": [1]})


def test_an_exception_leaves_nothing(tmp_path):
    def write_and_stop() -> None:
        with DatasetWriter(tmp_path / "set", rows_per_shard=100) as writer:
            writer.write(COLUMNS)
            raise KeyError

    with pytest.raises(KeyError):
        write_and_stop()
    assert os.listdir(tmp_path) == []


SHUFFLES = {"one buffer": {}, "many buffers": {"shuffle_bytes": 5000}, "small shards": {"rows_per_shard": 70}}


@pytest.mark.parametrize("kind", SHUFFLES)
def test_shuffling_keeps_every_row_once_and_whole(tmp_path, kind):
    options = SHUFFLES[kind]
    with DatasetWriter(tmp_path / "set", shuffle_seed=3, **options) as writer:
        writer.write(COLUMNS)
    order = gathered(writer.dataset)["y"].tolist()
    assert sorted(order) == list(range(NUM_ROWS))
    assert order != sorted(order)
    assert_all_rows(writer.dataset, order)
    with DatasetWriter(tmp_path / "other", shuffle_seed=4, **options) as writer:
        writer.write(COLUMNS)
    assert gathered(writer.dataset)["y"].tolist() != order


def test_a_row_stays_in_its_shuffle_buffer(tmp_path):
    with DatasetWriter(tmp_path / "set", shuffle_seed=0, shuffle_bytes=8 * 50) as writer:
        writer.write({"y": COLUMNS["y"]})
    order = gathered(writer.dataset)["y"]
    assert np.array_equal(order // 50, np.arange(NUM_ROWS) // 50)
    assert [shard.num_rows for shard in writer.dataset.shards] == [50] * 20


PROGRAM = """
import os, sys, signal
sys.path.insert(0, sys.argv[3])
import test_dataset_writer as rows
from heliostat.data.writer import DatasetWriter
writer = DatasetWriter(sys.argv[1], **eval(sys.argv[2]))
for low in range(0, 650, 65):
    writer.write(rows.part(low, low + 65))
os.kill(os.getpid(), signal.SIGKILL)
"""

INTERRUPTED = {
    "bytes": {"shard_bytes": 9000},
    "shuffled": {"shuffle_seed": 1, "shuffle_bytes": 9000, "rows_per_shard": 70},
    "overwritten": {"rows_per_shard": 100, "overwrite": True},
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    write_and_die(folder / "set", {"rows_per_shard": 100})
    assert os.listdir(folder) == [".set.writing"]
    return folder / ".set.writing"


def write_and_die(path, options) -> None:
    arguments = [str(path), repr(options), os.path.dirname(__file__)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_another_writer_goes_on_after_a_kill(tmp_path, kind):
    options = INTERRUPTED[kind]
    if kind == "overwritten":
        write_dataset(tmp_path / "set", {"old": [1, 2]})
    write_and_die(tmp_path / "set", options)
    assert os.path.exists(tmp_path / "set") == (kind == "overwritten")
    with DatasetWriter(tmp_path / "set", resume=True, **options) as writer:
        assert 300 < writer.rows_done <= 650
        writer.write(part(writer.rows_done, NUM_ROWS))
    with DatasetWriter(tmp_path / "other", **options) as other:
        other.write(COLUMNS)
    assert writer.dataset.fingerprint == other.dataset.fingerprint
    assert repr(writer.dataset.statistics) == repr(other.dataset.statistics)
    writer.dataset.verify()
    assert sorted(os.listdir(tmp_path)) == ["other", "set"]
    assert sorted(os.listdir(tmp_path / "set")) == sorted(os.listdir(tmp_path / "other"))


def test_a_writer_goes_on_after_an_exception_and_another_one(tmp_path):
    def stop_after(num_rows) -> None:
        with DatasetWriter(tmp_path / "set", rows_per_shard=100, resume=True) as writer:
            writer.write(part(writer.rows_done, num_rows))
            raise KeyError

    for num_rows, done in ((250, 200), (430, 400)):
        with pytest.raises(KeyError):
            stop_after(num_rows)
        with DatasetWriter(tmp_path / "set", rows_per_shard=100, resume=True) as writer:
            assert writer.rows_done == done
            writer.abort()
    with DatasetWriter(tmp_path / "set", rows_per_shard=100, resume=True) as writer:
        writer.write(part(writer.rows_done, NUM_ROWS))
    assert_all_rows(writer.dataset)


def test_a_writer_that_does_not_go_on_begins_anew(tmp_path, interrupted):
    shutil.copytree(interrupted, tmp_path / ".set.writing")
    with DatasetWriter(tmp_path / "set", rows_per_shard=100) as writer:
        assert writer.rows_done == 0
        writer.write(COLUMNS)
    assert_all_rows(writer.dataset)
    assert os.listdir(tmp_path) == ["set"]


def test_other_options_are_refused_when_going_on(tmp_path, interrupted):
    shutil.copytree(interrupted, tmp_path / ".set.writing")
    with pytest.raises(DatasetExistsError, match=r"begun with other options \(rows_per_shard\)"):
        DatasetWriter(tmp_path / "set", rows_per_shard=50, resume=True)
    with DatasetWriter(tmp_path / "set", rows_per_shard=100, resume=True) as writer:
        assert writer.rows_done == 600
        with pytest.raises(BadColumnError, match="column 'z' is unknown"):
            writer.write({"z": [1]})
        writer.abort()


@pytest.mark.parametrize("damage", ["torn line", "missing file", "short file", "stray file", "no journal"])
def test_an_unfinished_folder_that_is_damaged_is_used_as_far_as_it_is_whole(tmp_path, interrupted, damage):
    shutil.copytree(interrupted, tmp_path / ".set.writing")
    folder = tmp_path / ".set.writing"
    expected = 600
    if damage == "torn line":
        text = (folder / "journal.jsonl").read_text()
        (folder / "journal.jsonl").write_text(text[:-50])
        expected = 500
    elif damage == "missing file":
        os.remove(folder / "shard-00003.arrow")
        expected = 300
    elif damage == "short file":
        os.truncate(folder / "shard-00001.arrow", 10)
        expected = 100
    elif damage == "stray file":
        (folder / "shard-00099.arrow").write_bytes(b"x")
    else:
        os.remove(folder / "journal.jsonl")
        expected = 0
    with DatasetWriter(tmp_path / "set", rows_per_shard=100, resume=True) as writer:
        assert writer.rows_done == expected
        writer.write(part(expected, NUM_ROWS))
    assert_all_rows(writer.dataset)
    writer.dataset.verify()
    assert len(os.listdir(writer.dataset.path)) == 11


def test_two_writers_of_one_dataset_are_refused(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [1]})
        for resume in (False, True):
            with pytest.raises(DatasetExistsError, match="Another process is writing"):
                DatasetWriter(tmp_path / "set", resume=resume)
    assert gathered(writer.dataset)["x"].tolist() == [1]


def test_a_dataset_that_appeared_while_another_was_written_stays(tmp_path):
    writer = DatasetWriter(tmp_path / "set")
    writer.write({"x": [1]})
    (tmp_path / "set").mkdir()
    with pytest.raises(DatasetError, match="exists already"):
        writer.close()
    assert os.listdir(tmp_path) == ["set"]


def test_memory_is_bounded(tmp_path):
    program = (
        "import sys, resource, numpy as np\n"
        "from heliostat.data.writer import DatasetWriter\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "with DatasetWriter(sys.argv[1], shard_bytes=4 << 20) as writer:\n"
        "    block = {'x': np.zeros((1000, 1000), np.float32), 't': [b'x' * 1000] * 1000}\n"
        "    for _ in range(10): writer.write(block)\n"
        "    before = peak()\n"
        "    for _ in range(50): writer.write(block)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "set")], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 60


def test_manifests_of_the_first_format_version_still_open(tmp_path):
    dataset = write_dataset(tmp_path / "set", {"x": np.arange(20).reshape(10, 2), "flag": np.arange(10) % 2 == 0})
    path = dataset.path / "manifest.json"
    content = json.loads(path.read_text())
    first = {
        **{key: value for key, value in content.items() if key not in ("shard_format", "metadata")},
        "format_version": 1,
    }
    path.write_text(json.dumps(first))
    again = open_dataset(dataset.path)
    assert again.fingerprint == dataset.fingerprint
    assert gathered(again)["x"].tolist() == np.arange(20).reshape(10, 2).tolist()


@pytest.mark.parametrize("empty", [np.zeros((0, 4), np.float32), np.zeros(0), []], ids=["as declared", "flat", "list"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_rows_that_are_all_empty_arrays_fit_a_list_column_like_empty_ones_beside_others(tmp_path, empty, is_declared):
    """Boxes of pictures, of which a whole write may have none."""
    box = np.ones((1, 4), np.float32)
    columns = [Column(name="x", dtype=np.dtype(np.float32), shape=(4,), kind="list")] if is_declared else None
    writes = [[empty, empty], [box, empty], [empty]] if is_declared else [[box, empty], [empty, empty], [empty]]
    with DatasetWriter(tmp_path / "set", columns=columns) as writer:
        for rows in writes:
            writer.write({"x": rows})
    found = writer.dataset.reader().gather(np.arange(5))["x"].to_list()
    assert sorted(map(len, found)) == [0, 0, 0, 0, 1]


def test_empty_arrays_make_a_column_of_their_dtype_and_shape(tmp_path):
    with DatasetWriter(tmp_path / "set") as writer:
        writer.write({"x": [np.zeros((0, 4), np.int16)] * 2})
        writer.write({"x": [np.ones((2, 4), np.int16)]})
    assert writer.dataset.schema["x"] == Column(name="x", dtype=np.dtype(np.int16), shape=(4,), kind="list")
