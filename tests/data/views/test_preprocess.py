"""A layer adapted to a dataset computes the same from its file, in a view, in another process."""

from __future__ import annotations

import json
import pickle

import keras
import numpy as np
import pytest
from heliostat.data import (
    Dataset,
    DatasetNotFoundError,
    FittedPreprocessing,
    ManifestError,
    UnknownColumnError,
    fit_preprocessing,
    write_dataset,
)
from heliostat.data.errors import SelectionError

pytestmark = pytest.mark.engine

NUM_ROWS = 2500
WORDS = ["the", "sun", "heats", "a", "tower", "and", "many", "mirrors", "turn", "with", "it"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Dataset:
    numbers = np.random.default_rng(3)
    texts = [" ".join(numbers.choice(WORDS, size=numbers.integers(0, 9))) + "!" for _ in range(NUM_ROWS)]
    columns = {
        "text": texts,
        "word": numbers.choice(WORDS, NUM_ROWS).tolist(),
        "x": numbers.normal(3, 2, (NUM_ROWS, 4)).astype(np.float32) * [1, 2, 3, 4],
        "age": numbers.uniform(0, 90, NUM_ROWS),
        "image": numbers.integers(0, 256, (NUM_ROWS, 2, 3), dtype=np.uint8),
    }
    columns["x"] = columns["x"].astype(np.float32)
    return write_dataset(tmp_path_factory.mktemp("stored") / "set", columns, rows_per_shard=400)


def column_of(dataset: Dataset, name: str, ids=None):
    with dataset.reader([name]) as reader:
        return reader.gather(np.arange(len(dataset)) if ids is None else np.asarray(ids))[name]


def texts_of(stored: Dataset) -> list[str]:
    return column_of(stored, "text").to_list()


@pytest.mark.parametrize(
    "options",
    [
        {"output_sequence_length": 6},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "max_tokens": 8},
        {"output_mode": "tf_idf"},
        {"output_mode": "int", "ragged": True},
        {"output_sequence_length": 5, "ngrams": 2, "standardize": "lower"},
    ],
    ids=str,
)
def test_text_is_vectorized_as_the_adapted_layer_does(stored, tmp_path, options):
    layer = keras.layers.TextVectorization(**options)
    fitted = fit_preprocessing(stored, "text", layer, tmp_path / "fitted.json")
    view = pickle.loads(pickle.dumps(stored.vectorize("text", FittedPreprocessing.load(tmp_path / "fitted.json"))))
    expected = layer(texts_of(stored))
    found = column_of(view, "text")
    if options.get("ragged"):
        assert view.schema["text"].kind == "list"
        assert found.to_list() == expected.to_list()
        assert column_of(view, "text", [7, 3]).to_list() == [expected.to_list()[7], expected.to_list()[3]]
        return
    assert found.dtype == expected.numpy().dtype
    assert np.allclose(found, expected.numpy(), rtol=1e-6)
    assert np.array_equal(column_of(view, "text", [9]), found[[9]])
    assert fitted.state["vocabulary"][0] in WORDS or "ngrams" in options


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_oov_indices": 3, "mask_token": "sun"},
        {"output_mode": "one_hot"},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "max_tokens": 5},
        {"output_mode": "tf_idf"},
    ],
    ids=str,
)
def test_words_are_numbered_as_the_adapted_layer_does(stored, tmp_path, options):
    layer = keras.layers.StringLookup(**options)
    fit_preprocessing(stored, "word", layer, tmp_path / "fitted.json")
    view = pickle.loads(pickle.dumps(stored.vectorize("word", FittedPreprocessing.load(tmp_path / "fitted.json"))))
    counts = options.get("output_mode") in ("multi_hot", "count", "tf_idf")
    words = column_of(stored, "word").to_list()
    expected = np.asarray(layer(np.array(words)[:, None] if counts else np.array(words)))
    found = column_of(view, "word")
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-6)
    assert np.array_equal(column_of(view, "word", [9, 2]), found[[9, 2]])
    assert len(np.unique(found, axis=0)) > 4


class TextVectorization(keras.layers.TextVectorization):
    """Of a Keras that keeps the weights of its words elsewhere; its own methods still work."""

    def get_config(self):
        config = super().get_config()
        if self.vocabulary_size() > 2:  # it is adapted, and its words are known
            del self._lookup_layer
        return config


def test_a_keras_without_the_private_part_that_holds_the_weights_is_named(stored):
    with pytest.raises(SelectionError, match=r"lacks TextVectorization\._lookup_layer.* tried with Keras 3\.15"):
        fit_preprocessing(stored, "text", TextVectorization(output_mode="tf_idf"))


