"""Preprocessing layers of Keras, adapted once over a dataset, kept as plain JSON, and applied as a view.

What a layer learns (a vocabulary, a mean) decides every row of training, so it must be the same on every worker, after
every restart, and in the service that uses the model later. So it is kept as values, not as an object: a file that
people can read, that another version of Keras can read, and that runs no code when it is opened. The view's
fingerprint is that of these values.

Not done: pickling the adapted layer, or keeping it in Keras's own format, both of which can name any class; learning
vocabularies with code of our own, which would have to follow Keras in every detail of standardizing and splitting text.
Only layers are taken of which it is known where they keep what they learned (`_LAYERS`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import Dataset
from ..errors import BadColumnError, DatasetNotFoundError, ManifestError, SelectionError, TransformError
from ..format.columns import Column
from ..format.ragged import Values
from ..format.values import as_column, as_values
from ..order.order import RowIds
from .transform import Transform, TransformedDataset, check_values, rows_text
from .view import appearing_whole, chosen_columns, fingerprint_of, local_place, rows_at, rows_per_scan

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

FORMAT_NAME = "heliostat-preprocessing"
FORMAT_VERSION = 1

_ADAPT_ROWS = 1024
_SAMPLE_ROWS = 8
_LAYERS = ("TextVectorization", "StringLookup", "Normalization")


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPreprocessing:
    """What a layer learned from a dataset, of `fit_preprocessing` or a file: plain values that JSON can hold.

    `layer_class` is the name of its class in `keras.layers`, `config` its `get_config()`, `state` its vocabulary (and
    idf weights) or mean and variance; `dataset` and `column` say what it was adapted to, by name and `fingerprint`.

    Example:
        >>> fit_preprocessing(dataset, "colour", keras.layers.StringLookup()).save("colours.json")
        >>> layer = FittedPreprocessing.load("colours.json").layer()  # such as in a service, without the dataset
        >>> layer(tf.constant(["red"])).numpy().tolist()
        [1]
    """

    layer_class: str
    config: Mapping[str, Any]
    state: Mapping[str, Any]
    dataset: str
    column: str
    fingerprint: str

    @property
    def content(self) -> list[Any]:
        """All that decides what the layer computes."""
        return [self.layer_class, dict(self.config), dict(self.state)]

    def layer(self) -> keras.Layer:
        """A new Keras layer that computes what the adapted one did."""
        import keras

        # Not the size that the layer had when it was new: it would be held to it.
        config = {name: value for name, value in self.config.items() if name != "vocabulary_size"}
        return getattr(keras.layers, self.layer_class).from_config({**config, **self.state})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a JSON file, replacing it at once; raises OSError."""
        target = local_place(path)
        content = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION}
        content |= {name: getattr(self, name) for name in self.__slots__}
        with appearing_whole(target) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedPreprocessing:
        """What `save` wrote; raises DatasetNotFoundError, ManifestError."""
        try:
            content = json.loads(local_place(path).read_bytes())
            if content["format"] != FORMAT_NAME or content["layer_class"] not in _LAYERS:
                raise ValueError("it is not marked as fitted preprocessing")
            if not all(isinstance(content["config"].get(name), str | None) for name in ("standardize", "split")):
                # Keras would make an object of whatever class it names.
                raise ValueError("it names a Python function")
            if content["format_version"] > FORMAT_VERSION:
                raise ValueError(
                    f"it has format version {content['format_version']}; this Heliostat reads {FORMAT_VERSION}"
                )
            return cls(**{name: content[name] for name in cls.__slots__})
        except FileNotFoundError as error:
            raise DatasetNotFoundError(f"There is no fitted preprocessing at {os.fspath(path)}.", path=path) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{os.fspath(path)} is no fitted preprocessing ({error}). Remove it and fit again.", path=path
            ) from error


def fit_preprocessing(
    dataset: Dataset, column: str, layer: keras.Layer, path: str | os.PathLike[str] | None = None
) -> FittedPreprocessing:
    """Adapt a Keras layer that learns from data to a column, over all rows in batches; `Dataset.vectorize` applies it.

    Args:
        dataset: what it learns from: the training part, usually.
        column: its name.
        layer: a new `TextVectorization` or `StringLookup` for text, or a `Normalization` for numbers.
        path: a JSON file, written now, and used again when dataset, column and layer are the same.

    Returns:
        What it learned (vocabulary, or mean and variance) as plain values; `.layer()` is a Keras layer that applies it.

    Raises:
        UnknownColumnError: there is no such column.
        SelectionError: another layer, or one that JSON cannot describe.
        ManifestError: the file is no fitted preprocessing.

    Example:
        >>> fitted = fit_preprocessing(dataset, "colour", keras.layers.StringLookup())
        >>> dataset.vectorize("colour", fitted).row(0)["colour"]
        1
    """
    chosen_columns(dataset, [column])
    kind, config = type(layer).__name__, _config(layer)
    if dataset.is_random:
        raise SelectionError(
            f"The rows of {dataset.name} differ from pass to pass, so a layer cannot be adapted to them.",
            path=dataset.name,
        )
    if path is not None and local_place(path).exists():
        kept = FittedPreprocessing.load(path)
        same = (kept.layer_class, kept.config, kept.column, kept.fingerprint)
        if same == (kind, config, column, dataset.fingerprint):
            return kept
    rows = dataset.tf(min(_ADAPT_ROWS, rows_per_scan(dataset, [column])), shuffle=False, columns=[column])
    layer.adapt(rows.map(lambda batch: _with_axis(batch[column], kind, config)))
    fitted = FittedPreprocessing(
        layer_class=kind,
        config=config,
        state=_state(layer),
        dataset=dataset.name,
        column=column,
        fingerprint=dataset.fingerprint,
    )
    if path is not None:
        fitted.save(path)
    return fitted


