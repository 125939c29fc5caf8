"""Passes connections on, and nothing else: `python gateway.py HOST:PORT TO_HOST:TO_PORT`; says when it listens.

What a tunnel, a forwarded port or a load balancer is to somebody outside of a cluster. It ends with its process, and
all connections with it.
"""

import asyncio
import contextlib
import sys

CHUNK_BYTES = 1 << 16


async def pass_on(source, sink):
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
    sink.close()


async def main(here, there):
    async def connected(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*there)
        except OSError:
            writer.transport.abort()  # as if nobody listened
            return
        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))

    server = await asyncio.start_server(connected, *here)
    print("ready", flush=True)
    await server.serve_forever()


def place(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(main(place(sys.argv[1]), place(sys.argv[2])))