@pytest.mark.parametrize(("column", "axis"), [("x", -1), ("x", None), ("age", -1), ("image", (1, 2)), ("image", -1)])
def test_numbers_are_normalized_over_all_rows(stored, tmp_path, column, axis):
    fit_preprocessing(stored, column, keras.layers.Normalization(axis=axis), tmp_path / "fitted.json")
    view = stored.vectorize(column, FittedPreprocessing.load(tmp_path / "fitted.json"), output="scaled")
    values = column_of(stored, column).astype(np.float64)
    if axis is None:
        along = tuple(range(values.ndim))
    elif column == "age":
        along = (0,)
    else:
        kept = {one % values.ndim for one in np.atleast_1d(axis).tolist()}
        along = tuple(one for one in range(values.ndim) if one not in kept)
    expected = (values - values.mean(along, keepdims=True)) / values.std(along, keepdims=True)
    found = column_of(view, "scaled")
    assert found.dtype == np.float32
    assert found.shape == values.shape
    assert np.allclose(found, expected, atol=1e-4)
    assert np.array_equal(column_of(view, "scaled", [11, 5]), found[[11, 5]])


def test_a_file_is_used_again_only_for_the_same_thing(stored, tmp_path):
    path = tmp_path / "below" / "fitted.json"
    first = fit_preprocessing(stored, "x", keras.layers.Normalization(name="n"), path)
    content = path.read_bytes()
    content_of_other = json.loads(content) | {"state": {"mean": [0.0] * 4, "variance": [1.0] * 4}}
    path.write_text(json.dumps(content_of_other))
    kept = fit_preprocessing(stored, "x", keras.layers.Normalization(name="n"), path)
    assert kept.state["mean"] == [0.0] * 4  # it was read, not computed
    fewer = fit_preprocessing(stored.take(100), "x", keras.layers.Normalization(name="n"), path)
    assert fewer.fingerprint == stored.take(100).fingerprint
    assert fewer.state != first.state
    assert fit_preprocessing(stored, "x", keras.layers.Normalization(name="n"), path) == first
    assert path.read_bytes() == content
    assert [one.name for one in path.parent.iterdir()] == ["fitted.json"]


def test_a_view_is_fitted_and_its_fingerprint_tells_fits_apart(stored):
    view = stored.filter(lambda rows: rows["age"] < 30, ["age"])
    young = fit_preprocessing(view, "age", keras.layers.Normalization(name="n"))
    all_ages = fit_preprocessing(stored, "age", keras.layers.Normalization(name="n"))
    assert np.ravel(young.state["mean"])[0] < 30
    assert len({stored.vectorize("age", one).fingerprint for one in (young, all_ages)}) == 2
    assert stored.vectorize("age", young).fingerprint == stored.vectorize("age", young).fingerprint


def test_what_cannot_be_fitted_is_refused(stored, tmp_path):
    with pytest.raises(SelectionError, match=r"takes a Keras layer TextVectorization, .*; got Dense"):
        fit_preprocessing(stored, "x", keras.layers.Dense(2))
    with pytest.raises(SelectionError, match="JSON cannot hold"):
        fit_preprocessing(stored, "text", keras.layers.TextVectorization(standardize=lambda text: text))
    with pytest.raises(UnknownColumnError, match="no column 'z'"):
        fit_preprocessing(stored, "z", keras.layers.Normalization())
    random = stored.map(lambda rows, seeds: {"z": seeds}, ["age"], random=True)
    with pytest.raises(SelectionError, match="differ from pass to pass"):
        fit_preprocessing(random, "z", keras.layers.Normalization())
    fitted = fit_preprocessing(stored, "text", keras.layers.TextVectorization())
    with pytest.raises(SelectionError, match="output_sequence_length"):
        stored.vectorize("text", fitted)
    with pytest.raises(DatasetNotFoundError, match="no fitted preprocessing"):
        FittedPreprocessing.load(tmp_path / "none.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "heliostat-preprocessing"}', '{"format": "other"}'])
def test_other_files_are_no_fitted_preprocessing(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ManifestError, match="no fitted preprocessing"):
        FittedPreprocessing.load(tmp_path / "file.json")


def test_a_file_that_names_a_function_is_refused(stored, tmp_path):
    path = tmp_path / "fitted.json"
    fit_preprocessing(stored, "text", keras.layers.TextVectorization(output_sequence_length=3), path)
    content = json.loads(path.read_bytes())
    content["config"]["standardize"] = {"module": "builtins", "class_name": "function", "config": "print"}
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="names a Python function"):
        FittedPreprocessing.load(path)
