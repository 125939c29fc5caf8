"""Structures of arrays become columns of the same structure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from heliostat.trainer import ConfigurationError
from heliostat.trainer.columns import Columns
from heliostat.trainer.driver.arrays import arrays_by_column, choices_of, parts_of
from heliostat.trainer.driver.inputs import noted_columns, opened

A, B, C = np.arange(4.0), np.ones((4, 2)), np.zeros(4, int)


@pytest.mark.parametrize(
    ("parts", "chosen"),
    [
        ((A, C), ("x", "y")),
        (({"a": A, "b": B}, {"u": C}), ({"a": "x.a", "b": "x.b"}, {"u": "y.u"})),
        (([A, B], C), (["x.0", "x.1"], "y")),
        (((A, B), [C, A.copy()]), (["x.0", "x.1"], ["y.0", "y.1"])),
        ((A, A), ("x", "x")),
        (({"a": A, "b": B}, {"u": B}), ({"a": "x.a", "b": "x.b"}, {"u": "x.b"})),
        (([[1, 2], [3, 4]], [0, 1]), ("x", "y")),
    ],
)
def test_columns_have_the_structure_of_the_arrays(parts, chosen):
    assert choices_of(parts, None, None) == chosen
    columns = Columns(inputs=chosen[0], targets=chosen[1])
    found = arrays_by_column(parts, columns)
    assert sorted(found) == sorted(columns.names)
    assert noted_columns(parts, None, None) == (parts, *chosen)


def test_a_dataset_of_hugging_face_is_answered_with_how_to_store_it():
    rows = pytest.importorskip("datasets").Dataset.from_dict({"x": [[1.0]], "y": [0]})
    with pytest.raises(ConfigurationError, match=r"save_to_disk\('rows'\).*convert\('rows', 'rows-set'\)"):
        arrays_by_column((rows,), Columns(targets=None))


def test_what_the_caller_names_stays():
    assert choices_of((A, C), "pixels", None) == ("pixels", "y")
    assert choices_of((A, A), "pixels", None) == ("pixels", "pixels")
    parts = ({"left": A, "right": B}, C)
    columns = Columns(inputs={"left": "l", "right": "r"}, targets="label")
    assert {name: len(rows) for name, rows in arrays_by_column(parts, columns).items()} == {"l": 4, "r": 4, "label": 4}


def test_one_column_does_not_hold_two_arrays():
    columns = Columns(inputs="x", targets="x")
    assert list(arrays_by_column((A, A.copy()), columns)) == ["x"]
    with pytest.raises(ConfigurationError, match="two arrays, which differ"):
        arrays_by_column((A, A + 1), columns)


def test_targets_that_are_an_input_need_no_array():
    assert list(arrays_by_column((A,), Columns(inputs="x", targets="x"))) == ["x"]
    assert list(arrays_by_column((B, B), Columns(inputs="x", targets="x", sample_weight=None))) == ["x"]


def test_frames_series_and_tensors_are_arrays():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "label": [0, 1]})
    columns = Columns(inputs="x", targets="y")
    found = arrays_by_column((frame[["a", "b"]], frame["label"]), columns)
    assert found["x"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert found["y"].tolist() == [0, 1]
    named = Columns(inputs=["a", "b"], targets="label")
    assert {name: rows.tolist() for name, rows in arrays_by_column((frame,), named).items()} == {
        "a": [1.0, 2.0],
        "b": [3, 4],
        "label": [0, 1],
    }
    assert parts_of(frame) == (frame,)
    series = ({"a": frame["a"], "b": frame["b"]}, frame["label"])
    assert choices_of(series, None, None)[0] == {"a": "x.a", "b": "x.b"}


def test_texts_are_lists():
    columns = Columns(inputs="x", targets="y")
    assert arrays_by_column((np.array([["one"], ["two"]]), [0, 1]), columns)["x"] == ["one", "two"]
    assert arrays_by_column(([b"one", b"two"], [0, 1]), columns)["x"] == [b"one", b"two"]
    assert arrays_by_column((pd.Series(["one", "two"]), [0, 1]), columns)["x"] == ["one", "two"]


@pytest.mark.parametrize(
    ("parts", "columns", "message"),
    [
        ((A, C, A), {}, r"x \('x'\), y \('y'\)\. Give \(x, y\)"),
        ((A,), {}, "data is .a ndarray of shape"),
        ((A, C[:3]), {}, "4 in 'x', 3 in 'y'"),
        (({"a": A}, C), {}, r"inputs=\{'a': 'x\.a'\}"),
        (({"a": A}, C), {"inputs": {"b": "b"}}, r"a dict of \['a'\].* ask for the parts \['b'\]"),
        ((np.array([["a", "b"]]), C[:1]), {}, r"texts in the shape \(1, 2\).*x\[:, 0\]"),
        ((pd.DataFrame({"town": ["a"], "n": [1]}), C[:1]), {}, r"'town' hold no numbers.*dict\(frame\)"),
        (([[1], [1, 2]], C[:2]), {}, "pad"),
        ((object(), C), {}, "an array"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_write(parts, columns, message):
    with pytest.raises(ConfigurationError, match=message):
        arrays_by_column(parts, Columns(**columns))


def test_structures_in_structures_and_empty_ones_are_refused():
    with pytest.raises(ConfigurationError, match="holds a dict at 'a'"):
        choices_of(({"a": {"b": A}}, C), None, None)
    with pytest.raises(ConfigurationError, match="empty dict"):
        choices_of(({}, C), None, None)


def generated():
    yield A, C


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (generated(), r"generator object.*fit\(batches\), not fit\(batches\(\)\)"),
        (zip([A], [C], strict=True), "zip object"),
        (7, "data is a int; it takes a dataset path"),
        (dict, "the class dict"),
    ],
)
def test_what_is_no_data_is_refused_before_there_is_a_folder(data, message):
    with pytest.raises(ConfigurationError, match=message):
        opened(data, Columns())
