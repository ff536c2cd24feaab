"""Badly behaved clients, which no load generator offers: slow, silent, cut short, far too large.

Knows sockets and the head of a request; knows nothing of what the server should do.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

HEAD = (
    b"POST /predict/digits HTTP/1.1\r\nHost: bench\r\nContent-Type: image/png\r\n"
    b"Content-Length: %d\r\n"
)
LARGE = 50 * 1024 * 1024
STEP = 64 * 1024
DRIP = 0.5  # seconds between two bytes

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def silent(streams: Streams) -> None:
    """Connect and send nothing."""
    await streams[0].read()


async def slow_header(streams: Streams) -> None:
    """Send the header byte by byte: Slowloris."""
    await _drip(streams, HEAD % 1)


async def dripping_body(streams: Streams) -> None:
    """Send the header at once, then the body byte by byte."""
    streams[1].write(HEAD % 10_000 + b"\r\n")
    await _drip(streams, bytes(10_000))


async def half(streams: Streams) -> None:
    """Send half of a request, then half-close."""
    await _send_half(streams)
    streams[1].write_eof()
    await streams[0].read()


async def aborted(streams: Streams) -> None:
    """Send half of a request, then reset the connection."""
    await _send_half(streams)
    connection: socket.socket = streams[1].get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def large(streams: Streams) -> None:
    """Send a body of 50 MB."""
    reader, writer = streams
    writer.write(HEAD % LARGE + b"Connection: close\r\n\r\n")
    for _ in range(LARGE // STEP):
        writer.write(bytes(STEP))
        await writer.drain()
    await reader.read()


KINDS: dict[str, Callable[[Streams], Awaitable[None]]] = {
    "silent": silent,
    "slow header": slow_header,
    "dripping body": dripping_body,
    "half a request": half,
    "aborted": aborted,
    "50 MB": large,
}


async def _send_half(streams: Streams) -> None:
    streams[1].write(HEAD % 1000 + b"\r\n" + bytes(500))
    await streams[1].drain()
    await asyncio.sleep(DRIP)


async def _drip(streams: Streams, data: bytes) -> None:
    reader, writer = streams
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), DRIP)
            return
    await reader.read()


class BadClients(threading.Thread):
    """A fixed number of connections of each kind; a connection that ends is opened again."""

    def __init__(self, port: int, counts: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self.ended: list[float] = []  # seconds that each connection lasted which ended by itself
        self._port, self._counts = port, counts
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Close all connections, and wait for that."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Run all clients until `stop` is called."""
        asyncio.run(self._all())

    async def _all(self) -> None:
        kinds = [kind for kind, count in self._counts.items() for _ in range(count)]
        clients = asyncio.gather(*map(self._repeat, kinds))
        while not self._stopping.is_set():
            await asyncio.sleep(0.05)
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)

    async def _repeat(self, kind: str) -> None:
        while True:
            with suppress(OSError):
                streams = await asyncio.open_connection("127.0.0.1", self._port)
                began = time.monotonic()
                try:
                    with suppress(OSError):
                        await KINDS[kind](streams)
                    self.ended.append(time.monotonic() - began)
                finally:
                    streams[1].transport.abort()  # without waiting for a full buffer
            await asyncio.sleep(0.1)
