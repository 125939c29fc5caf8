"""The `tf.data.Dataset` of a dataset: its elements, their order, passes, and use by plain Keras."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf
from heliostat.data import Dataset, PlanError, UnknownColumnError, write_dataset
from heliostat.data.errors import TransformError
from heliostat.data.order.order import RowOrder
from heliostat.data.views.padding import PadTransform

pytestmark = pytest.mark.engine

NUM_ROWS = 250


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(NUM_ROWS)
    columns = {
        "id": ids,
        "x": np.stack([ids, ids * 2], axis=1).astype(np.float32),
        "y": (ids % 3).astype(np.int32),
        "w": np.ones(NUM_ROWS, np.float32),
        "flag": ids % 2 == 0,
        "half": ids.astype(np.float16),
        "text": [f"é {one}" * (one % 3) for one in range(NUM_ROWS)],
        "raw": [bytes([one % 256, 0]) for one in range(NUM_ROWS)],
        "tokens": [np.arange(one % 5, dtype=np.int32) + one for one in range(NUM_ROWS)],
        "pairs": [np.full((one % 3, 2), one, np.float32) for one in range(NUM_ROWS)],
    }
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", columns, rows_per_shard=60)


def ids_of(data) -> list[int]:
    return np.concatenate([batch["id"].numpy() for batch in data]).tolist()


def order_of(epoch: int, seed: int = 0, shuffle="full") -> list[int]:
    return RowOrder(num_rows=NUM_ROWS, seed=seed, epoch=epoch, shuffle=shuffle).rows(0, NUM_ROWS).tolist()


@pytest.mark.parametrize("prefetch_bytes", [0, 1 << 20])
def test_elements_are_the_rows_with_their_types(stored, prefetch_bytes):
    data = stored.tf(64, shuffle=False, prefetch_bytes=prefetch_bytes)
    spec = data.element_spec
    assert spec["x"] == tf.TensorSpec([None, 2], tf.float32)
    assert spec["flag"] == tf.TensorSpec([None], tf.bool)
    assert spec["half"] == tf.TensorSpec([None], tf.float16)
    assert spec["text"] == spec["raw"] == tf.TensorSpec([None], tf.string)
    assert spec["tokens"] == tf.RaggedTensorSpec([None, None], tf.int32, 1, tf.int64)
    assert spec["pairs"] == tf.RaggedTensorSpec([None, None, 2], tf.float32, 1, tf.int64)
    assert int(data.cardinality()) == 4
    start = 0
    for batch in data:
        ids = np.arange(start, min(start + 64, NUM_ROWS))
        assert all(spec[name].is_compatible_with(batch[name]) for name in spec)
        assert batch["id"].numpy().tolist() == ids.tolist()
        assert np.array_equal(batch["x"], np.stack([ids, ids * 2], axis=1))
        assert batch["flag"].numpy().tolist() == (ids % 2 == 0).tolist()
        assert batch["half"].numpy().tolist() == ids.tolist()
        assert [one.decode() for one in batch["text"].numpy()] == [f"é {one}" * (one % 3) for one in ids]
        assert list(batch["raw"].numpy()) == [bytes([one % 256, 0]) for one in ids]
        assert batch["tokens"].to_list() == [[one + k for k in range(one % 5)] for one in ids]
        assert batch["pairs"].to_list() == [[[one, one]] * (one % 3) for one in ids]
        start += len(ids)
    assert start == NUM_ROWS


@pytest.mark.parametrize("shuffle", ["full", "window:64:8"])
def test_every_iteration_is_the_next_pass(stored, shuffle):
    data = stored.tf(32, seed=5, shuffle=shuffle, columns=["id"])
    for epoch in range(3):
        assert ids_of(data) == order_of(epoch, 5, shuffle)
    from_four = stored.tf(32, seed=5, shuffle=shuffle, epoch=4, columns=["id"])
    assert ids_of(from_four) == order_of(4, 5, shuffle)
    assert ids_of(from_four.repeat(2)) == order_of(5, 5, shuffle) + order_of(6, 5, shuffle)


def test_one_iteration_may_be_several_passes(stored):
    data = stored.tf(100, epochs=2, columns=["id"])
    assert int(data.cardinality()) == 6
    assert ids_of(data) == order_of(0) + order_of(1)
    assert ids_of(data) == order_of(2) + order_of(3)


def test_a_look_at_the_first_batches_takes_no_pass_away(stored):
    data = stored.tf(32, columns=["id"])
    assert ids_of(data.take(3)) == order_of(0)[:96]
    assert next(iter(data))["id"].numpy().tolist() == order_of(0)[:32]
    assert ids_of(data) == order_of(0)
    assert ids_of(data) == order_of(1)


def test_an_iteration_that_is_left_in_the_middle_of_a_read_ends_cleanly(stored):
    before = set(threading.enumerate())
    for threads in (1, 2):
        iterator = iter(stored.tf(2, columns=["id", "tokens"], num_threads=threads).prefetch(8))
        next(iterator)
        del iterator
    data = stored.tf(50, columns=["id"]).prefetch(2)
    assert sorted(ids_of(data)) == list(range(NUM_ROWS))
    assert set(threading.enumerate()) <= before, "nobody who was started here goes on reading"


def test_two_iterations_at_once_do_not_disturb_each_other(stored):
    data = stored.tf(16, columns=["id"], num_threads=2)
    pairs = list(zip(data, data, strict=True))
    for one, other in pairs:
        assert one["id"].numpy().tolist() == other["id"].numpy().tolist()
    assert np.concatenate([one["id"].numpy() for one, _ in pairs]).tolist() == order_of(0)


def test_inputs_and_targets_make_tuples(stored):
    x, y = next(iter(stored.tf(4, shuffle=False, inputs="x", targets="y")))
    assert x.shape == (4, 2)
    assert y.numpy().tolist() == [0, 1, 2, 0]
    data = stored.tf(4, shuffle=False, inputs={"a": "x", "b": "tokens"}, targets=["y", "id"], sample_weight="w")
    inputs, targets, weight = next(iter(data))
    assert set(inputs) == {"a", "b"}
    assert inputs["b"].to_list()[3] == [3, 4, 5]
    assert targets[1].numpy().tolist() == [0, 1, 2, 3]
    assert weight.numpy().tolist() == [1.0] * 4
    (alone,) = next(iter(stored.tf(4, shuffle=False, inputs="id")))
    assert alone.numpy().tolist() == [0, 1, 2, 3]


def test_a_dropped_remainder_fixes_the_number_of_rows(stored):
    data = stored.tf(64, drop_remainder=True, columns=["x", "tokens"])
    assert data.element_spec["x"].shape == (64, 2)
    assert data.element_spec["tokens"].shape[0] == 64
    assert [len(batch["x"]) for batch in data] == [64, 64, 64]
    with pytest.raises(PlanError, match="250 rows do not fill one of 251"):
        stored.tf(251, drop_remainder=True)


def test_bad_arguments_are_refused_at_once(stored):
    with pytest.raises(PlanError, match="global_batch_size is 0"):
        stored.tf(0)
    with pytest.raises(PlanError, match="epochs is 0"):
        stored.tf(5, epochs=0)
    with pytest.raises(PlanError, match="shuffle is 'some'"):
        stored.tf(5, shuffle="some")
    with pytest.raises(PlanError, match="need inputs"):
        stored.tf(5, targets="y")
    with pytest.raises(PlanError, match="not both"):
        stored.tf(5, inputs="x", columns=["x"])
    with pytest.raises(PlanError, match="sample_weight needs targets"):
        stored.tf(5, inputs="x", sample_weight="w")
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        stored.tf(5, inputs="z")


def test_random_rows_follow_the_pass(stored):
    data = stored.map(lambda rows, seeds: {"seed": seeds}, ["id"], random=True).tf(50, shuffle=False, columns=["seed"])
    first, second = (np.concatenate([batch["seed"].numpy() for batch in data]) for _ in range(2))
    assert np.unique(np.concatenate([first, second]), axis=0).shape[0] == 2 * NUM_ROWS


def test_an_error_while_reading_surfaces(stored):
    def broken(rows):
        if 130 in rows["id"]:
            raise RuntimeError("cannot")
        return {"z": rows["id"]}

    data = stored.map(broken).tf(50, shuffle=False)
    iterator = iter(data)
    assert len(next(iterator)["z"]) == len(next(iterator)["z"]) == 50
    with pytest.raises(tf.errors.OpError, match=TransformError.__name__ + ".*rows 100.*cannot"):
        next(iterator)


def test_plain_keras_trains_on_it(stored):
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Rescaling(0.01), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    data = stored.tf(32, inputs="x", targets="y", sample_weight="w")
    history = model.fit(data, epochs=3, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 3
    assert history.history["loss"][2] < history.history["loss"][0]
    # Three passes were taken, whatever Keras looked at before them.
    assert next(iter(stored.tf(32, inputs="id", epoch=3)))[0].numpy().tolist() == order_of(3)[:32]
    x, _, _ = next(iter(data))
    assert x.numpy()[:, 0].tolist() == order_of(3)[:32]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50, 249, 250, 300])
@pytest.mark.parametrize("prefetch_bytes", [0, 3000, 1 << 20])
def test_blocks_are_cut_into_the_same_batches(stored, batch_size, prefetch_bytes):
    columns = ["id", "x", "half", "text", "tokens"]
    for names in (columns, columns[:4]):  # with and without a column of variable length
        found = list(stored.tf(batch_size, seed=3, columns=names, prefetch_bytes=prefetch_bytes))
        plain = list(stored.batches(batch_size, seed=3, columns=names))
        assert [len(one["id"]) for one in found] == [len(one["id"]) for one in plain]
        for batch, rows in zip(found, plain, strict=True):
            for name in ("id", "x", "half"):
                assert np.array_equal(batch[name].numpy(), rows[name])
            assert [one.decode() for one in batch["text"].numpy()] == rows["text"].to_list()
            if "tokens" in names:
                assert batch["tokens"].to_list() == rows["tokens"].to_list()


def test_a_map_is_given_the_rows_of_one_batch_at_a_time(stored):
    sizes: list[int] = []

    def count(rows):
        sizes.append(len(rows["id"]))
        return {"z": rows["id"]}

    data = stored.map(count, columns=["id"], version="1").tf(8, columns=["z"], prefetch_bytes=0)
    sizes.clear()
    assert [len(batch["z"]) for batch in data] == sizes == [8] * 31 + [2]


@pytest.mark.parametrize("prefetch_bytes", [0, 1 << 20])
def test_an_error_comes_after_the_batches_before_it(stored, prefetch_bytes):
    def broken(rows):
        if 200 in rows["id"]:
            raise RuntimeError("cannot")
        return {"z": rows["id"]}

    iterator = iter(stored.map(broken).tf(8, shuffle=False, prefetch_bytes=prefetch_bytes))
    for number in range(25):
        assert next(iterator)["z"].numpy().tolist() == list(range(8 * number, 8 * number + 8))
    with pytest.raises(tf.errors.OpError, match=r"rows 200.*cannot"):
        next(iterator)


def test_rows_are_padded_for_several_batches_at_once(stored, monkeypatch):
    """Blocks of rows are padded in one call, and come as the batches that they are alone; so does what cannot be."""
    sizes: list[int] = []
    apply = PadTransform.apply

    def counted(transform, rows, ids, **pass_):
        sizes.append(len(ids))
        return apply(transform, rows, ids, **pass_)

    monkeypatch.setattr(PadTransform, "apply", counted)
    monkeypatch.setattr("heliostat.data.views.tf_dataset._CUT_FROM_STEPS", 1)
    padded = stored.pad("tokens", 4)
    found = list(padded.tf(8, seed=3, columns=["id", "tokens"]))
    assert max(sizes) > 8
    for batch, rows in zip(found, padded.batches(8, seed=3, columns=["id", "tokens"]), strict=True):
        assert batch["tokens"].numpy().tolist() == rows["tokens"].tolist()
        assert batch["id"].numpy().tolist() == rows["id"].tolist()

    iterator = iter(stored.pad("pairs", 1, truncate="error").skip(1).tf(1, shuffle=False, columns=["pairs"]))
    assert next(iterator)["pairs"].numpy().tolist() == [[[1, 1]]]
    with pytest.raises(tf.errors.OpError, match=r"Row 2 of .* has 2 elements"):
        next(iterator)
