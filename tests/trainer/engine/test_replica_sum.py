"""Sums on the replicas' devices: the tree's bits, tried on logical CPU devices in place of GPUs."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tensorflow as tf
from heliostat.cluster.tree import node_range, present_nodes
from heliostat.cluster.vectors import TreeSum
from heliostat.trainer.engine.gradients import PhaseFunction
from heliostat.trainer.engine.replica_sum import ReplicaSum, nodes_among
from heliostat.trainer.engine.runtime import Runtime
from heliostat.trainer.engine.tensors import HostViews, memory_towards, to_tensor
from heliostat.trainer.engine.update import Update
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.eager import context

from ..conftest import dense_data, fingerprint, text_data
from ..models import chapter, normalised

pytestmark = pytest.mark.engine

OPS = ("sum", "sum", "max")


def vectors(count, seed=0):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-6, 7, (count, 9))
    main = (rng.normal(size=(count, 9)) * scales).astype(np.float32)
    return [(main[i], rng.normal(size=5), rng.normal(size=2)) for i in range(count)]


@st.composite
def chunks(draw):
    """A number of microbatches, which are present, and those that replicas compute at the same time."""
    present = draw(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
    indices = [index for index, here in enumerate(present) if here]
    first = draw(st.integers(0, len(indices) - 1))
    return present, indices[first : first + draw(st.integers(1, 8))]


@settings(deadline=None, derandomize=True)
@given(chunks())
def test_nodes_among_microbatches_are_the_largest_that_hold_only_them(drawn):
    present, indices = drawn
    found = nodes_among(indices, len(present))
    assert [index for _, each in found for index in each] == indices
    assert tuple(node for node, _ in found) == present_nodes(indices[0], indices[-1] + 1, present)
    for node, each in found:
        lo, hi = node_range(node, len(present))
        assert set(each) == {index for index in range(lo, hi) if present[index]}


@pytest.mark.parametrize("indices", [(0,), (2, 3), (1, 2, 3), (0, 1, 2, 3), (3, 4, 6), (0, 1, 3, 4, 5, 6)])
def test_sums_on_devices_have_the_bits_of_the_tree(indices):
    num_microbatches = 7
    devices = [f"CPU:{i}" for i in range(6)]
    given = vectors(num_microbatches)
    outputs = []
    for device, index in zip(devices, indices, strict=False):
        with tf.device(device):
            outputs.append([tf.identity(tf.constant(bucket)) for bucket in given[index]])
    assert [output[0].device[-1] for output in outputs] == [str(i) for i in range(len(indices))]
    unused = [outputs[-1]] * (len(devices) - len(outputs))
    tree, wanted = (TreeSum(num_microbatches, OPS, indices[0], indices[-1] + 1) for _ in range(2))
    for node, vector in ReplicaSum(devices, num_microbatches, OPS, HostViews())(indices, outputs + unused):
        tree.add_node(node, vector)
    for index in indices:
        wanted.add(index, given[index])
    found, expected = tree.nodes(), wanted.nodes()
    assert list(found) == list(expected)
    for node, vector in expected.items():
        for one, other in zip(found[node], vector, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("build", "make_data"), [(chapter, text_data), pytest.param(normalised, dense_data, marks=pytest.mark.slow)]
)
def test_a_run_whose_replicas_sum_on_their_devices_has_the_same_bits(train, request, monkeypatch, build, make_data):
    data, valid = make_data(), make_data(rows=23, seed=1)
    shared = {"validation_data": valid, "num_microbatches": 8}  # the last batch leaves one of them without rows
    reference = fingerprint(train(build, data, workers=0, **shared))
    summed = []
    original = ReplicaSum.__call__

    def noted(self, indices, outputs):
        summed.append(tuple(indices))
        return original(self, indices, outputs)

    monkeypatch.setattr(ReplicaSum, "__call__", noted)
    request.getfixturevalue("as_if_gpus")
    for (workers, replicas), loop in (((1, 3), "custom"), ((2, 2), "fit"), ((1, 1), "train_on_batch")):
        summed.clear()
        result = train(build, data, workers=workers, replicas=replicas, loop=loop, **shared)
        assert fingerprint(result) == reference, f"{workers} x {replicas}, {loop}"
        assert max(map(len, summed)) == replicas, "nothing was summed on devices"


def test_results_of_a_replica_do_not_travel_over_the_first_device(train, monkeypatch):
    graphs = []
    original = PhaseFunction.on_devices

    def watched(self, replica_inputs):
        if not self.layout.parts or graphs:
            return original(self, replica_inputs)
        context.context().enable_run_metadata()
        outputs = original(self, replica_inputs)
        graphs.extend(each.post_optimization_graph for each in context.context().export_run_metadata().function_graphs)
        context.context().disable_run_metadata()
        return outputs

    monkeypatch.setattr(PhaseFunction, "on_devices", watched)
    train(normalised, dense_data(), workers=0, replicas=2, epochs=1)
    results = {}
    for graph in graphs:
        device = {node.name: node.device[-1] for node in graph.node}
        for node in graph.node:
            if node.op == "_Retval":
                results[node.name] = device[node.input[0].split(":")[0]], node.device[-1]
    assert {at for _, at in results.values()} == {"0", "1"}
    assert all(made == at for made, at in results.values()), results


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_a_step_prints_is_printed_on_every_replica(train, tmp_path, replicas):
    path = tmp_path / f"printed-{replicas}"

    def train_step(model, optimizer, x, y):
        tf.print("rows", tf.shape(x)[0], output_stream=f"file://{path}")
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    # Printed as well: one microbatch of either size before the first step.
    train(normalised, dense_data(rows=32), workers=0, replicas=replicas, epochs=1, loop="custom", train_step=train_step)
    assert path.read_text().splitlines() == ["rows 4"] * (8 + replicas)


def test_the_sum_of_a_lone_worker_stays_on_its_device(train, monkeypatch):
    taken = []
    original = Update.__call__

    def noted(self, *main):
        taken.extend(bucket.backing_device[-1] for bucket in main)
        original(self, *main)

    monkeypatch.setattr(Update, "__call__", noted)
    monkeypatch.setattr(Runtime, "gpus", property(lambda self: [device.replace("0", "2") for device in self.devices]))
    train(normalised, dense_data(rows=64), workers=0, num_microbatches=2, replicas=2, epochs=1)
    assert taken == [*"00", *"22222222"]  # gradients and moving averages; the first are the warm-up's


def test_rounded_gradients_are_summed_on_the_host(train, monkeypatch, as_if_gpus):
    monkeypatch.setattr(ReplicaSum, "__call__", lambda *_: pytest.fail("summed on the devices"))
    rounded = [
        fingerprint(train(normalised, dense_data(), workers=1, replicas=replicas, gradient_dtype="bfloat16", epochs=1))
        for replicas in (1, 2)
    ]
    assert rounded[0] == rounded[1]


def test_memory_towards_a_device_is_tensorflows_and_lives_as_long_as_its_array():
    memory = memory_towards("CPU:1", 1000, np.float32)
    assert memory.flags.writeable
    assert memory.ctypes.data % 64 == 0
    memory[:] = np.arange(1000)
    tensor, part = to_tensor(memory), memory[10:20]
    del memory
    gc.collect()
    np.testing.assert_array_equal(tensor.numpy(), np.arange(1000))
    np.testing.assert_array_equal(part, np.arange(10, 20))
    assert memory_towards("CPU:1", 0, np.float64).shape == (0,)
