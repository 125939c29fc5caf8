"""Promise 4: metrics of a pass come from merged state, so they equal those of one device over all rows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.data import write_dataset
from heliostat.trainer.engine.metric_rules import metric_variables
from heliostat.trainer.engine.metrics import MetricLayout, MetricSums, Results
from heliostat.trainer.errors import UnsupportedModelError
from keras import layers, ops

from ..helpers import local_trainer

pytestmark = pytest.mark.engine

CLASSES = 4


class Largest(keras.metrics.Metric):
    """The largest prediction: one rule for all of its state."""

    state_merge = "max"

    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.value = self.add_weight(shape=(), initializer=keras.initializers.Constant(-np.inf), name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(ops.maximum(self.value, ops.max(y_pred)))

    def reset_state(self):
        self.value.assign(-np.inf)

    def result(self):
        return self.value  # the variable itself, not a tensor


class Summary(keras.metrics.Metric):
    """A rule per variable, and a result of several numbers."""

    state_merge = {"low": "min", "high": "max", "rows": "sum"}  # noqa: RUF012 - as users write it

    def __init__(self, name="summary"):
        super().__init__(name=name)
        self.low = self.add_weight(shape=(CLASSES,), initializer=keras.initializers.Constant(np.inf), name="low")
        self.high = self.add_weight(shape=(CLASSES,), initializer=keras.initializers.Constant(-np.inf), name="high")
        self.rows = self.add_weight(shape=(), initializer="zeros", dtype="int32", name="rows")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.low.assign(ops.minimum(self.low, ops.min(y_pred, axis=0)))
        self.high.assign(ops.maximum(self.high, ops.max(y_pred, axis=0)))
        self.rows.assign_add(ops.shape(y_pred)[0])

    def reset_state(self):
        self.low.assign(ops.full((CLASSES,), np.inf))
        self.high.assign(ops.full((CLASSES,), -np.inf))
        self.rows.assign(0)

    def result(self):
        return {"span": self.high - self.low, "rows": self.rows}


def plain_metrics():
    return [
        keras.metrics.AUC(num_thresholds=50, name="auc"),
        keras.metrics.TopKCategoricalAccuracy(k=2, name="top2"),
        keras.metrics.F1Score(name="f1"),
        keras.metrics.MeanIoU(CLASSES, sparse_y_true=False, sparse_y_pred=False, name="iou"),
        keras.metrics.R2Score(name="r2"),
        Largest(),
        Summary(),
    ]


def weighted_metrics():
    return [
        keras.metrics.CategoricalAccuracy(name="weighted_accuracy"),
        keras.metrics.AUC(num_thresholds=50, name="weighted_auc"),
    ]


def still():
    """A model that does not learn, so that a pass over the data has one right answer."""
    model = keras.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(CLASSES, activation="softmax")])
    model.compile(
        optimizer=keras.optimizers.SGD(0.0),
        loss="categorical_crossentropy",
        metrics=plain_metrics(),
        weighted_metrics=weighted_metrics(),
    )
    return model


def rows_of(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, count)]
    return {"x": x, "y": y, "w": rng.uniform(0, 2, count).astype(np.float32)}


def expected_logs(columns, predicted):
    """What plain metric objects say that saw all rows at once."""
    y, w = columns["y"], columns["w"]
    losses = keras.losses.CategoricalCrossentropy(reduction=None)(y, predicted)
    logs = {"loss": float(np.mean(np.asarray(losses, np.float64) * w))}
    for metric in plain_metrics():
        metric.update_state(y, predicted)
        result = metric.result()
        logs |= result if isinstance(result, dict) else {metric.name: result}
    for metric in weighted_metrics():
        metric.update_state(y, predicted, sample_weight=w)
        logs[metric.name] = metric.result()
    return {name: np.asarray(value).tolist() for name, value in logs.items()}


def assert_close(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("workers", "replicas", "loop"), [(3, 1, "fit"), pytest.param(1, 2, "custom", marks=pytest.mark.slow)]
)
def test_metrics_of_uneven_shares_equal_one_device_over_all_rows(tmp_path, workers, replicas, loop):
    train, valid = rows_of(43, 0), rows_of(29, 1)
    write_dataset(tmp_path / "train", train)
    write_dataset(tmp_path / "valid", valid)
    with local_trainer(still, tmp_path, workers=workers, replicas=replicas) as trainer:
        arguments = {"global_batch_size": 16, "sample_weight": "w", "verbose": 0}
        result = trainer.fit(tmp_path / "train", validation_data=tmp_path / "valid", loop=loop, **arguments)
        evaluated = trainer.evaluate(tmp_path / "valid", **arguments)
        on_train, on_valid = (trainer.predict(columns["x"], global_batch_size=16) for columns in (train, valid))
    assert len(set(result.epochs[0].rows_by_worker.values())) > 1 or workers == 1
    logs = {name: values[0] for name, values in result.history.items()}
    assert_close({n: v for n, v in logs.items() if not n.startswith("val_")}, expected_logs(train, on_train))
    assert_close({n[4:]: v for n, v in logs.items() if n.startswith("val_")}, expected_logs(valid, on_valid))
    assert evaluated == {n[4:]: v for n, v in logs.items() if n.startswith("val_")}


class Silent(keras.metrics.CategoricalAccuracy):
    """A subclass with state of its own that does not say how it merges."""

    def __init__(self):
        super().__init__(name="silent")
        self.seen = self.add_weight(shape=(), initializer="zeros", name="seen")


class Fading(keras.metrics.CategoricalAccuracy):
    """Adds no state, but sets that of Keras."""

    def __init__(self):
        super().__init__(name="fading")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign(0.9 * self.total)
        super().update_state(y_true, y_pred, sample_weight)


class Offset(Largest):
    """Starts its sum at one."""

    state_merge = "sum"

    def __init__(self):
        super().__init__(name="offset")

    def reset_state(self):
        self.value.assign(1.0)


class Partial(Summary):
    """Forgets one of its variables."""

    state_merge = {"low": "min"}  # noqa: RUF012


class Unknown(Largest):
    """A rule that does not exist."""

    state_merge = "mean"


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Silent, "'silent'.*does not say how its state 'seen'"),
        (Fading, "'fading'.*does not say how its state 'total'"),
        (Offset, "'offset' sums its state.*starts at"),
        (Partial, "'summary'.*'high'"),
        (Unknown, "'largest'.*state_merge is 'mean'"),
    ],
)
def test_a_metric_that_cannot_be_merged_is_refused_by_name(tmp_path, metric, words):
    def build():
        model = keras.Sequential([layers.Dense(CLASSES, activation="softmax")])
        model.compile(loss="categorical_crossentropy", metrics=[metric()])
        return model

    columns = rows_of(5, 0)
    with local_trainer(build, tmp_path) as trainer, pytest.raises(UnsupportedModelError, match=words):
        trainer.fit((columns["x"], columns["y"]), verbose=0)


def test_many_runs_of_a_process_do_not_look_like_retracing(caplog):
    """TensorFlow warns where one piece of code is traced again and again, as with the metrics of every run."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    variables = tuple(metric_variables(model))
    layout = MetricLayout(variables=variables, logged=(), num_int_state=0, result_names=("loss", "mae"))
    for number in range(8):
        metric_sums = MetricSums.start(layout)
        metric_sums.add(np.full(layout.num_sums, number + 1.0), np.zeros(0), 1)
        assert Results(model, layout)(metric_sums) == {"loss": 1.0, "mae": 1.0}
    assert "retracing" not in caplog.text
