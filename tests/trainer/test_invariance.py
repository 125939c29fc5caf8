"""Promise 2: the same bits for any number of workers and replicas, in all three loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from heliostat.cluster.allreduce.collective import Alone
from heliostat.cluster.vectors import reduce_nodes
from heliostat.data.order.order import RowOrder
from heliostat.data.order.plan import BatchPlan

from .conftest import dense_data, fingerprint, text_data
from .models import attention, chapter, linear, normalised, recurrent

pytestmark = pytest.mark.engine

LOOPS = ("fit", "train_on_batch", "custom")
LAYOUTS = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3))
FEW_LAYOUTS = ((3, 1), (1, 2))


@pytest.mark.parametrize(
    ("build", "make_data"), [(chapter, text_data), pytest.param(normalised, dense_data, marks=pytest.mark.slow)]
)
def test_every_layout_and_loop_gives_the_same_bits(train, build, make_data):
    data, valid = make_data(), make_data(rows=23, seed=1)
    reference = fingerprint(train(build, data, validation_data=valid, workers=0))
    loops = {layout: LOOPS[number % 3] for number, layout in enumerate(LAYOUTS)}  # the full product: --all
    for (workers, replicas), loop in loops.items():
        result = train(build, data, validation_data=valid, workers=workers, replicas=replicas, loop=loop)
        assert fingerprint(result) == reference, f"{workers} x {replicas}, {loop}"


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("build", "make_data"), [(chapter, text_data), (normalised, dense_data)])
def test_the_full_product_gives_the_same_bits(train, build, make_data, loop):
    data, valid = make_data(), make_data(rows=23, seed=1)
    reference = fingerprint(train(build, data, validation_data=valid, workers=0))
    for workers, replicas in LAYOUTS:
        result = train(build, data, validation_data=valid, workers=workers, replicas=replicas, loop=loop)
        assert fingerprint(result) == reference, f"{workers} x {replicas}"


@pytest.mark.parametrize("build", [attention, pytest.param(recurrent, marks=pytest.mark.slow)])
def test_attention_and_recurrent_models_give_the_same_bits(train, build):
    data = text_data(rows=41)
    reference = fingerprint(train(build, data, workers=0, epochs=1))
    for workers, replicas in FEW_LAYOUTS:
        assert fingerprint(train(build, data, workers=workers, replicas=replicas, epochs=1)) == reference


def compiled_by_xla(build):
    def build_model():
        model = build()
        model.compile_from_config({**model.get_compile_config(), "jit_compile": True})
        return model

    return build_model


@pytest.mark.parametrize("build", [linear(), pytest.param(normalised, marks=pytest.mark.slow)])
def test_steps_compiled_by_xla_give_the_same_bits(train, build):
    data, valid = dense_data(), dense_data(rows=23, seed=1)
    reference = train(compiled_by_xla(build), data, validation_data=valid, workers=0)
    for (workers, replicas), loop in zip(((3, 1), (1, 2), (2, 2)), LOOPS, strict=True):
        result = train(
            compiled_by_xla(build), data, validation_data=valid, workers=workers, replicas=replicas, loop=loop
        )
        assert fingerprint(result) == fingerprint(reference), f"{workers} x {replicas}, {loop}"
    plain = train(build, data, validation_data=valid, workers=0)
    assert fingerprint(plain) != fingerprint(reference), "it was not compiled"


@pytest.mark.parametrize("build", [normalised, pytest.param(linear(), marks=pytest.mark.slow)])
def test_gradients_rounded_to_bfloat16_give_the_same_bits(train, build):
    data, valid = dense_data(), dense_data(rows=23, seed=1)
    reference = train(build, data, validation_data=valid, workers=0, gradient_dtype="bfloat16")
    layouts = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2))
    for (workers, replicas), loop in zip(layouts, (*LOOPS, *LOOPS), strict=False):
        result = train(
            build,
            data,
            validation_data=valid,
            workers=workers,
            replicas=replicas,
            loop=loop,
            gradient_dtype="bfloat16",
        )
        assert fingerprint(result) == fingerprint(reference), f"{workers} x {replicas}, {loop}"
    plain = train(build, data, validation_data=valid, workers=0)
    assert fingerprint(plain) != fingerprint(reference), "nothing was rounded"


def test_a_sum_that_is_not_copied_has_the_bits_of_one_that_is(train, monkeypatch):
    data = dense_data()
    reference = train(normalised, data, workers=0, num_microbatches=1)
    copied = []

    def with_copies(self, sequence, nodes, spec, *, out, deadline_s):
        copied.append(sequence)
        return reduce_nodes(nodes, spec.ops, 1, out)

    monkeypatch.setattr(Alone, "all_reduce", with_copies)
    assert fingerprint(train(normalised, data, workers=0, num_microbatches=1)) == fingerprint(reference)
    assert copied


@pytest.mark.parametrize("rows", [1, 3, pytest.param(17, marks=pytest.mark.slow)])
def test_awkward_numbers_of_rows_give_the_same_bits(train, rows):
    data = dense_data(rows=rows)
    reference = train(normalised, data, workers=0, epochs=1)
    for workers, replicas in FEW_LAYOUTS:
        result = train(normalised, data, workers=workers, replicas=replicas, epochs=1)
        assert fingerprint(result) == fingerprint(reference)
        assert sum(result.epochs[0].rows_by_worker.values()) == rows


def test_microbatches_that_no_layout_divides(train):
    data = dense_data(rows=33)
    reference = fingerprint(train(normalised, data, workers=0, num_microbatches=5))
    for workers, replicas in FEW_LAYOUTS:
        result = train(normalised, data, workers=workers, replicas=replicas, num_microbatches=5)
        assert fingerprint(result) == reference


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda: keras.optimizers.Adam(1e-2, clipnorm=0.1), marks=pytest.mark.slow),
        lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
        lambda: keras.optimizers.SGD(1e-2, momentum=0.9, global_clipnorm=0.5),
        lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
    ],
    ids=["clipnorm", "weight_decay", "global_clipnorm", "ema"],
)
def test_optimizer_options_give_the_same_bits(train, optimizer):
    data = dense_data(rows=37)
    build = linear(optimizer=optimizer)
    reference = fingerprint(train(build, data, workers=0))
    assert fingerprint(train(build, data, workers=3, replicas=1)) == reference


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", pytest.param("sum", marks=pytest.mark.slow), "mean_with_sample_weight"]
)
def test_loss_reductions_give_the_same_bits(train, reduction):
    x, y = dense_data(rows=37)
    weights = np.linspace(0.1, 2, 37).astype(np.float32)
    build = linear(loss=lambda: keras.losses.SparseCategoricalCrossentropy(reduction=reduction))
    arguments = {"sample_weight": "w", "global_batch_size": 16}
    reference = fingerprint(train(build, (x, y, weights), workers=0, **arguments))
    result = train(build, (x, y, weights), workers=2, replicas=2, **arguments)
    assert fingerprint(result) == reference


def test_another_number_of_microbatches_gives_other_bits(train):
    # Otherwise the comparisons above could not fail.
    data = text_data()
    four, two = (train(chapter, data, workers=0, num_microbatches=n) for n in (4, 2))
    assert four.sha256["weights"] != two.sha256["weights"]


def test_the_rows_of_a_step_do_not_depend_on_the_workers(train):
    data = dense_data(rows=37)
    one, three = (train(linear(), data, workers=workers, record_rows=True, num_microbatches=4) for workers in (0, 3))
    plan = BatchPlan(num_rows=37, global_batch_size=16, num_microbatches=4)
    for epoch in range(2):
        order = RowOrder(num_rows=37, seed=7, epoch=epoch, shuffle="full")
        alone = [[row for worker in step for row in worker] for step in one.epochs[epoch].row_ids]
        assert alone == [order.rows(*plan.step_rows(step)).tolist() for step in range(3)]
        together = [[row for worker in step for row in worker] for step in three.epochs[epoch].row_ids]
        assert together == alone
        assert sorted(row for step in together for row in step) == list(range(37))
    assert one.epochs[0].row_ids != one.epochs[1].row_ids
