"""Doors that the kernel answers, of real sockets."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from heliostat.cluster.knocking import open_door, unreached


def test_an_open_door_and_one_that_was_shut_are_reached_and_a_silent_machine_is_not():
    with ExitStack() as stack:
        doors = [stack.enter_context(open_door("127.0.0.1")) for _ in range(4)]
        addresses = {worker: door.getsockname()[:2] for worker, door in enumerate(doors)}
        doors[2].close()
        doors[3].listen(0)  # room for one, and nobody takes it: the kernel drops what comes, as a firewall does
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(addresses[3])
        assert unreached(addresses, limit_s=0.3) == {3: "no answer within 0.3 s"}
        del addresses[3]
        assert unreached(addresses) == {}


def test_a_name_that_nobody_knows_is_not_reached():
    assert list(unreached({1: ("no-such-host.invalid", 1)}, limit_s=0.3)) == [1]
