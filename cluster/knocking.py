"""Whether workers' machines let each other through, tried before anybody has loaded anything.

A worker opens a port and the next one dials it: a firewall is known after five seconds, and not when all have loaded
TensorFlow and wait for each other. `links.unreached` tries later what is more, the whole handshake; but that needs
both processes to run, and one that loads TensorFlow holds Python's lock for seconds. A port is answered by the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Mapping

Address = tuple[str, int]
REACH_S = 5.0
BACKLOG = 1024  # of connections that nobody takes: whoever made them has closed them again
_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EACCES, errno.EPERM)


def open_door(host: str) -> socket.socket:
    """A port of this machine that the kernel answers, under one of its addresses; raises OSError."""
    family, kind, protocol, _, target = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.bind(target)
        door.listen(BACKLOG)
    except BaseException:
        door.close()
        raise
    return door


def unreached(doors: Mapping[int, Address], limit_s: float = REACH_S) -> dict[int, str]:
    """Which of the doors do not answer from here, and why; all are dialled at once.

    A door that is shut, with nobody behind it, counts as reached: that worker has ended, its machine lets this one
    through.

    Args:
        doors: of workers, by their numbers.
        limit_s: how long to wait, in seconds.
    """
    found: dict[int, str] = {}
    callers: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for worker, (host, port) in doors.items():
            try:
                family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
                callers[worker] = caller = stack.enter_context(socket.socket(family, kind, protocol))
                caller.setblocking(False)
                caller.connect_ex(target)
                waiting.register(caller, selectors.EVENT_WRITE, worker)
            except OSError as error:
                found[worker] = str(error.strerror or error)
        until_s = time.monotonic() + limit_s
        while waiting.get_map() and (left_s := until_s - time.monotonic()) > 0:
            for key, _ in waiting.select(left_s):
                waiting.unregister(key.fileobj)
                if (number := callers[key.data].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) in _NO_WAY:
                    found[key.data] = os.strerror(number)
        for key in waiting.get_map().values():
            found[key.data] = f"no answer within {limit_s:g} s"
    return found
