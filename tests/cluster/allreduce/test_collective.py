from __future__ import annotations

import pickle

import numpy as np
import pytest
from heliostat.cluster import errors
from heliostat.cluster.allreduce.collective import Alone
from heliostat.cluster.allreduce.slices import SumSpec
from heliostat.cluster.vectors import empty_vector, layout_of

ONE = (np.array([1.0, -0.0], np.float32),)
LIKE = layout_of(ONE)


def test_alone_sums_its_own_nodes(tree_sum, same_bits):
    leaves = {n: (np.float32([0.1 * n, 1e8]),) for n in range(5)}
    alone = Alone(generation=3)
    nodes = {(0, n): vector for n, vector in leaves.items()}
    out = (np.empty(2, np.float32),)
    assert alone.all_reduce(1, nodes, SumSpec.of([tuple(nodes)], LIKE, ("sum",)), out=out) is out
    assert same_bits(out, tree_sum(leaves, ("sum",), 5))
    assert alone.broadcast(2, b"frame") == b"frame"
    assert alone.statistics().calls == 2


def test_alone_obeys_abort_and_close():
    alone = Alone()
    alone.abort("the driver says so")
    with pytest.raises(errors.Aborted, match="the driver says so"):
        alone.broadcast(1, b"")
    closed = Alone()
    closed.close()
    with pytest.raises(errors.Aborted, match="closed"):
        closed.broadcast(1, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expected": [((0, 1),)]}, "should bring nodes"),
        ({"expected": [((0, 0),), ()]}, "names 2 workers"),
        ({"ops": ()}, "'sum' or 'max'"),
        ({"layout": ((np.dtype(np.float32), 3),)}, "does not fit"),
        ({"nodes": {}, "expected": [()]}, "nothing to sum"),
        ({"sequence": -1}, "sequence must grow"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message):
    usual = {"sequence": 1, "nodes": {(0, 0): ONE}, "expected": [((0, 0),)], "layout": LIKE, "ops": ("sum",)}
    given = {**usual, **arguments}
    spec = SumSpec.of(given["expected"], given["layout"], given["ops"])
    with pytest.raises(ValueError, match=message):
        Alone().all_reduce(given["sequence"], given["nodes"], spec)


def test_a_read_only_out_is_refused():
    out = (np.empty(2, np.float32),)
    out[0].flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        Alone().all_reduce(1, {(0, 0): ONE}, SumSpec.of([((0, 0),)], LIKE, ("sum",)), out=out)


CALL = errors.Call(0, 2, 3)
ERRORS = [
    errors.PeerError.lost(CALL, 1, "gone", also=(3,), unresponsive=(4,)),
    errors.PeerError.silent(errors.Call(0, 2, None), (1, 2), 1.5, "connecting"),
    errors.PeerError.stranger(CALL, 1, "wrong secret"),
    errors.PeerError.of_generation(CALL, 1, 4),
    errors.Aborted(CALL, "asked", (1,)),
    errors.ProtocolError.out_of_step(CALL, 1, "broadcast 3", "all-reduce 3"),
    errors.ProtocolError.frame(CALL, 1, "too long"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_errors_keep_their_fields_when_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert "rank 0 (generation 2" in str(copy)
    assert isinstance(copy, errors.CollectiveError)


def test_alone_a_single_node_that_cannot_be_written_to_is_the_result_without_a_copy():
    layout = ((np.dtype(np.float32), 3), (np.dtype(np.float64), 0))
    out = empty_vector(layout)
    vector = (np.arange(3, dtype=np.float32), np.zeros(0))

    def reduced(sequence):
        return alone.all_reduce(sequence, {(0, 0): vector}, SumSpec.of([((0, 0),)], layout, ("sum", "max")), out=out)

    alone = Alone()
    assert reduced(0)[0] is out[0]  # its owner may write to it again
    vector[0].flags.writeable = False
    assert reduced(1)[0] is vector[0]
