from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from heliostat.cluster.allreduce.frames import HEADER_BYTES, Notice, Outgoing
from heliostat.cluster.allreduce.handshake import Peers
from heliostat.cluster.allreduce.mesh import connect
from heliostat.cluster.allreduce.shared_memory import (
    ENTRY_BYTES,
    NUM_ENTRIES,
    SharedMemory,
    ShmChannel,
    offer,
    take_offer,
)
from heliostat.cluster.allreduce.slices import SumSpec, blocks_of
from heliostat.cluster.errors import Call, ProtocolError
from heliostat.cluster.vectors import layout_of

CALL = Call(0, 1, 1)
SECRET = b"a secret of some length"
LAYOUT = ((np.dtype(np.float32), 1000), (np.dtype(np.float64), 3), (np.dtype(np.float32), 70_000))


@pytest.fixture
def pair():
    """Two workers' memory, attached to each other as over a connection."""
    first, second = SharedMemory(0, 2), SharedMemory(1, 2)
    left, right = socket.socketpair()
    with left, right:
        assert offer(left, first)
        assert offer(right, second)
        first.attach(1, take_offer(left))
        second.attach(0, take_offer(right))
    yield first, second
    first.close()
    second.close()


def test_what_one_side_writes_the_other_one_reads(pair):
    first, second = pair
    vector = tuple(np.arange(length, dtype=dtype) for dtype, length in LAYOUT)
    for number, block in enumerate(blocks_of(LAYOUT, 1 << 16)):
        assert block.room <= 1 << 16
        for place in (0, 1):
            for target, source in zip(first.nodes_for(1).arrays(number, block, place), block.of(vector), strict=True):
                target[:] = source + place
            read = second.nodes_of(0).arrays(number, block, place)
            assert all((a == b + place).all() for a, b in zip(read, block.of(vector), strict=True))
        for target, source in zip(second.own_sums().arrays(number, block), block.of(vector), strict=True):
            target[:] = source * 2
        read = first.sums_of(1).arrays(number, block)
        assert all((a == b * 2).all() for a, b in zip(read, block.of(vector), strict=True))
        read = second.nodes_of(0).arrays(number, block)  # the sums lie elsewhere
        assert all((a == b).all() for a, b in zip(read, block.of(vector), strict=True))


def offered(memory):
    left, right = socket.socketpair()
    with left, right:
        assert offer(left, memory)
        return take_offer(right)


def test_memory_that_could_shrink_or_has_another_size_is_refused():
    memory = SharedMemory(0, 2)
    unsealed = os.memfd_create("heliostat-test", os.MFD_CLOEXEC)
    os.fchmod(unsealed, 0o600)
    os.ftruncate(unsealed, NUM_ENTRIES * ENTRY_BYTES * 2)
    with pytest.raises(ValueError, match="instead of"):
        memory.attach(1, unsealed)
    for_three = SharedMemory(1, 3)
    with pytest.raises(ValueError, match="instead of"):
        memory.attach(1, offered(for_three))
    assert not memory.peers
    for_three.close()
    memory.close()


def hear(channel, notices):
    """Let a channel's peer have said this, all at once."""
    peer = Outgoing(channel.incoming.header, [bytes(notices)])
    for cursor, length in ((channel.incoming.cursor, HEADER_BYTES), (None, len(notices))):
        cursor = cursor or channel.incoming.cursor
        cursor.window(length)[0][:] = b"".join(peer.window(length))
        cursor.advance(length)
        peer.advance(length)
        channel.incoming.open(CALL, 1)


def a_channel(memory):
    layout = ((np.dtype(np.float32), 700),)
    blocks, vector = blocks_of(layout, 400), (np.ones(700, np.float32),)
    channel = ShmChannel(memory, 1, blocks=blocks, own_blocks=blocks, num_peer_nodes=1)
    channel.start(CALL, 1, [vector], vector)
    return channel, len(blocks)


def test_a_channel_fills_its_entries_and_waits_until_sums_have_emptied_them(pair):
    channel, num_blocks = a_channel(pair[0])
    assert [channel.stage() for _ in range(NUM_ENTRIES + 1)] == [True] * NUM_ENTRIES + [False]
    hear(channel, [Notice.NODES, Notice.SUM, Notice.SUM])
    channel.listen()
    assert [channel.collect() for _ in range(3)] == [True, True, False]
    assert [channel.stage() for _ in range(3)] == [True, True, False]
    assert channel.incoming.independent  # it may announce three more blocks of nodes, whatever others do
    assert num_blocks > NUM_ENTRIES + 2
    assert (channel.bytes_sent, channel.bytes_received) == ((NUM_ENTRIES + 2) * 400, 400 + 2 * 400)


@pytest.mark.parametrize("notice", [Notice.NODES, Notice.SUM])
def test_more_blocks_than_there_are_are_refused(pair, notice):
    channel, num_blocks = a_channel(pair[0])
    hear(channel, [notice] * (num_blocks + 1))
    with pytest.raises(ProtocolError, match="announced more blocks than there are"):
        channel.listen()


def connected(listeners, rank, share_memory):
    peers = Peers(rank=rank, addresses=[each.address for each in listeners], generation=1, secret=SECRET)
    return connect(listeners[rank], peers, timeout_s=30.0, deadline_s=30.0, share_memory=share_memory)


def test_one_worker_without_memory_to_share_is_served_by_sockets(group, same_bits):
    listeners = group.listen(3)
    vector = (np.arange(200_000, dtype=np.float32),)

    def body(rank):
        mesh = connected(listeners, rank, share_memory=rank != 1)
        try:
            sharing = mesh.statistics().sharing
            expected = [((0, 0),), ((0, 1),), ((0, 2),)]
            return sharing, mesh.all_reduce(1, {(0, rank): vector}, SumSpec.of(expected, layout_of(vector), ("sum",)))
        finally:
            mesh.close()

    results = group.threads([lambda rank=rank: body(rank) for rank in range(3)])
    assert [sharing for sharing, _ in results] == [(2,), (), (0,)]
    assert all(same_bits(total, (vector[0] * 3,)) for _, total in results)


def num_mappings():
    return Path("/proc/self/maps").read_text().count("memfd:heliostat")


def test_after_a_call_and_a_close_no_mapping_and_no_descriptor_is_left(group):
    vector = (np.ones(300_000, np.float32),)
    gc.collect()  # errors of earlier tests keep what their calls had
    descriptors, mappings = len(os.listdir("/proc/self/fd")), num_mappings()

    def body(mesh, rank):
        return mesh.all_reduce(1, {(0, rank): vector}, SumSpec.of([((0, 0),), ((0, 1),)], layout_of(vector), ("sum",)))

    gc.disable()  # nothing may wait for the collector
    try:
        results = group.run(2, body)
        for listener in group.listeners:
            listener.close()
        assert all((total == 2).all() for (total,) in results)
        assert num_mappings() == mappings
        assert len(os.listdir("/proc/self/fd")) == descriptors
    finally:
        gc.enable()
