"""What is done with the private parts of models, metrics and graphs; the rest is in `private_api`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import keras
import tensorflow as tf
from keras.src.backend import compute_output_spec
from keras.src.trainers.compile_utils import CompileMetrics

from .private_optimizers import replaced_apply
from .replaced import replaced


def build_by_example(model: keras.Model, batch: tuple[object, object, object]) -> None:
    """Create a model's weights, optimizer and metric state.

    Args:
        model: a compiled model.
        batch: (x, y, sample_weight) of `keras.KerasTensor`; y is None for a model that is only to predict.
    """
    if batch[1] is not None:
        model._symbolic_build(data_batch=batch)
    elif not all(layer.built for layer in model._flatten_layers()):
        model(batch[0], training=False)


def run_symbolically(step: Callable[[object], object], data: object) -> bool:
    """Run a step on `keras.KerasTensor`, for what it builds; returns whether it came to its end.

    Nothing is applied, and gradients of weights are zeros: weights that are being made have none.
    """

    def run(data: object) -> None:
        step(data)

    with replaced_apply(_apply_nothing), _zero_gradients():
        try:
            compute_output_spec(run, data)
        except Exception:  # it is the user's code; its layers are built as far as it came
            return False
    return True


@contextlib.contextmanager
def _zero_gradients() -> Iterator[None]:
    original = tf.GradientTape.gradient

    def gradient(tape: tf.GradientTape, target: object, sources: object, *arguments: object, **named: object) -> object:
        flat = tf.nest.flatten(sources)
        if not all(isinstance(each, keras.Variable) for each in flat):
            return original(tape, target, sources, *arguments, **named)
        return tf.nest.pack_sequence_as(sources, [tf.zeros(each.shape, each.dtype) for each in flat])

    with replaced(tf.GradientTape, gradient=gradient):
        yield


def _apply_nothing(self: keras.optimizers.Optimizer, *_args: object, **_kwargs: object) -> None:
    pass


def unbuilt_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers inside of a model that have no weights yet."""
    return [layer for layer in model._flatten_layers() if layer is not model and not layer.built]


def unbuilt(model: keras.Model) -> list[int]:
    """The layers inside of a model that are not built, its loss and metrics among them, by id."""
    parts = [part for part in (model._compile_loss, model._compile_metrics) if part is not None and not part.built]
    return [id(part) for part in (*unbuilt_layers(model), *parts)]


def has_call(model: keras.Model) -> bool:
    """Whether a model can be called."""
    return type(model).call not in (keras.Model.call, keras.Layer.call)


def take_as_built(model: keras.Model) -> None:
    """Let `fit` and `evaluate` build nothing of a model any more: it would be by numbers of steps."""
    model._maybe_symbolic_build = _build_nothing


def _build_nothing(iterator: object = None, data_batch: object = None) -> None:
    pass


def in_list_order(model: keras.Model, logs: Mapping[str, object]) -> dict[str, object]:
    """The numbers of an evaluation in the order in which Keras lists them with ``return_dict=False``."""
    found = model._flatten_metrics_in_order({name: name for name in logs})
    names: list[str] = [found] if isinstance(found, str) else list(found)  # one alone is no list
    return {name: logs[name] for name in names}


def leaf_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that hold state, each once, containers opened: those of ``model.metrics`` first, in that order.

    Then those that a step may update although the model does not list them: its own loss tracker where ``metrics`` is
    overridden, and what is an attribute of a model or layer inside of it.
    """
    found = [*model.metrics]
    for layer in model._flatten_layers():
        found += layer._get_own_metrics() if isinstance(layer, keras.Model) else layer._metrics
    leaves = [leaf for metric in found for leaf in (metric.metrics if isinstance(metric, CompileMetrics) else [metric])]
    return list({id(leaf): leaf for leaf in leaves}.values())


def unlisted_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that are attributes of a model, and that its ``metrics`` does not list."""
    listed = {id(metric) for metric in model.metrics}
    return [metric for metric in model._metrics if id(metric) not in listed]


def nested_metrics(metric: keras.metrics.Metric) -> list[keras.metrics.Metric]:
    """The metrics that are attributes of a metric."""
    return list(metric._metrics)


def means(model: keras.Model) -> list[keras.metrics.Mean]:
    """The metrics of a model that hold a total and a count, those inside of others among them."""
    found = leaf_metrics(model)
    for metric in found:
        found += nested_metrics(metric)
    return [metric for metric in found if isinstance(metric, keras.metrics.Mean)]


def captured_from_outside(operation: tf.Operation) -> tf.Tensor | None:
    """The tensor outside of all traced functions that an operation stands for; None if it stands for none."""
    outside: tf.Tensor | None = None
    graph, inside = operation.graph, operation.outputs[0] if operation.type == "Placeholder" else None
    while inside is not None:
        inside = next((outer for outer, inner in graph.captures if inner is inside), None)
        outside = outside if inside is None else inside
        graph = getattr(inside, "graph", None)  # an eager tensor has none
        inside = None if graph is None else inside
    return outside


def compute_dtypes(model: keras.Model) -> set[str]:
    """The dtypes in which the layers of a model compute."""
    return {str(layer.compute_dtype) for layer in model._flatten_layers()}


@contextlib.contextmanager
def kept_loss_ids(model: keras.Model) -> Iterator[None]:
    """Inside the block layers know none of the losses that they have added, and after it those of before.

    They know them by ids, which eager losses that are gone leave to others.
    """
    kept = [(layer._loss_ids, set(layer._loss_ids)) for layer in model._flatten_layers()]
    for ids, _ in kept:
        ids.clear()
    try:
        yield
    finally:
        for ids, before in kept:
            ids.clear()
            ids |= before
