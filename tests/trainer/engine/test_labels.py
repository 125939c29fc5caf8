"""Labels are held against the model's classes without reading the dataset; those that are not known, as they come."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import pytest
from heliostat.data import Dataset, mix, write_dataset
from heliostat.data.order.plan import BatchPlan
from heliostat.data.read.shard_reader import ShardReader
from heliostat.trainer.columns import Columns
from heliostat.trainer.engine.feed import Feed
from heliostat.trainer.engine.labels import LabelRange, check_label_range, check_targets, labels_to_check
from heliostat.trainer.errors import DataError

pytestmark = pytest.mark.engine
COLUMNS = Columns(inputs="x", targets="y")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    built = keras.Sequential([keras.Input((1,)), keras.layers.Dense(5)])
    built.compile("sgd", "sparse_categorical_crossentropy")
    return built


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    ids = np.arange(200)
    columns = {"x": np.ones((200, 1), np.float32), "y": ids % 5, "wide": ids % 7}
    return write_dataset(tmp_path_factory.mktemp("labels") / "set", columns, rows_per_shard=50)


@pytest.fixture
def rows_read(monkeypatch) -> list[int]:
    found: list[int] = []
    gather = ShardReader.gather_checked

    def counted(self, ids, out):
        found.append(ids.size)
        return gather(self, ids, out)

    monkeypatch.setattr(ShardReader, "gather_checked", counted)
    return found


VIEWS = {
    "split": lambda whole: whole.split(0.5)[1],
    "take": lambda whole: whole.take(20),
    "filter of a split": lambda whole: whole.select(np.arange(50)).split(0.5)[0],
    "concatenate": lambda whole: whole.take(5).concatenate(whole.skip(9)),
    "mix": lambda whole: mix([whole.split(0.3)[0], whole]),
    "rename": lambda whole: whole.rename({"wide": "other"}),
}


@pytest.mark.parametrize("name", VIEWS)
def test_bounds_of_what_is_stored_hold_for_its_rows_and_nothing_is_read(model, stored, rows_read, name):
    view = VIEWS[name](stored)
    check_label_range(model, view, COLUMNS)
    assert labels_to_check(model, view, COLUMNS) == ()
    assert rows_read == []


def test_labels_that_are_made_are_looked_at_as_they_come_and_not_before(model, stored, rows_read):
    view = stored.map(lambda rows: {"y": rows["wide"]}, ["wide"])
    rows_read.clear()
    check_label_range(model, view, COLUMNS)
    assert labels_to_check(model, view, COLUMNS) == (LabelRange(dataset=view.name, column="y", classes=5),)
    assert rows_read == []


def test_rows_of_a_column_with_more_classes_may_be_selected(model, stored, rows_read):
    wide = stored.select_columns(["x", "wide"]).rename({"wide": "y"})
    with pytest.raises(DataError, match="range from 0 to 6, and the model's output has 5 classes"):
        check_label_range(model, wide, COLUMNS)
    few = wide.select([0, 1, 7])
    check_label_range(model, few, COLUMNS)
    assert labels_to_check(model, few, COLUMNS)
    assert rows_read == []


def feed(dataset: Dataset, labels: Sequence[LabelRange]) -> Feed:
    plan = BatchPlan(num_rows=len(dataset), global_batch_size=20, num_microbatches=2)
    return Feed(dataset, COLUMNS, plan, seed=0, shuffle=False, reduction="mean", labels=labels)


def test_the_first_label_that_is_no_class_is_named_with_its_row(model, stored):
    view = stored.map(lambda rows: {"y": np.where(rows["y"] + rows["wide"] > 9, 9, rows["y"])}, ["y", "wide"])
    opened = feed(view, labels_to_check(model, view, COLUMNS))
    opened.read(0, [0, 1])
    with pytest.raises(DataError, match=r"label in column 'y' of row 34 of .*map.* is 9, and the model's .* 5 classes"):
        opened.read(1, [0, 1])
    opened.close()


def test_a_value_that_is_not_finite_is_named_with_column_and_row(tmp_path):
    y = np.array([0.0, 1.0, 0.0, np.nan] + [1.0] * 36)
    opened = feed(write_dataset(tmp_path / "set", {"x": np.ones((40, 1), np.float32), "y": y}), ())
    assert opened.nonfinite_value(0, 0).startswith("column 'y' of row 3 of ")
    assert opened.nonfinite_value(0, 0).endswith(" is nan")
    assert opened.nonfinite_value(1, 1) == ""
    opened.close()
    assert opened.nonfinite_rows(0, 0) == [3]
    assert opened.nonfinite_rows(1, 1) == list(range(30, 40))


def test_a_list_of_targets_beside_a_dict_of_outputs_is_refused():
    x = keras.Input((1,))
    several = keras.Model(x, {"u": keras.layers.Dense(1, name="u")(x), "v": keras.layers.Dense(1, name="v")(x)})
    several.compile("sgd", "mse")
    with pytest.raises(DataError, match=r"a dict: \['u', 'v'\].*\{'u': \.\.\., 'v': \.\.\.\}"):
        check_targets(several, Columns(targets=["a", "b"]))
    check_targets(several, Columns(targets={"u": "a", "v": "b"}))
    listed = keras.Model(x, list(several.output.values()))
    listed.compile("sgd", "mse")
    check_targets(listed, Columns(targets=["a", "b"]))


SPARSE = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("outputs", "losses", "targets", "classes"),
    [
        ("list", [SPARSE, SPARSE], ["y", "wide"], {"y": 5, "wide": 6}),
        ("list", {"u": SPARSE, "v": "mse"}, ["y", "wide"], {"y": 5}),
        ("list", SPARSE, {"v": "y", "u": "wide"}, {"y": 6, "wide": 5}),
        ("dict", {"u": "mse", "v": keras.losses.SparseCategoricalCrossentropy()}, {"u": "y", "v": "wide"}, {"wide": 6}),
        ("dict", {"v": keras.losses.SparseCategoricalCrossentropy(ignore_class=9)}, {"u": "y", "v": "wide"}, {}),
        ("one", {"u": SPARSE}, {"u": "wide"}, {"wide": 5}),
        ("one", [keras.losses.sparse_categorical_crossentropy], "wide", {"wide": 5}),
    ],
)
def test_labels_of_every_output_are_held_against_its_classes(stored, outputs, losses, targets, classes):
    x = keras.Input((1,))
    made = {"u": keras.layers.Dense(5, name="u")(x), "v": keras.layers.Dense(6, name="v")(x)}
    several = keras.Model(x, {"list": list(made.values()), "dict": made, "one": made["u"]}[outputs])
    several.compile("sgd", losses)
    columns = Columns(inputs="x", targets=targets)
    few = stored.select([0, 1, 7])  # of whose rows nothing is known
    assert {each.column: each.classes for each in labels_to_check(several, few, columns)} == {
        name: number for name, number in classes.items() if name == "wide"
    }
    if "wide" in classes:
        with pytest.raises(DataError, match=f"'wide' of .* range from 0 to 6, and .* {classes['wide']} classes"):
            check_label_range(several, stored, columns)
    else:
        check_label_range(several, stored, columns)
