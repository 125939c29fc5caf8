"""The log of a job as it is written: one web socket, in a thread with an event loop of its own.

A caller may sit in a notebook, whose own loop runs in the calling thread, so the socket has a thread. It is made by
hand, not by Ray's client, for the sake of one option: a laptop that has slept or changed its network holds a connection
of which it never hears again, and only TCP's own keep-alive tells. (A ping of the web socket's does not: Ray's server
never reads, so it does not answer.)
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress

import aiohttp

CONNECT_S = 10.0
_CLOSE_S = 0.5  # the server does not answer that either
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))  # dead after 40 s


def tail(url: str, headers: Mapping[str, str], silent_s: float | None = None) -> Iterator[str]:
    """Texts that arrive on a web socket, until it ends, for whatever reason.

    Args:
        url: where, as http:// or https://.
        headers: to send with the first request.
        silent_s: an empty text comes whenever none has arrived for so long; None for never.
    """
    texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    reading = loop.create_task(_read(url, headers, texts))
    thread = threading.Thread(target=_run, args=(loop, reading, texts), name="heliostat-tail", daemon=True)
    thread.start()
    try:
        while (text := _next(texts, silent_s)) is not None:
            yield text
    finally:
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(reading.cancel)
        thread.join()


def _next(texts: queue.SimpleQueue[str | None], silent_s: float | None) -> str | None:
    try:
        return texts.get(timeout=silent_s)
    except queue.Empty:
        return ""


def _run(loop: asyncio.AbstractEventLoop, reading: asyncio.Task[None], texts: queue.SimpleQueue[str | None]) -> None:
    try:
        with suppress(aiohttp.ClientError, OSError, TimeoutError, asyncio.CancelledError):
            loop.run_until_complete(reading)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        texts.put(None)


async def _read(url: str, headers: Mapping[str, str], texts: queue.SimpleQueue[str | None]) -> None:
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    closing = aiohttp.ClientWSTimeout(ws_close=_CLOSE_S)
    async with aiohttp.ClientSession(headers=headers, timeout=limits) as session:
        async with session.ws_connect(url, max_msg_size=0, timeout=closing) as connection:
            held = connection.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                held.setsockopt(socket.IPPROTO_TCP, option, value)
            async for message in connection:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                texts.put(message.data)
