"""The service's HTTP engine without a socket: what it receives arrives exactly in these pieces.

Knows the engine; knows no case.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from serving.errors import ServingError
from serving.server.http.connection import Connection
from serving.server.http.message import Request
from serving.server.http.pool import Pool

ROUNDS = 6  # iterations of the event loop in which a piece is parsed and answered
HEAD = "X-Head"  # marks an answer without its body


@dataclass(frozen=True)
class Answer:
    """What a handler returns."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


async def echo(request: Request) -> Answer:
    """Answer with the method, the target and the body, or with the status of an error."""
    head = {HEAD: "1"} if request.head else {}
    try:
        if not request.method and request.error:
            raise request.error
        parts = [f"{request.method} ".encode(), request.target, b" "]
        while part := await request.chunk():
            parts.append(part)
    except ServingError as exc:
        return Answer(exc.status, b"refused", headers=head)
    return Answer(200, b"".join(parts), headers=head)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.half_closed = self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what is written before the end."""
        if not self.closed and not self.half_closed:
            self.written += data

    def write_eof(self) -> None:
        """End the answers."""
        self.half_closed = True

    def close(self) -> None:
        """Close."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """Return True if the engine has closed."""
        return self.closed

    def get_write_buffer_size(self) -> int:
        """Return 0: the client reads everything at once."""
        return 0

    def pause_reading(self) -> None:
        """Let no more pieces arrive."""
        self.paused = True

    def resume_reading(self) -> None:
        """Let more pieces arrive."""
        self.paused = False


async def exchange(pieces: Iterable[bytes], *, eof: bool) -> tuple[list[str], bool]:
    """Return the answers to pieces that arrive one after the other, and if the connection stays
    open."""
    loop = asyncio.get_running_loop()
    pool = Pool(echo, failure=Answer(500), keep_alive=600.0)
    wire, connection = Wire(), Connection(pool, loop)
    connection.connection_made(wire)
    for piece in pieces:
        if wire.closed:
            break
        connection.data_received(piece)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        while wire.paused and not wire.closed:
            await asyncio.sleep(0)
    if eof and not wire.closed and not connection.eof_received():
        wire.close()
    while pool.in_progress and any(not each.idle for each in pool.connections):
        before = wire.written
        for _ in range(20 * ROUNDS):
            await asyncio.sleep(0)
        if wire.written == before:
            break  # a body is incomplete
    stays = not (wire.closed or wire.half_closed or eof)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    return _answers(wire.written), stays


def _answers(written: bytes) -> list[str]:
    """Return status and body of each final answer; of a refusal the status alone."""
    found = []
    while written:
        head, _, written = written.partition(b"\r\n\r\n")
        status, fields = head[9:12].decode(), head.lower().split(b"\r\n")
        if status.startswith("1"):
            continue
        length = next(int(each.split()[1]) for each in fields if each[:15] == b"content-length:")
        if f"{HEAD}: 1".lower().encode() in fields:
            found.append(f"{status} HEAD / " if status == "200" else status)
            continue
        body, written = written[:length].decode("latin-1"), written[length:]
        found.append(f"{status} {body}" if status == "200" else status)
    return found
