"""Changes of rows: what a function and pad compute, whoever reads it, in whatever batches."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from heliostat.data import Column, Dataset, RowError, UnknownColumnError, write_dataset
from heliostat.data.errors import SelectionError, TransformError
from heliostat.data.format.ragged import Ragged
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan, row_ids
from heliostat.data.views.randomness import row_keys, row_seeds, row_uniform
from hypothesis import given, settings
from hypothesis import strategies as st

NUM_ROWS = 203


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(NUM_ROWS)
    columns = {
        "id": ids,
        "x": np.stack([ids, ids * 2, ids * 3], axis=1).astype(np.float32),
        "text": [f"row {number}" for number in range(NUM_ROWS)],
        "tokens": [np.arange(number % 6, dtype=np.int32) + number for number in range(NUM_ROWS)],
    }
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", columns, rows_per_shard=50)


def rows_of(dataset: Dataset, ids=None, *, seed=0, epoch=0, columns=None) -> dict:
    with dataset.reader(columns) as reader:
        reader.start_pass(seed=seed, epoch=epoch)
        return reader.gather(np.arange(len(dataset)) if ids is None else np.asarray(ids))


def halves(rows):
    return {"half": rows["x"] / 2, "x": rows["x"].sum(axis=1).astype(np.int32)}


def test_a_function_of_batches_adds_and_replaces_columns(stored):
    view = stored.map(halves, ["x"])
    assert list(view.schema) == ["id", "x", "text", "tokens", "half"]
    assert view.schema["x"] == Column(name="x", dtype=np.dtype(np.int32))
    assert view.schema["half"] == Column(name="half", dtype=np.dtype(np.float32), shape=(3,))
    rows = rows_of(view, [7, 0, 202, 7])
    assert rows["x"].tolist() == [42, 0, 1212, 42]
    assert rows["half"][0].tolist() == [3.5, 7.0, 10.5]
    assert rows["text"].to_list() == ["row 7", "row 0", "row 202", "row 7"]
    assert all(one.ctypes.data % 64 == 0 for one in rows.values() if isinstance(one, np.ndarray))
    assert view.statistics["x"].max == 1212
    assert view.statistics["id"].max == 202


def test_given_arrays_are_filled_and_only_what_is_asked_is_computed(stored):
    calls = []
    view = stored.map(lambda rows: (calls.append(1), halves(rows))[1], ["x"])
    calls.clear()
    rows_of(view, [1], columns=["id", "text"])
    assert calls == []
    out = {"id": np.zeros(2, np.int64), "half": np.zeros((2, 3), np.float32)}
    with view.reader(["half", "id"]) as reader:
        assert list(reader.columns) == ["half", "id"]
        rows = reader.gather(np.array([2, 4]), out)
        assert rows["half"] is out["half"]
        assert rows["id"] is out["id"]
        assert reader.gather(np.zeros(0, np.int64))["half"].shape == (0, 3)
    assert out["half"].tolist() == [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]
    assert len(calls) == 1
    with view.reader(["half"]) as reader, pytest.raises(RowError, match="'half'"):
        reader.gather(np.array([1]), {"half": np.zeros((1, 2), np.float32)})
    with view.reader() as reader, pytest.raises(RowError):
        reader.gather(np.array([NUM_ROWS]))


def test_a_function_of_one_row_sees_numbers_text_and_lists(stored):
    def one(row):
        assert isinstance(row["text"], str)
        return {
            "letters": row["text"].replace("row ", "") * 2,
            "raw": row["text"].encode(),
            "reversed": row["tokens"][::-1],
            "length": len(row["tokens"]),
            "flag": bool(row["id"] % 2),
            "mean": row["x"].mean(),
        }

    view = stored.map(one, per_row=True)
    kinds = {name: (c.kind, c.dtype.name) for name, c in view.schema.items() if name not in stored.schema}
    assert kinds == {
        "letters": ("string", "uint8"),
        "raw": ("bytes", "uint8"),
        "reversed": ("list", "int32"),
        "length": ("tensor", "int64"),
        "flag": ("tensor", "bool"),
        "mean": ("tensor", "float32"),
    }
    rows = rows_of(view, [11, 12])
    assert rows["letters"].to_list() == ["1111", "1212"]
    assert rows["raw"].to_list() == [b"row 11", b"row 12"]
    assert rows["reversed"].to_list() == [[15, 14, 13, 12, 11], []]
    assert rows["length"].tolist() == [5, 0]
    assert rows["flag"].tolist() == [True, False]
    assert rows_of(view, [12])["reversed"].values.dtype == np.int32
    assert rows_of(view, [12])["reversed"].to_list() == [[]]


def test_output_names_what_a_function_returns(stored):
    assert rows_of(stored.map(lambda rows: rows["id"] + 1, ["id"], "next"), [4])["next"].tolist() == [5]
    both = stored.map(lambda rows: (rows["id"] + 1, rows["id"] - 1), "id", ["next", "last"])
    assert [rows_of(both, [4])[name].tolist() for name in ("next", "last")] == [[5], [3]]
    kind = Column(name="l", dtype=np.dtype(np.int64), kind="list")
    lists = stored.map(lambda row: list(range(row["id"] // 10)), ["id"], {"l": kind}, per_row=True)
    assert rows_of(lists, [3, 35])["l"].to_list() == [[], [0, 1, 2]]
    assert rows_of(lists, [3])["l"].values.dtype == np.int64
    ragged = stored.map(lambda rows: rows["tokens"].take(np.arange(len(rows["tokens"]))), ["tokens"], "again")
    assert rows_of(ragged, [5])["again"].to_list() == [[5, 6, 7, 8, 9]]


def test_an_unchanged_column_may_be_returned_and_none_can_be_written_to(stored):
    view = stored.map(lambda rows: {"same": rows["x"]})
    rows = rows_of(view, [1, 2])
    assert np.array_equal(rows["same"], rows["x"])
    rows["same"][0] = 0
    assert rows["x"][0].tolist() == [1, 2, 3]

    def in_place(rows):
        rows["x"] *= 2
        return rows

    with pytest.raises(TransformError, match=r"in_place for rows .* raised ValueError: .*read-only"):
        stored.map(in_place, ["x"])


def test_a_function_may_use_its_arrays_again(stored):
    from heliostat.data.format.memory import aligned_empty

    own, many = aligned_empty((4,), np.int64), aligned_empty((4,), np.int64)

    def change(rows):
        count = len(rows["id"])
        if count != 4:
            return {"y": rows["id"] + 1, "z": Ragged(rows["id"] + 1, np.arange(count + 1))}
        own[:] = many[:] = rows["id"] + 1
        return {"y": own, "z": Ragged(many, np.arange(5))}

    with stored.map(change).reader(["y", "z"]) as reader:
        first = reader.gather(np.arange(4))
        reader.gather(np.arange(50, 54))
    assert first["y"].tolist() == [1, 2, 3, 4]
    assert first["z"].to_list() == [[1], [2], [3], [4]]
    assert first["y"].ctypes.data % 64 == first["z"].values.ctypes.data % 64 == 0


def test_changes_stack_and_pickle(stored):
    offset = np.float32(3)
    view = stored.map(lambda rows: {"x": rows["x"] + offset}).filter(lambda rows: rows["x"][:, 0] > 100)
    view = view.map(lambda rows: {"x": rows["x"] * 2}).take(5)
    copy = pickle.loads(pickle.dumps(view))
    assert copy.fingerprint == view.fingerprint
    for one in (view, copy):
        assert rows_of(one)["x"][:, 0].tolist() == [202, 204, 206, 208, 210]


def broken(rows):
    if 150 in rows["id"]:
        raise KeyError("bad row")
    return {"y": rows["id"]}


def broken_row(row):
    if row["id"] == 150:
        raise KeyError("bad row")
    return {"y": row["id"]}


def test_an_exception_names_dataset_rows_and_function(stored):
    with pytest.raises(
        TransformError, match=r"function broken for rows 149, 150 of .*set raised KeyError: 'bad row'"
    ) as e:
        rows_of(stored.map(broken), [149, 150])
    assert isinstance(e.value.__cause__, KeyError)
    with pytest.raises(TransformError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7, … \(203 rows\) of"):
        rows_of(stored.map(broken))
    with pytest.raises(TransformError, match=r"function broken_row for row 150 of .* raised KeyError"):
        rows_of(stored.map(broken_row, per_row=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: {"y": r["id"].astype(np.int16 if len(r["id"]) > 9 else np.int64)},
            "expected 203 rows of tensor int64",
        ),
        (lambda r: {"y": np.zeros((len(r["id"]), 2 if len(r["id"]) > 9 else 1))}, r"float64 \(2,\); expected"),
        (lambda r: {"y": r["id"][:9]}, "9 rows of tensor int64"),
        (lambda r: {("y" if len(r["id"]) < 9 else "z"): r["id"]}, "columns 'z'; for the first rows it was 'y'"),
    ],
)
def test_later_rows_must_be_like_the_first(stored, change, message):
    with pytest.raises(TransformError, match=message):
        rows_of(stored.map(change))


def test_senseless_functions_are_refused_at_once(stored):
    with pytest.raises(TransformError, match="returned int; it must return a dict by column"):
        stored.map(lambda rows: 5)
    with pytest.raises(TransformError, match="3 rows of tensor int64"):
        stored.map(lambda rows: {"y": np.arange(3)})
    with pytest.raises(TransformError, match=r"no column.*complex128"):
        stored.map(lambda rows: {"y": rows["id"] * 1j})
    with pytest.raises(TransformError, match="no column"):
        stored.map(lambda rows: {"y": [object()] * len(rows["id"])})
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        stored.map(lambda rows: rows, ["z"])
    with pytest.raises(SelectionError, match="each once"):
        stored.map(lambda rows: rows, ["x"], ["a", "a"])


def noisy(rows, seeds):
    return {"noise": row_uniform(seeds, (2,)), "seed": seeds}


def noisy_row(row, numbers):
    return {"noise": numbers.normal(size=2)}


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(0, 2**64 - 1), st.integers(0, 10**9), st.integers(1, 60), st.integers(1, 6))
def test_random_numbers_belong_to_the_row_and_the_pass(stored, seed, epoch, batch_size, parts):
    order = RowOrder(num_rows=NUM_ROWS, seed=seed, epoch=epoch)
    plan = BatchPlan(num_rows=NUM_ROWS, global_batch_size=batch_size, num_microbatches=parts)
    step = plan.num_steps // 2
    for view in (stored.map(noisy, random=True), stored.map(noisy_row, random=True, per_row=True)):
        whole = rows_of(view, seed=seed, epoch=epoch)["noise"]
        for number in range(parts):
            ids = row_ids(order, plan, step, number)
            assert np.array_equal(rows_of(view, ids, seed=seed, epoch=epoch)["noise"], whole[ids])


def test_random_numbers_differ_by_row_pass_seed_and_change(stored):
    view = stored.map(noisy, random=True)
    twice = view.rename({"noise": "first", "seed": "s"}).map(noisy, random=True)
    both = rows_of(twice)
    assert np.array_equal(both["first"], rows_of(view)["noise"])
    found = [rows_of(view, seed=seed, epoch=epoch)["noise"] for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**32, 0))]
    assert np.unique(np.stack([*found, both["noise"]])).size == 5 * 2 * NUM_ROWS
    assert view.is_random
    assert not stored.is_random
    assert view.take(3).is_random
    assert "noise" not in view.statistics
    with pytest.raises(SelectionError, match="differ from pass to pass"):
        view.filter(lambda rows: rows["id"] > 0)


def test_uniform_numbers_are_uniform_and_unrelated():
    seeds = row_seeds(row_keys(1, 2, np.arange(20_000), 0))
    assert seeds.dtype == np.int32
    assert seeds.shape == (20_000, 2)
    numbers = row_uniform(seeds, (4,))
    assert numbers.shape == (20_000, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 50, (0, 1))[0]
    assert ((counts - 1600.0) ** 2 / 1600).sum() < 86  # 49 expected; above 86 once in a thousand
    related = np.corrcoef(np.vstack([numbers.T, np.roll(numbers, 1, 0).T, row_uniform(seeds, (4,), draw=1).T]))
    assert np.abs(related - np.eye(12)).max() < 5 / np.sqrt(20_000)
    assert np.array_equal(row_uniform(seeds[7:9], (4,)), numbers[7:9])
    assert row_uniform(seeds).shape == (20_000,)


@pytest.mark.engine
def test_a_tensorflow_function_is_traced_once(stored):
    import tensorflow as tf

    traces = []

    def change(rows):
        traces.append(1)
        return {
            "double": rows["x"] * 2,
            "count": rows["tokens"].row_lengths(),
            "sorted": tf.reverse(rows["tokens"], [1]),
            "words": tf.strings.upper(rows["text"]),
        }

    text = Column(name="words", dtype=np.dtype(np.uint8), kind="string")
    view = stored.map(change, output={"words": text, "double": None, "count": None, "sorted": None}, tensorflow=True)
    for ids in ([3], [4, 5, 9], range(100)):
        rows = rows_of(view, list(ids))
        assert np.array_equal(rows["double"], rows["x"] * 2)
        assert rows["count"].tolist() == [one % 6 for one in ids]
        assert rows["sorted"].to_list() == [one[::-1] for one in rows["tokens"].to_list()]
        assert rows["words"].to_list() == [f"ROW {one}" for one in ids]
    assert len(traces) == 1
    assert view.schema["sorted"].kind == "list"
    assert np.array_equal(rows_of(pickle.loads(pickle.dumps(view)), [3])["double"], [[6, 12, 18]])


@pytest.mark.engine
def test_a_tensorflow_function_of_one_row_and_its_random_numbers(stored):
    import tensorflow as tf

    @tf.function
    def crop(row, seed):
        place = tf.random.stateless_uniform([], seed, 0, 2, tf.int32)
        return row["x"][place : place + 2] + tf.random.stateless_normal([1], seed)

    view = stored.map(
        crop, ["x"], {"crop": Column(name="crop", dtype=np.dtype(np.float32), shape=(2,))}, per_row=True, random=True
    )
    whole = rows_of(view, seed=3, epoch=1)["crop"]
    assert np.array_equal(rows_of(view, [9, 100, 3], seed=3, epoch=1)["crop"], whole[[9, 100, 3]])
    assert not np.array_equal(rows_of(view, seed=3, epoch=2)["crop"], whole)
    assert np.isfinite(whole).all()


@pytest.mark.engine
def test_errors_in_tensorflow_name_the_rows(stored):
    import tensorflow as tf

    def checked(rows):
        with tf.control_dependencies([tf.debugging.assert_less(rows["id"], tf.constant(100, tf.int64))]):
            return {"y": tf.identity(rows["id"])}

    with pytest.raises(TransformError, match=r"checked for row 150 of .* raised InvalidArgumentError"):
        rows_of(stored.map(checked, ["id"], tensorflow=True), [150])


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_pad_makes_one_shape(stored, truncate):
    view = stored.pad("tokens", 4, value=-1, truncate=truncate)
    assert view.schema["tokens"] == Column(name="tokens", dtype=np.dtype(np.int32), shape=(4,))
    expected = []
    for row in rows_of(stored)["tokens"].to_list():
        kept = row[:4] if truncate == "end" else row[-4:]
        expected.append(kept + [-1] * (4 - len(kept)))
    assert rows_of(view)["tokens"].tolist() == expected
    out = {"tokens": np.zeros((2, 4), np.int32)}
    with view.reader(["tokens"]) as reader:
        reader.gather(np.array([5, 6]), out)
    assert out["tokens"].tolist() == expected[5:7]


def test_pad_beside_the_column_and_refusals(stored):
    view = stored.pad("tokens", 6, output="padded")
    assert view.schema["tokens"].kind == "list"
    assert rows_of(view, [9])["padded"].tolist() == [[9, 10, 11, 0, 0, 0]]
    text = stored.pad("text", 7, value=32)
    assert rows_of(text, [12])["text"].tobytes() == b"row 12 "
    with pytest.raises(TransformError, match=r"Row 5 of .*set has 5 elements in column 'tokens'; pad allows 3"):
        rows_of(stored.pad("tokens", 3, truncate="error"), [1, 5, 11])
    with pytest.raises(SelectionError, match=r"'x' all have the shape \(3,\)"):
        stored.pad("x", 3)
    with pytest.raises(SelectionError, match="truncate is 'middle'"):
        stored.pad("tokens", 3, truncate="middle")
    for value in (0.5, 2**40, 2**70, "a", [1]):
        with pytest.raises(SelectionError, match="no value of the int32 column"):
            stored.pad("tokens", 3, value=value)
    floats = stored.map(
        lambda rows: {"f": Ragged(rows["tokens"].values.astype(np.float32), rows["tokens"].row_splits)}, ["tokens"]
    )
    for value in (2**24 + 1, 1e300):  # neither would be stored so
        with pytest.raises(SelectionError, match="no value of the float32 column"):
            floats.pad("f", 3, value=value)
    assert np.isnan(rows_of(floats.pad("f", 3, value=math.nan), [0])["f"]).any()
    assert rows_of(floats.pad("f", 3, value=0.1), [0])["f"].max() == np.float32(0.1)


def test_ragged_rows_are_kept_apart(stored):
    view = stored.map(lambda rows: {"twice": Ragged(rows["tokens"].values * 2, rows["tokens"].row_splits)})
    assert rows_of(view, [7, 6, 2])["twice"].to_list() == [[14], [], [4, 6]]