def vectorized(dataset: Dataset, column: str, fitted: FittedPreprocessing, *, output: str | None) -> Dataset:
    """See `Dataset.vectorize`."""
    chosen_columns(dataset, [column])
    return TransformedDataset(
        dataset,
        VectorizeTransform(dataset, column, fitted, output or column),
        f"vectorize({column}, {fitted.layer_class})",
    )


class VectorizeTransform(Transform):
    """What a fitted layer makes of a column."""

    def __init__(self, dataset: Dataset, column: str, fitted: FittedPreprocessing, output: str) -> None:
        config = fitted.config
        if (
            fitted.layer_class == "TextVectorization"
            and config.get("output_mode") == "int"
            and config.get("output_sequence_length") is None
            and not config.get("ragged")
        ):
            raise SelectionError(
                f"vectorize of column {column!r}: without output_sequence_length the layer pads every batch to another "
                "length. Give it output_sequence_length=..., or ragged=True.",
                column=column,
            )
        self.inputs = (column,)
        self._fitted, self._output, self._dataset_name = fitted, output, dataset.name
        self._column = dataset.schema[column]
        self._graph: Callable[..., object] | None = None
        self.outputs = {output: self._sampled(dataset)}

    @property
    def content(self) -> object:  # noqa: D102
        return fingerprint_of(self._fitted.content)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graph": None}

    def apply(  # noqa: D102
        self, rows: Mapping[str, Values], ids: RowIds, *, seed: int, epoch: int
    ) -> Mapping[str, Values]:
        values = self._computed(rows, ids)
        check_values(self.outputs[self._output], values, ids.size, self._what(ids))
        return {self._output: values}

    def _sampled(self, dataset: Dataset) -> Column:
        ids = np.arange(min(_SAMPLE_ROWS, len(dataset)), dtype=np.int64)
        values = self._computed(rows_at(dataset, ids, self.inputs), ids)
        try:
            return as_column(self._output, values)
        except BadColumnError as error:
            raise TransformError(f"{self._what(ids)} gave no column: {error}", column=self._output) from error

    def _computed(self, rows: Mapping[str, Values], ids: RowIds) -> Values:
        from .tensors import call_graph, row_graph

        name = self.inputs[0]
        if self._graph is None:
            layer, kind, config = self._fitted.layer(), self._fitted.layer_class, self._fitted.config
            self._graph = row_graph(
                lambda batch: _like(layer(_with_axis(batch[name], kind, config)), batch[name], kind),
                {name: self._column},
                per_row=False,
                random=False,
            )
        try:
            return as_values(call_graph(self._graph, rows, None))
        except Exception as error:  # what Keras raises is not ours to know
            raise TransformError(f"{self._what(ids)} raised {type(error).__name__}: {error}", column=name) from error

    def _what(self, ids: RowIds) -> str:
        return f"The layer {self._fitted.layer_class} for {rows_text(ids)} of {self._dataset_name}"


def _with_axis(values: tf.Tensor, kind: str, config: Mapping[str, Any]) -> tf.Tensor:
    """A batch as the layer takes it: Keras takes numbers [rows] for one row, and so the words that it counts."""
    counts = kind == "StringLookup" and config["output_mode"] in ("multi_hot", "count", "tf_idf")
    return values[:, None] if (kind == "Normalization" or counts) and values.shape.rank == 1 else values


def _like(result: tf.Tensor, values: tf.Tensor, kind: str) -> tf.Tensor:
    return result[:, 0] if kind == "Normalization" and values.shape.rank == 1 else result


def _config(layer: keras.Layer) -> dict[str, Any]:
    kind = type(layer).__name__
    if kind not in _LAYERS:
        raise SelectionError(f"fit_preprocessing takes a Keras layer {', '.join(_LAYERS)}; got {kind}.")
    config = layer.get_config()
    try:
        # As a file gives it back, so that the two compare equal.
        return dict(json.loads(json.dumps(config, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"The {kind} layer has a setting that JSON cannot hold ({error}), such as a Python function. Do that step "
            "with Dataset.map, and give the layer standardize=None or split=None."
        ) from error


def _state(layer: keras.Layer) -> dict[str, Any]:
    if type(layer).__name__ == "Normalization":
        mean, variance = (np.asarray(value, np.float64) for value in (layer.adapt_mean, layer.adapt_variance))
        return {"mean": mean.tolist(), "variance": variance.tolist()}
    state: dict[str, Any] = {"vocabulary": [str(word) for word in layer.get_vocabulary(include_special_tokens=False)]}
    if layer.get_config().get("output_mode") == "tf_idf":
        lookup = layer if type(layer).__name__ == "StringLookup" else _lookup_layer(layer)
        weights = np.asarray(lookup.idf_weights, np.float64)
        state["idf_weights"] = weights[-len(state["vocabulary"]) :].tolist()
    return state


def _lookup_layer(layer: keras.Layer) -> keras.Layer:
    """The part of a TextVectorization that holds the weights of its words: the one private name of Keras in `data/`."""
    try:
        return layer._lookup_layer
    except AttributeError as error:
        import keras  # who has a layer has loaded it

        raise SelectionError(
            f"Keras {keras.__version__} lacks TextVectorization._lookup_layer, which holds the weights of output_mode="
            "'tf_idf'. It was tried with Keras 3.15.1 and 3.16.0.dev2026102704: install one of these, or use another "
            "output_mode."
        ) from error
