"""A process of another user on the same host, and what it can try: run by test_neighbours.py, not a test.

It becomes the user, says that it is ready, does what it is told until its input ends, and says how far it came.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time

import numpy as np
from heliostat.cluster.allreduce.frames import HEADER_BYTES, Header, Kind
from heliostat.cluster.allreduce.handshake import _HELLO, _PROOF_BYTES

SUMMED = (Kind.NODES, Kind.SUM, Kind.WHOLE_NODES)


def local_name(host: str, port: int) -> str:
    return f"\0heliostat-{host}-{port}"


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


class Neighbour:
    def __init__(self, host: str, port: int) -> None:
        self.address = host, port
        self.num_knocked = self.num_heard = self.num_turned = 0

    def hold_the_name(self, *, relay: bool) -> None:
        """Listen where a worker of this host would; say nothing, or be the worker's voice and turn the signs."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(local_name(*self.address))
            sock.listen()
            say(ready=True)
            while True:
                victim, _ = sock.accept()
                self.num_knocked += 1
                target = self.between if relay else self.listen_on
                threading.Thread(target=target, args=(victim,), daemon=True).start()

    def listen_on(self, victim: socket.socket) -> None:
        while part := victim.recv(1 << 16):
            self.num_heard += len(part)

    def between(self, victim: socket.socket) -> None:
        with contextlib.suppress(EOFError, OSError):
            hello = exactly(victim, _HELLO.size)
            self.num_heard += len(hello)
            worker = socket.socket()  # a name would need modules that this user cannot read any more
            worker.connect(self.address)
            worker.sendall(hello)
            victim.sendall(exactly(worker, _HELLO.size + _PROOF_BYTES))
            worker.sendall(exactly(victim, _PROOF_BYTES))
            victim.sendall(exactly(worker, 1))
            socket.recv_fds(victim, 1, 1)  # the victim's offer of memory
            victim.sendall(b"\0")
            for pair in ((victim, worker), (worker, victim)):
                threading.Thread(target=self.turn, args=pair, daemon=True).start()

    def turn(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                start = exactly(source, HEADER_BYTES)
                header = Header.unpack(start)
                payload = exactly(source, header.length)
                if header.kind in SUMMED:
                    values = -np.frombuffer(payload, np.float32)
                    payload, self.num_turned = values.tobytes(), self.num_turned + values.size
                target.sendall(start + payload)

    def flood(self, where: str, *, silent: bool) -> None:
        """Knock as often as it goes."""
        kept: list[socket.socket] = []
        for number in itertools.count():
            if number == 50:
                say(ready=True)
            sock = socket.socket(socket.AF_UNIX if where == "local" else socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(0.01)
            if sock.connect_ex(local_name(*self.address) if where == "local" else self.address) == 0:
                self.num_knocked += 1
                if silent:
                    kept.append(sock)
                    if len(kept) > 200:
                        kept.pop(0).close()
                    continue
            else:
                time.sleep(0.001)
            sock.close()


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    user, does, host, port = sys.argv[1:]
    neighbour = Neighbour(host, int(port))
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    bodies = {
        "silent": lambda: neighbour.hold_the_name(relay=False),
        "relay": lambda: neighbour.hold_the_name(relay=True),
        "local flood": lambda: neighbour.flood("local", silent=False),
        "silent local flood": lambda: neighbour.flood("local", silent=True),
        "flood": lambda: neighbour.flood("port", silent=False),
        "silent flood": lambda: neighbour.flood("port", silent=True),
    }
    threading.Thread(target=bodies[does], daemon=True).start()
    sys.stdin.read()
    say(user=os.geteuid(), knocked=neighbour.num_knocked, heard=neighbour.num_heard, turned=neighbour.num_turned)
    os._exit(0)


if __name__ == "__main__":
    main()
