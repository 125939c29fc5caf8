from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np
import pytest
from heliostat.cluster import errors
from heliostat.cluster.allreduce.frames import HEADER_BYTES, Header, Kind
from heliostat.cluster.allreduce.handshake import dial
from heliostat.cluster.allreduce.mesh import TcpMesh, connect
from heliostat.cluster.allreduce.slices import SMALL_BYTES, SumSpec
from heliostat.cluster.assignment import assign
from heliostat.cluster.tree import present_nodes
from heliostat.cluster.vectors import TreeSum, layout_of
from ml_dtypes import bfloat16

OPS = ("sum", "sum", "max")


@pytest.fixture(params=["shared memory", "Unix sockets", "TCP"])
def transport(request):
    return request.param


def leaves_of(num_microbatches, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return {
        n: (
            (rng.standard_normal(lengths[0]) * 10.0 ** rng.integers(-30, 30, lengths[0])).astype(np.float32),
            rng.standard_normal(lengths[1]),
            rng.standard_normal(lengths[2]),
        )
        for n in range(num_microbatches)
    }


def partial_sums(leaves, present, lo, hi):
    partial = TreeSum(len(present), OPS, lo, hi)
    for n in range(lo, hi):
        if present[n]:
            partial.add(n, tuple(bucket.copy() for bucket in leaves[n]))
    return partial.nodes()


CASES = [
    (2, 4, (1, 0, 0), ()),
    (2, 4, (0, 0, 1), ()),
    (3, 8, (5, 2, 3), (0, 7)),
    (2, 2, (100_000, 5, 2), (0,)),
    (3, 5, (70_001, 3, 0), (4,)),
    (3, 8, (300_000, 17, 1), (6, 7)),  # a whole worker without microbatches
    (4, 7, (33_333, 0, 9), ()),
    (5, 3, (50_000, 1, 1), ()),  # more workers than microbatches
    (5, 16, (16, 16, 16), (3,)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_worker_gets_the_bits_of_the_plain_recursion(group, tree_sum, same_bits, case):
    num_workers, num_microbatches, lengths, absent = case
    leaves = leaves_of(num_microbatches, lengths)
    present = [n not in absent for n in range(num_microbatches)]
    ranges = assign(num_microbatches, num_workers)
    expected = [present_nodes(lo, hi, present) for lo, hi in ranges]
    like = layout_of(leaves[0])

    def body(mesh, rank):
        nodes = partial_sums(leaves, present, *ranges[rank])
        fresh = mesh.all_reduce(1, nodes, SumSpec.of(expected, like, OPS))
        out = tuple(np.full(length, 7, dtype) for dtype, length in like)
        assert mesh.all_reduce(2, nodes, SumSpec.of(expected, like, OPS), out=out) is out
        assert mesh.statistics().calls == 2
        return fresh, out

    reference = tree_sum({n: leaves[n] for n in leaves if present[n]}, OPS, num_microbatches)
    for result in group.run(num_workers, body):
        assert not isinstance(result, Exception), result
        assert same_bits(result[0], reference)
        assert same_bits(result[1], reference)


def test_unaligned_ranges_with_several_nodes_per_worker_give_the_same_bits(group, tree_sum, same_bits):
    leaves = leaves_of(13, (40_000, 3, 2))
    ranges = [(0, 5), (5, 11), (11, 13)]
    expected = [present_nodes(lo, hi, [True] * 13) for lo, hi in ranges]
    assert [len(nodes) for nodes in expected] == [2, 4, 2]

    def body(mesh, rank):
        nodes = partial_sums(leaves, [True] * 13, *ranges[rank])
        return mesh.all_reduce(5, nodes, SumSpec.of(expected, layout_of(leaves[0]), OPS))

    reference = tree_sum(leaves, OPS, 13)
    assert all(same_bits(result, reference) for result in group.run(3, body))


def test_bfloat16_travels_as_raw_bytes(group):
    length = SMALL_BYTES

    def body(mesh, rank):
        vector = (np.full(length, rank + 1, bfloat16),)
        return mesh.all_reduce(1, {(0, rank): vector}, SumSpec.of([((0, 0),), ((0, 1),)], layout_of(vector), ("sum",)))

    for (total,) in group.run(2, body):
        assert total.dtype == bfloat16
        assert (total.astype(np.float32) == 3).all()


def rounded_tree_sum(leaves, num_microbatches):
    """The first bucket of every node is bfloat16, the sum of its children as float32, rounded."""

    def rounded(vector):
        with np.errstate(all="ignore"):
            return (vector[0].astype(bfloat16), *vector[1:])

    def value(level, index):
        if level == 0:
            return leaves.get(index)
        left, right = value(level - 1, 2 * index), value(level - 1, 2 * index + 1)
        if left is None or right is None:
            return right if left is None else left
        with np.errstate(all="ignore"):
            total = left[0].astype(np.float32) + right[0].astype(np.float32)
            return rounded((total, left[1] + right[1], np.maximum(left[2], right[2]) + 0.0))

    return value((num_microbatches - 1).bit_length(), 0)


@pytest.mark.parametrize("num_microbatches", [4, 7])
@pytest.mark.parametrize("length", [50, 300_001])
def test_bfloat16_sums_have_the_same_bits_for_any_number_of_workers(group, same_bits, num_microbatches, length):
    leaves = leaves_of(num_microbatches, (length, 33, 5))
    leaves[1][0][:3] = np.nan, np.inf, 3.4e38
    with np.errstate(all="ignore"):
        leaves = {n: (leaf[0].astype(bfloat16), *leaf[1:]) for n, leaf in leaves.items()}
    for leaf in leaves.values():
        leaf[0].flags.writeable = False
    present = [n != 3 for n in range(num_microbatches)]
    reference = rounded_tree_sum({n: leaves[n] for n in leaves if present[n]}, num_microbatches)
    for num_workers in (1, 2, 3, 4):
        ranges = assign(num_microbatches, num_workers)
        expected = [present_nodes(lo, hi, present) for lo, hi in ranges]

        def body(mesh, rank, ranges=ranges, expected=expected):
            totals = []
            for sequence in range(2):
                partial = TreeSum(num_microbatches, OPS, *ranges[rank])
                for n in range(*ranges[rank]):
                    if present[n]:
                        partial.add(n, leaves[n])
                totals.append(
                    mesh.all_reduce(sequence, partial.nodes(), SumSpec.of(expected, layout_of(leaves[0]), OPS))
                )
            return totals

        for totals in group.run(num_workers, body):
            assert same_bits(totals[0], reference), num_workers
            assert same_bits(totals[1], reference), num_workers


def test_bfloat16_takes_half_the_bytes(group):
    def body(mesh, rank):
        expected, sent = [((0, 0),), ((0, 1),)], [0]
        for sequence, dtype in enumerate([np.float32, bfloat16]):
            vector = (np.full(400_000, rank + 1, dtype),)
            mesh.all_reduce(sequence, {(0, rank): vector}, SumSpec.of(expected, layout_of(vector), ("sum",)))
            sent.append(mesh.statistics().bytes_sent - sum(sent))
        return sent[1:]

    for plain, half in group.run(2, body):
        assert abs(plain - 2 * half) < 1000  # headers, or a byte for each block


def test_broadcast_reaches_every_worker_small_and_large(group):
    large = np.random.default_rng(0).bytes(3_000_000)

    def body(mesh, rank):
        small = mesh.broadcast(1, b"frame" if rank == 2 else None, root=2)
        return (
            small,
            mesh.broadcast(2, large if rank == 0 else None, max_bytes=4_000_000),
            mesh.broadcast(3, b"" if rank == 1 else None, root=1),
        )

    for result in group.run(4, body):
        assert result == (b"frame", large, b"")


def test_a_payload_over_the_limit_is_refused_by_root_and_receiver(group):
    def body(mesh, rank):
        return mesh.broadcast(1, bytes(100) if rank == 0 else None, max_bytes=200 if rank == 0 else 50)

    root, receiver = group.run(2, body)
    assert root == bytes(100)
    assert isinstance(receiver, errors.ProtocolError)
    assert "100 bytes announced where at most 50 are expected" in str(receiver)

    root, receiver = group.run(2, lambda mesh, rank: mesh.broadcast(1, bytes(9) if rank == 0 else None, max_bytes=8))
    assert isinstance(root, ValueError)
    assert isinstance(receiver, errors.PeerError)
    assert "max_bytes is 8" in str(receiver)


def test_workers_at_different_calls_are_out_of_step(group):
    results = group.run(2, lambda mesh, rank: mesh.broadcast(4 + rank, b"x" if rank == 0 else None))
    assert isinstance(results[1], errors.ProtocolError)
    assert results[1].peer == 0
    assert "this worker is at broadcast 5, rank 0 is at broadcast 4. All workers must make" in str(results[1])


def test_a_broadcast_does_not_answer_an_all_reduce(group):
    one = (np.ones(1, np.float32),)

    def body(mesh, rank):
        if rank == 0:
            return mesh.broadcast(1, b"x")
        return mesh.all_reduce(1, {(0, 1): one}, SumSpec.of([((0, 0),), ((0, 1),)], layout_of(one), ("sum",)))

    assert "rank 0 is at broadcast 1" in str(group.run(2, body)[1])


def test_workers_that_expect_other_nodes_are_told_so(group):
    one = (np.ones(1, np.float32),)

    def body(mesh, rank):
        other = ((0, 1),) if rank == 0 else ((0, 1), (0, 2))
        nodes = dict.fromkeys(((0, 0),) if rank == 0 else other, one)
        return mesh.all_reduce(1, nodes, SumSpec.of([((0, 0),), other], layout_of(one), ("sum",)))

    results = group.run(2, body)
    assert any(isinstance(result, errors.ProtocolError) and "do not agree" in str(result) for result in results)
    assert all(isinstance(result, errors.ProtocolError | errors.PeerError) for result in results)


def test_a_worker_that_raises_is_lost_at_once_with_its_reason(group):
    one = (np.ones(1, np.float32),)

    def body(mesh, rank):
        if rank == 1:
            raise RuntimeError("user code")  # the group closes the mesh, as a worker must
        return mesh.all_reduce(1, {}, SumSpec.of([(), ((0, 0),), ()], layout_of(one), ("sum",)))

    results = group.run(3, body)
    assert isinstance(results[1], RuntimeError)
    for rank in (0, 2):
        assert isinstance(results[rank], errors.PeerError)
        assert "lost rank 1: " in str(results[rank])


def test_the_goodbye_of_a_peer_that_has_closed_is_read_even_if_sending_to_it_fails_first():
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    first = TcpMesh({1: ours}, rank=0, generation=1, deadline_s=30.0)
    second = TcpMesh({0: theirs}, rank=1, generation=1, deadline_s=0.01)
    vector = (np.ones(1, np.float32),)

    def reduce(mesh, node):
        return mesh.all_reduce(1, {node: vector}, SumSpec.of([((0, 0),), ((0, 1),)], layout_of(vector), ("sum",)))

    with pytest.raises(errors.PeerError, match=r"was silent for 0\.01 s"):
        reduce(second, (0, 1))  # it has sent its part, and gives up
    with pytest.raises(errors.PeerError, match=r"it stopped: PeerError: .* rank 0 was silent") as caught:
        reduce(first, (0, 0))
    assert caught.value.peer == 1


def test_abort_from_another_thread_ends_a_blocked_call_and_all_later_ones(group):
    blocked = threading.Event()

    def body(mesh, rank):
        if rank == 0:
            blocked.wait(30)  # this worker never comes to the call
            return None
        aborter = threading.Thread(target=mesh.abort, args=("the driver ended the generation",))
        aborter.start()
        try:
            with pytest.raises(errors.Aborted, match="the driver ended the generation") as caught:
                mesh.broadcast(1, None)
            with pytest.raises(errors.Aborted, match="the driver ended the generation"):
                mesh.broadcast(2, None)
        finally:
            blocked.set()
            aborter.join()
        return caught.value

    assert isinstance(group.run(2, body)[1], errors.Aborted)


def test_a_call_after_an_error_raises_again(group):
    def body(mesh, rank):
        if rank == 0:
            return None
        with pytest.raises(errors.PeerError):
            mesh.broadcast(1, None)
        with pytest.raises(errors.Aborted, match=r"ended before.*lost rank 0"):
            mesh.broadcast(2, None)
        return "both"

    assert group.run(2, body)[1] == "both"


@pytest.mark.parametrize("num_workers", [3, 4])
def test_a_silent_worker_is_named_at_the_deadline_and_nobody_else(group, num_workers):
    silent, come = num_workers - 1, threading.Event()
    one = (np.ones(SMALL_BYTES, np.float32),)  # large enough for two rounds
    expected = [((0, rank),) for rank in range(num_workers)]
    left = threading.Semaphore(0)

    def body(mesh, rank):
        if rank == silent:
            come.wait(30)  # late, not dead: nobody else may be taken for it
            return None
        try:
            return mesh.all_reduce(1, {(0, rank): one}, SumSpec.of(expected, layout_of(one), ("sum",)), deadline_s=0.3)
        finally:
            left.release()
            if rank == 0:
                for _ in range(silent):
                    left.acquire(timeout=30)
                come.set()

    results = group.run(num_workers, body)
    said = f"rank {silent} was silent for 0.3 s"
    assert any(said in str(result) and result.peer == silent for result in results[:silent])
    for result in results[:silent]:
        assert isinstance(result, errors.PeerError)
        assert num_workers > 3 or said in str(result)
        assert set(result.unresponsive) <= {silent}
        if result.peer == silent:
            assert result.unresponsive == (silent,)
            assert "Also silent" not in str(result)


def forge(kind, *, generation=1, sequence=1, length=0, magic=b"HELI"):
    header = Header(kind=kind, generation=generation, sequence=sequence, layout_checksum=1, length=length).pack()
    return magic + header[4:]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (forge(Kind.BROADCAST, length=2**62), "bytes announced"),
        (forge(Kind.BROADCAST, generation=0), "generation 0"),
        (forge(Kind.GOODBYE, length=2**40), "a goodbye of"),
        (forge(Kind.BROADCAST, magic=b"GET "), "begins with b'GET '"),
        (b"HELI\x02\x63" + bytes(HEADER_BYTES - 6), "unknown kind"),
        (b"HELI\x09\x01" + bytes(HEADER_BYTES - 6), "version 9"),
    ],
    ids=["oversized", "old generation", "oversized goodbye", "magic", "kind", "version"],
)
def test_oversized_old_and_malformed_frames_are_refused(group, frame, message):
    """Worker 0 is played by hand: it knows the secret, and then sends what it likes."""
    listener, played = group.listen(2)

    def play():
        sock = socket.create_connection(listener.address)
        with sock:
            steps = dial(group.peers([listener, played], 1), 0)
            received = None
            with contextlib.suppress(StopIteration):
                while True:
                    data, wanted = steps.send(received)
                    sock.sendall(data)
                    received = sock.recv(wanted, socket.MSG_WAITALL)
            sock.sendall(frame)
            return sock.recv(4096)  # what the other side says before it closes

    def refuse():
        mesh = connect(listener, group.peers([listener, played], 0), timeout_s=30.0, deadline_s=30.0)
        with contextlib.closing(mesh):
            return mesh.broadcast(1, None, root=1)

    goodbye, refused = group.threads([play, refuse])
    assert isinstance(refused, errors.ProtocolError)
    assert message in str(refused)
    assert refused.peer == 1
    assert b"ProtocolError" in goodbye


def test_a_mesh_of_one_worker_needs_no_peers(group, tree_sum, same_bits):
    leaves = leaves_of(4, (1000, 1, 1))
    like = layout_of(leaves[0])

    def body(mesh, rank):
        nodes = {(0, n): vector for n, vector in leaves.items()}
        return mesh.all_reduce(1, nodes, SumSpec.of([tuple(nodes)], like, OPS)), mesh.broadcast(2, b"x")

    total, payload = group.run(1, body)[0]
    assert same_bits(total, tree_sum(leaves, OPS, 4))
    assert payload == b"x"


def test_calls_may_follow_each_other_without_waiting_for_the_slowest(group):
    """A fast worker's next call must not disturb a slow one's last, and large and small calls may alternate."""
    small, large = (np.ones(3, np.float32),), (np.ones(SMALL_BYTES, np.float32),)

    def body(mesh, rank):
        totals = []
        for sequence in range(60):
            vector = large if sequence % 7 == 3 else small
            nodes = {(0, rank): vector} if sequence % 5 or rank else {}
            expected = [[(0, 0)] if sequence % 5 else [], [(0, 1)], [(0, 2)]]
            total = mesh.all_reduce(2 * sequence, nodes, SumSpec.of(expected, layout_of(vector), ("sum",)))
            totals.append(float(total[0].min()))
            mesh.broadcast(2 * sequence + 1, b"go" if rank == sequence % 3 else None, root=sequence % 3)
        return totals

    assert group.run(3, body) == [[3.0 if sequence % 5 else 2.0 for sequence in range(60)]] * 3
